"""The statistics page of a data set: stats.html, and its figures in stats.json.

  python -m cxr_tfrecords.stats DATA    (or --data_dir=DATA)

makes both again from manifest.json, sources.csv and a few records of the shards. Every build
makes them too. The same data set gives the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags, logging

from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError, named_data_set, run_main
from cxr_tfrecords.pages.class_lists import DRAWN, shown_classes
from cxr_tfrecords.statistics import shortcut
from cxr_tfrecords.statistics.sources import (
    SourceTable,
    choose_groups,
    choose_leaks,
    describe_files,
    describe_rejected,
    measure_shortcut,
    read_sources,
    size_points,
)

FORMAT = "cxr-stats/1"
NUMBERS, PAGE = "stats.json", "stats.html"
_SAMPLES = 6  # of each class
_WARNED = 50  # files that the page names for each warning


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Contents of stats.json and stats.html, not written yet."""

    numbers: dict[str, Any]
    page: str


def make(path: str, manifest: Mapping[str, Any]) -> Statistics:
    """Makes the page of a dataset directory; writes nothing.

    Args:
      manifest: content of the directory's manifest.json, which need not be written yet.

    Raises:
      UserError: sources.csv or a shard is missing or damaged.
    """
    # Imported here, because `describe` does not need what draws the pictures.
    from cxr_tfrecords.statistics import pictures
    from cxr_tfrecords.statistics.page import render

    sources = read_sources(path, manifest)
    numbers = collect(manifest, sources)
    counts = manifest["counts"].values()
    totals = [sum(count[name] for count in counts) for name in manifest["class_names"]]
    shown = [manifest["class_names"][label] for label in shown_classes(totals)]
    drawn = {manifest["class_names"][label] for label in shown_classes(totals, DRAWN)}
    leading = _leading(manifest, shown)
    named: dict[str, set[str]] = {}
    for member in _members(numbers["duplicates"]["shown"] + numbers["given_leaks"]["shown"]):
        named.setdefault(member["shard"], set()).add(member["filename"])
    thumbnails = pictures.read_thumbnails(path, manifest, named, leading)
    thumbnails |= pictures.read_left_out(path, manifest)
    numbers["samples"] = {
        name: [t.filename for t in thumbnails.values() if t.leading and t.class_name == name]
        for name in shown
    }
    of_drawn = {
        key: {name: one for name, one in numbers[key].items() if name in drawn}
        for key in ("intensity", "files")
    }
    points = {name: one for name, one in size_points(sources).items() if name in drawn}
    page = render(numbers, shown, thumbnails, pictures.draw(of_drawn, points))
    return Statistics(numbers, page)


def shown_without_shard(path: str, manifest: Mapping[str, Any]) -> set[str]:
    """File names of the images that the page shows though no shard holds them.

    Args:
      path: folder of the sources.csv that the manifest describes.
    """
    sources = read_sources(path, manifest)
    copies = choose_groups(sources, list(manifest["duplicates"]["label_conflicts"]))
    members = _members(copies + choose_leaks(sources)["shown"])
    return {member["filename"] for member in members if not member["shard"]}


