"""The page stats.html, from the figures of stats.json: one file, without scripts.

Names and reasons come from whoever made the files; `html` escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages import class_lists
from cxr_tfrecords.pages.html import (
    Thumbnail,
    bar,
    box,
    document,
    escaped,
    figure,
    heading,
    paragraph,
    plot,
    row,
    table,
)
from cxr_tfrecords.splits import split_names
from cxr_tfrecords.statistics import groups_page, shortcut
from cxr_tfrecords.statistics.page_files import describe_sources, list_not_written, list_warnings

_FEATURES = {
    "format": "file format",
    "mode": "pixel mode",
    "height": "image height",
    "width": "image width",
    "aspect_ratio": "aspect ratio",
    "file_size": "file size",
}


def render(
    numbers: Mapping[str, Any],
    shown: Sequence[str],
    thumbnails: Mapping[str, Thumbnail],
    plots: Mapping[str, bytes],
) -> str:
    """The whole page.

    Args:
      numbers: content of stats.json.
      shown: the classes to show, see `class_lists.shown_classes`.
      thumbnails: file name -> image; plots: name -> SVG.
    """
    names = numbers["class_names"]
    title = f"Radiographs of {len(names)} classes: {class_lists.few(names, 8)}"
    sections = (
        _summarize(numbers),
        _shortcut(numbers["shortcut"], len(names)),
        _counts(numbers, shown),
        describe_sources({name: numbers["files"][name] for name in shown}, plots),
        _intensity(numbers, shown, plots),
        _samples(numbers["samples"], thumbnails),
        groups_page.leaks(numbers["given_leaks"], thumbnails),
        groups_page.duplicates(numbers["duplicates"], thumbnails),
        list_warnings(numbers["warnings"]),
        list_not_written(numbers),
    )
    body = "\n".join(line for section in sections for line in section)
    return document(title, body)


def _summarize(numbers: Mapping[str, Any]) -> Iterable[str]:
    image, sources = numbers["image"], numbers["sources"]
    colour = "gray" if image["channels"] == 1 else "RGB"
    masks = ", with lung masks" if image.get("mask") else ""
    aside = sum(sources["set_aside"].values())
    yield paragraph(
        f"{sources['written']:,} images of {image['size']} × {image['size']} pixels, {colour}, "
        f"stored as {image['encoding']}, enhancement: {image['enhance']}{masks}. Of "
        f"{sources['found']:,} files found, {sources['written']:,} were written, "
        f"{sources['rejected']:,} rejected and {aside:,} set aside."
    )
    if numbers["notes"]:
        yield box("amber", *numbers["notes"])
    if left_out := class_lists.left_out(len(numbers["class_names"]), "stats.json"):
        drawn = f" Pictures have {class_lists.DRAWN} of them."
        yield box("gray", left_out + drawn)
    yield paragraph(f"Fingerprint of the data set: {numbers['fingerprint'][:16]}", "quiet")


def _shortcut(result: Mapping[str, Any], classes: int) -> Iterable[str]:
    verdict = result["verdict"]
    yield heading("Do format and size of a file predict its class?")
    if verdict == shortcut.ALIKE:
        yield box("green", f"No shortcut: {result['reason']}.")
        return
    if verdict == shortcut.NOT_TESTED:
        yield box("gray", f"Not tested: {result['reason']}.")
        return
    score = (
        f"balanced accuracy {result['balanced_accuracy']:.3f} ± {result['standard_error']:.3f}, "
        f"guessing gives {result['chance']:.3f}"
    )
    if verdict == shortcut.SHORTCUT and result["file_size_only"]:
        yield box(
            "amber",
            f"Warning: file size alone predicts the class ({score}).",
            "A model can learn the scanner instead of the disease if the images of the classes "
            "were compressed in different ways. But the size of a compressed image also depends "
            "on what it shows, so this may be the disease itself. Format, pixel mode and image "
            "size do not predict the class.",
        )
    elif verdict == shortcut.SHORTCUT:
        yield box(
            "red",
            f"Warning: file format and size alone predict the class ({score}).",
            "A model can learn the scanner instead of the disease: images of classes that come "
            "from different sources also differ in their pixels. A good score on this data set "
            "then does not show that the disease is recognised, and may not hold at another "
            "hospital.",
            "What to try: images of all classes from the same sources; an --image_size that "
            "resamples every source; training with --mask=lungs and with --mask=background; a "
            "test set from another hospital.",
        )
    else:
        yield box(
            "green",
            f"No shortcut found: file format and size do not clearly predict the class ({score}).",
            "This does not test other traces of a source, such as markers, borders or the "
            "scanner's noise.",
        )
    yield from _scores(result)


def _scores(result: Mapping[str, Any]) -> Iterable[str]:
    yield paragraph(
        "Balanced accuracy of a decision tree that predicts the class from these properties of "
        f"the file and sees no pixels: {result['folds']}-fold cross-validation on "
        f"{result['rows']:,} written images, the images of a group in one fold."
    )
    rows = [("all of these", result), ("all but file size", result["without_file_size"])]
    rows += [(f"{_FEATURES[n]} alone", one) for n, one in result["single_features"].items()]
    yield table(
        ["properties of the file", "balanced accuracy", "standard error", "above chance"],
        [
            [
                title,
                bar(one["balanced_accuracy"]),
                f"{one['standard_error']:.3f}",
                "yes" if one["above_chance"] else "no",
            ]
            for title, one in rows
        ],
    )
    yield paragraph(
        "Above chance means: above guessing by more than 0.05 and by more than 3 standard errors "
        "(of the folds or of guessing, whichever is larger).",
        "quiet",
    )


def _counts(numbers: Mapping[str, Any], names: Sequence[str]) -> Iterable[str]:
    counts = numbers["counts"]
    splits = split_names(numbers["folds"])
    yield heading("Splits and classes")
    rows = [["split", *names, "all", "prevalence"]]
    rows += [
        [
            split,
            *(f"{counts[split][n]:,} ({numbers['shares'][split][n]:.1%})" for n in names),
            f"{sum(counts[split].values()):,}",
            numbers["prevalence"][split],
        ]
        for split in splits
    ]
    sums = [sum(counts[split][n] for split in splits) for n in names]
    total = max(numbers["sources"]["written"], 1)
    rows.append(["all", *(f"{n:,} ({n / total:.1%})" for n in sums), f"{total:,}", ""])
    if len(numbers["class_names"]) > class_lists.COLUMNS:
        rows = [*map(list, zip(*rows, strict=True))]
        yield table(rows[0], rows[1:])
    else:
        yield table(rows[0], rows[1:], total=True)
    proof = numbers["split_proof"]
    groups = ", ".join(f"{split} {proof['groups'][split]:,}" for split in splits)
    yield paragraph(f"Unit of the split, never in two splits: {proof['unit']}.")
    yield paragraph(
        f"Groups: {groups}; in two splits: {proof['groups_in_two_splits']:,}. Natural prevalence: "
        "the classes are as frequent as in the files found. Balanced: every class was cut to the "
        "size of the split's smallest, so results on that split do not hold at the natural "
        "prevalence."
    )


def _intensity(
    numbers: Mapping[str, Any], shown: Sequence[str], plots: Mapping[str, bytes]
) -> Iterable[str]:
    yield heading("Intensities")
    yield plot(plots["intensity"], "Histograms of the gray values by class")
    yield table(
        ["class", "mean", "standard deviation", "black (0)", "white (255)"],
        [
            [
                name,
                f"{one['mean']:.2f}",
                f"{one['std']:.2f}",
                f"{one['black']:.1%}",
                f"{one['white']:.1%}",
            ]
            for name, one in ((name, numbers["intensity"][name]) for name in shown)
        ],
    )
    pixels = numbers["pixels"]
    means, deviations = (", ".join(f"{v:.2f}" for v in pixels[key]) for key in ("mean", "std"))
    yield paragraph(f"Mean {means}, standard deviation {deviations}: {pixels['of']}.", "quiet")


def _samples(
    samples: Mapping[str, Sequence[str]], thumbnails: Mapping[str, Thumbnail]
) -> Iterable[str]:
    yield heading("Samples")
    for name, chosen in samples.items():
        yield f"<h3>{escaped(name)}</h3>"
        yield row(figure(thumbnails[one], [one.rpartition("/")[2]]) for one in chosen)
