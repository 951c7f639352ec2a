"""stats.html: one page without scripts or anything outside it, from the figures of stats.json.

Names and reasons come from whoever made the files; `html` escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
from cxr_tfrecords.splits import SPLITS
from cxr_tfrecords.statistics import shortcut

_FEATURES = {
    "format": "file format",
    "mode": "pixel mode",
    "height": "image height",
    "width": "image width",
    "aspect_ratio": "aspect ratio",
    "file_size": "file size",
}
_TIES = {
    "": "not tied by itself",
    "pixels": "identical pixels",
    "near": "near-duplicate",
    "group": "same patient or given group",
}


def render(
    numbers: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail], plots: Mapping[str, bytes]
) -> str:
    """The whole page.

    Args:
      numbers: of stats.json; thumbnails: file name -> image; plots: name -> SVG.
    """
    names = numbers["class_names"]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    title = f"Radiographs of {len(names)} classes: {shown}"
    sections = (
        _summarize(numbers),
        _shortcut(numbers["shortcut"], len(names)),
        _counts(numbers),
        _files(numbers["files"], plots),
        _intensity(numbers, plots),
        _samples(numbers["samples"], thumbnails),
        _duplicates(numbers["duplicates"], thumbnails),
        _rejected(numbers),
    )
    body = "\n".join(line for section in sections for line in section)
    return document(title, body)


def _summarize(numbers: Mapping[str, Any]) -> Iterable[str]:
    image, found = numbers["image"], numbers["sources"]
    colour = "gray" if image["channels"] == 1 else "RGB"
    masks = ", with lung masks" if image.get("mask") else ""
    aside = sum(found["set_aside"].values())
    yield paragraph(
        f"{found['written']:,} images of {image['size']} × {image['size']} pixels, {colour}, "
        f"stored as {image['encoding']}, enhancement: {image['enhance']}{masks}. Of "
        f"{found['found']:,} files found, {found['written']:,} were written, "
        f"{found['rejected']:,} rejected and "
        f"{aside:,} set aside."
    )
    yield paragraph(f"Fingerprint of the data set: {numbers['fingerprint'][:16]}", "quiet")


def _shortcut(found: Mapping[str, Any], classes: int) -> Iterable[str]:
    verdict = found["verdict"]
    yield heading("Does the file tell the class?")
    if verdict == shortcut.ALIKE:
        yield box("green", f"No shortcut: {found['reason']}.")
        return
    if verdict == shortcut.NOT_TESTED:
        yield box("gray", f"Not tested: {found['reason']}.")
        return
    score = (
        f"balanced accuracy {found['balanced_accuracy']:.3f} ± {found['standard_error']:.3f}, "
        f"guessing gives {found['chance']:.3f}"
    )
    if verdict == shortcut.SHORTCUT and found["file_size_only"]:
        yield box(
            "amber",
            f"Warning: file size alone predicts the class ({score}).",
            "A model can learn the scanner instead of the disease where the sources of the classes "
            "were compressed in other ways. But how far a picture compresses also depends on what "
            "it shows, so this may be the disease itself. Format, pixel mode and image size do not "
            "predict the class.",
        )
    elif verdict == shortcut.SHORTCUT:
        yield box(
            "red",
            f"Warning: file format and size alone predict the class ({score}).",
            "A model can learn the scanner instead of the disease: what tells the sources of the "
            "classes apart leaves traces in the pixels. A good score on this data set then does "
            "not show that the disease is recognised, and may not hold at another hospital.",
            "Try: images of all classes from the same sources, an --image_size to which every "
            "source is resampled, --mask=lungs and --mask=background at training, and a test set "
            "from elsewhere.",
        )
    else:
        yield box(
            "green",
            f"No shortcut found: file format and size do not clearly predict the class ({score}).",
            "Other traces of a source, such as markers, borders or the scanner's noise, are not "
            "looked for.",
        )
    yield from _scores(found)


def _scores(found: Mapping[str, Any]) -> Iterable[str]:
    yield paragraph(
        f"How often a decision tree names the right class without seeing a pixel, mean over "
        f"classes; {found['folds']}-fold cross-validation, {found['rows']:,} written images, "
        "groups kept together:"
    )
    rows = [("all of these", found), ("all but file size", found["without_file_size"])]
    rows += [(f"{_FEATURES[n]} alone", one) for n, one in found["single_features"].items()]
    yield table(
        ["known of the file", "balanced accuracy", "standard error", "above chance"],
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
        "Above chance: by more than 0.05 and by more than 3 standard errors (of the folds or of "
        "guessing, whichever is larger).",
        "quiet",
    )


def _counts(numbers: Mapping[str, Any]) -> Iterable[str]:
    names, counts = numbers["class_names"], numbers["counts"]
    yield heading("Splits and classes")
    rows = [
        [
            split,
            *(f"{counts[split][n]:,} ({numbers['shares'][split][n]:.1%})" for n in names),
            f"{sum(counts[split].values()):,}",
            numbers["prevalence"][split],
        ]
        for split in SPLITS
    ]
    sums = [sum(counts[split][n] for split in SPLITS) for n in names]
    total = max(sum(sums), 1)
    rows.append(["all", *(f"{n:,} ({n / total:.1%})" for n in sums), f"{sum(sums):,}", ""])
    yield table(["split", *names, "all", "prevalence"], rows, total=True)
    proof = numbers["split_proof"]
    groups = ", ".join(f"{split} {proof['groups'][split]:,}" for split in SPLITS)
    yield paragraph(f"What never lies in two splits: {proof['unit']}.")
    yield paragraph(
        f"Groups: {groups}; in two splits: {proof['groups_in_two_splits']:,}. Natural prevalence: "
        "the classes are as frequent as in the files found. Balanced: they were cut to the "
        "smallest, so that figures of that split do not hold at the natural prevalence."
    )


def _files(sources: Mapping[str, Any], plots: Mapping[str, bytes]) -> Iterable[str]:
    yield heading("Source files")
    rows = []
    for name, one in sources.items():
        sizes = "; ".join(f"{h} × {w}: {count:,}" for h, w, count in one["sizes"][:5])
        more = one["num_sizes"] - len(one["sizes"][:5])
        quartiles = " / ".join(f"{one['bytes'][q] / 1000:,.1f}" for q in ("q1", "median", "q3"))
        rows.append(
            [
                name,
                _tally(one["formats"]),
                _tally(one["modes"]),
                sizes + (f"; {more:,} more sizes" if more else ""),
                quartiles,
            ]
        )
    header = ["class", "format", "mode", "height × width, most common", "quartiles of kB"]
    yield table(header, rows, texts=4)
    yield plot(plots["bytes"], "File sizes by class")
    if "sizes" in plots:
        yield plot(plots["sizes"], "Height and width of the sources by class")
        yield paragraph("A larger mark stands for a larger share of its class.", "quiet")


def _intensity(numbers: Mapping[str, Any], plots: Mapping[str, bytes]) -> Iterable[str]:
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
            for name, one in numbers["intensity"].items()
        ],
    )
    pixels = numbers["pixels"]
    means, deviations = (", ".join(f"{v:.2f}" for v in pixels[key]) for key in ("mean", "std"))
    yield paragraph(f"Mean {means} and deviation {deviations}: {pixels['of']}.", "quiet")


def _samples(
    samples: Mapping[str, Sequence[str]], thumbnails: Mapping[str, Thumbnail]
) -> Iterable[str]:
    yield heading("Samples")
    for name, chosen in samples.items():
        yield f"<h3>{escaped(name)}</h3>"
        yield row(figure(thumbnails[one], [one.rpartition("/")[2]]) for one in chosen)


def _duplicates(found: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail]) -> Iterable[str]:
    yield heading("Copies and groups")
    tied = found["tied_by"]
    yield paragraph(f"Looked for: {found['level']}.")
    yield table(
        ["", "number"],
        [
            ["groups of more than one image", f"{found['num_groups']:,}"],
            ["images beyond the first of their group", f"{found['images']:,}"],
            ["images with identical pixels", f"{tied['pixels']:,}"],
            ["near-duplicates", f"{tied['near']:,}"],
            ["images tied by patient or given column", f"{tied['group']:,}"],
            ["images whose copies lie in several classes", f"{found['num_label_conflicts']:,}"],
        ],
    )
    if found["num_groups"] > len(found["shown"]):
        yield paragraph(f"The first {len(found['shown'])} groups, label conflicts before others:")
    if found["shown"]:
        yield '<div class="groups">'
        yield from _groups(found["shown"], thumbnails)
        yield "</div>"


def _groups(
    shown: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, Thumbnail]
) -> Iterable[str]:
    for group in shown:
        conflict = group["label_conflict"]
        title = "Label conflict: " if conflict else ""
        title += f"{group['images']:,} images"
        if group["images"] > len(group["shown"]):
            title += f", {len(group['shown'])} of them shown"
        yield f'<div class="group{" conflict" if conflict else ""}"><h3>{title}</h3>'
        yield row(_member(one, thumbnails.get(one["filename"])) for one in group["shown"])
        yield "</div>"


def _member(one: Mapping[str, str], thumbnail: Thumbnail | None) -> str:
    state = one["split"] or f"not written: {one['reason']}"
    tied = ", ".join(_TIES[kind] for kind in one["tied_by"].split("+"))
    return figure(thumbnail, [one["filename"], one["class"], state, tied])


def _rejected(numbers: Mapping[str, Any]) -> Iterable[str]:
    found, aside = numbers["rejected"], numbers["sources"]["set_aside"]
    yield heading("Files that were not written")
    if not found["files"] and not aside:
        yield paragraph("None.")
    rows = [["rejected", one["reason"], f"{one['files']:,}"] for one in found["reasons"]]
    rows += [["set aside", reason, f"{count:,}"] for reason, count in aside.items()]
    if rows:
        yield table(["", "reason", "files"], rows, texts=2)
    if found["num_reasons"] > len(found["reasons"]):
        yield paragraph(f"… and {found['num_reasons'] - len(found['reasons']):,} more reasons.")
    if found["first"]:
        listed = [[one["file"], one["reason"]] for one in found["first"]]
        yield table(["rejected file", "reason"], listed, texts=2)
    if found["files"] > len(found["first"]):
        yield paragraph(f"… and {found['files'] - len(found['first']):,} more, in sources.csv.")


def _tally(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return "; ".join(f"{word}: {count:,}" for word, count in ordered)