def _members(groups: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for group in groups:
        yield from group["shown"]


def refresh(path: str, manifest: Mapping[str, Any]) -> None:
    """Writes the page at the end of a build.

    If the page cannot be made, that is logged and the data set stays as it is; an earlier page is
    removed, because it describes other images. If it cannot be written, the build fails: the disk
    is full then.
    """
    try:
        made = make(path, manifest)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        logging.error(
            "the statistics page could not be made (%s: %s); try again: "
            "python -m cxr_tfrecords.stats %s",
            type(error).__name__,
            first,
            shlex.quote(path),
        )
        remove(path)
        return
    write(path, made)


def write(path: str, statistics: Statistics) -> None:
    """Writes stats.json and stats.html."""
    files.write_json(files.join(path, NUMBERS), statistics.numbers)
    files.write_text(files.join(path, PAGE), statistics.page)


def remove(path: str) -> None:
    """Removes stats.json and stats.html, where they are there."""
    for name in (NUMBERS, PAGE):
        with contextlib.suppress(FileNotFoundError):
            files.remove(files.join(path, name))


def describe(path: str) -> list[str]:
    """Lines for the terminal: a warning of a shortcut, if there is one, and the page's path."""
    page = files.join(path, PAGE)
    try:
        result = files.read_json(files.join(path, NUMBERS))["shortcut"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"no {PAGE}: `python -m cxr_tfrecords.stats {shlex.quote(path)}` makes it"]
    lines = []
    if result["verdict"] == shortcut.SHORTCUT:
        weak = result["file_size_only"]
        cause = "file size alone predicts" if weak else "file format and size alone predict"
        accuracy, chance = result["balanced_accuracy"], result["chance"]
        score = f"balanced accuracy {accuracy:.2f}, chance {chance:.2f}"
        kind = "perhaps a shortcut" if weak else "a shortcut"
        lines.append(f"warning: {cause} the class ({score}): {kind}; see {PAGE}")
    return [*lines, f"statistics, samples and copies: {page}"]


def collect(manifest: Mapping[str, Any], sources: SourceTable) -> dict[str, Any]:
    """Content of stats.json: figures of the manifest, and figures counted from sources.csv."""
    duplicates = manifest["duplicates"]
    source_counts = manifest["sources"]
    copied = ("level", "images", "num_groups", "tied_by", "num_label_conflicts")
    return {
        "format": FORMAT,
        "fingerprint": manifest["fingerprint"],
        "class_names": list(manifest["class_names"]),
        "image": {**manifest["image"], "enhance": manifest["config"]["enhance"]},
        "folds": manifest["config"].get("folds", 0),
        "counts": manifest["counts"],
        "shares": {
            split: _shares(manifest["counts"][split]) for split in dataset_dir.split_names(manifest)
        },
        "prevalence": manifest["prevalence"],
        "split_proof": manifest["split_proof"],
        "sources": {
            **{key: source_counts[key] for key in ("found", "written", "rejected")},
            # The keys of a manifest are sorted when it is written to its file, not before.
            "set_aside": dict(sorted(source_counts["set_aside"].items())),
        },
        "pixels": {key: manifest["pixels"][key] for key in ("mean", "std", "of")},
        "files": describe_files(sources),
        "intensity": _intensity(manifest),
        "duplicates": {
            **{key: duplicates[key] for key in copied},
            "shown": choose_groups(sources, list(duplicates["label_conflicts"])),
        },
        "given_leaks": choose_leaks(sources),
        "notes": list(manifest.get("notes", [])),
        "rejected": describe_rejected(sources, source_counts["set_aside"]),
        "warnings": {
            text: {"files": one["files"], "first": one["first"][:_WARNED]}
            for text, one in sorted(manifest.get("warnings", {}).items())
        },
        "shortcut": measure_shortcut(sources),
    }


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = max(sum(counts.values()), 1)
    return {name: round(count / total, 4) for name, count in counts.items()}


def _intensity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Class name -> counts of the 256 stored gray values, their mean and standard deviation."""
    result = {}
    values = np.arange(256)
    for name in manifest["class_names"]:
        histogram = manifest["statistics"]["intensity_histograms"][name]
        shares = np.array(histogram, float) / max(sum(histogram), 1)
        mean = float((shares * values).sum())
        deviation = float(np.sqrt((shares * (values - mean) ** 2).sum()))
        result[name] = {
            "histogram": histogram,
            "mean": round(mean, 2),
            "std": round(deviation, 2),
            "black": round(float(shares[0]), 4),
            "white": round(float(shares[255]), 4),
        }
    return result


def _leading(manifest: Mapping[str, Any], shown: Sequence[str]) -> dict[str, int]:
    """Shard -> how many of its first records to show, a few of each class that is shown.

    Records are in the order of a salted hash, so the first ones are a random sample.
    """
    left = dict.fromkeys(manifest["class_names"], 0) | dict.fromkeys(shown, _SAMPLES)
    result = {}
    for entry in manifest["shards"]:
        taken = min(left[entry["class"]], entry["num_examples"])
        if taken:
            result[entry["file"]] = taken
            left[entry["class"]] -= taken
    return result


def main(argv: list[str]) -> None:
    path = named_data_set(argv[1:], flags.FLAGS.data_dir, "cxr_tfrecords.stats")
    manifest = dataset_dir.read_manifest(path)
    made = make(path, manifest)
    try:
        write(path, made)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from error
    print("\n".join(describe(path)))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "The dataset directory, in place of DATA.")
    run_main(main, arguments=True, interrupted="nothing was damaged, run the same command again")
