"""Discrimination and calibration of each method, by how imbalanced the classes are.

  python -m benchmarks.imbalance --json=imbalance.json --picture=imbalance.png
  python -m benchmarks.imbalance --input_csv=LIST.csv --input_dir=DIR --ratios=1,5,20,100

With a list of images (columns path and label), the ratios are made by leaving out training and
validation images of one class, whole groups at a time. The splits are made once, and the test
split is the same at every ratio. Flags that are not listed here go to trainer.compare.

Without a list: synthetic radiographs of four classes, as many in all at every ratio; the classes'
sizes fall geometrically from the most to the least frequent (the long-tailed profile of Cui et al.
2019, section 4.2). The test split has the same class mix and is twice as large as the training
split, so that its rarest class still has images. Each ratio is a study of trainer.compare at equal
updates: studies that are finished are used again, so give each list its own --work_dir.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from benchmarks import imbalance_lists
from cxr_tfrecords import dataset_dir, files, synthetic
from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.pages import plot_style

FLAGS = flags.FLAGS

flags.DEFINE_list("ratios", ["1", "5", "20", "50"], "Most to least frequent class.")
flags.DEFINE_list(
    "methods",
    [
        *("none", "undersample", "oversample", "weighted", "class_weighted", "logit_adjusted"),
        "posthoc_logit_adjusted",
    ],
    "Methods of trainer.compare.",
)
flags.DEFINE_list("seeds", ["0", "1"], "Runs of each method.")
flags.DEFINE_integer("images", 1000, "Training images in all, at every ratio.", lower_bound=100)
flags.DEFINE_integer("image_size", 64, "Pixels.", lower_bound=16)
flags.DEFINE_integer("epochs", 15, "Of a run without balancing: all make as many updates.", 1)
flags.DEFINE_integer("jobs", 1, "Runs at the same time.", lower_bound=1)
flags.DEFINE_string("work_dir", "data/imbalance", "Where images, data sets and studies are kept.")
flags.DEFINE_string("input_csv", "", "List of images; empty: synthetic radiographs.")
flags.DEFINE_string("input_dir", "", "Folder of the list's paths; empty: the list's own folder.")
flags.DEFINE_string("where", "", "COLUMN=VALUE: use only these rows of the list.")
flags.DEFINE_string("rare_class", "", "Class to leave images out of; empty: the smallest.")
flags.DEFINE_string("group_column", "group", "Column of the list with patients or the like.")
flags.DEFINE_bool("given_split", False, "Use the list's column split; else splits are made anew.")
flags.DEFINE_string("json", "", "File for the rows.")
flags.DEFINE_string("picture", "", "File for the figure.")

# Most frequent first, as in the public data set.
_CLASSES = ("Normal", "Lung_Opacity", "COVID", "Viral Pneumonia")
_SHARES = {"train": 1.0, "validation": 0.5, "test": 2.0}
# Metric, kind of probabilities, title. The slope is that of the rare class.
_SHOWN = (
    ("balanced_accuracy", "raw", "Balanced accuracy"),
    ("auroc_macro", "raw", "AUROC (macro)"),
    ("brier", "raw", "Brier score, raw"),
    ("brier", "calibrated", "Brier score, calibrated"),
    ("calibration_slope", "raw", "Calibration slope, rare class"),
)


def main(argv: list[str]) -> None:
    try:
        ratios = [float(ratio) for ratio in FLAGS.ratios]
    except ValueError as error:
        raise UserError(f"--ratios={','.join(FLAGS.ratios)} must be numbers") from error
    if min(ratios) < 1:
        raise UserError(f"--ratios={','.join(FLAGS.ratios)}: 1 is the least, equal classes")
    images = _split_list() if FLAGS.input_csv else []
    rows = [row for ratio in ratios for row in _study(ratio, images, argv[1:])]
    print(_table(rows))
    if FLAGS.json:
        files.write_json(FLAGS.json, rows)
    if FLAGS.picture:
        _draw(rows, FLAGS.picture)


def _split_list() -> list[imbalance_lists.Image]:
    """Builds the whole list once; returns its images with the groups and splits of that build."""
    folder = os.path.join(FLAGS.work_dir, "all")
    os.makedirs(folder, exist_ok=True)
    images = imbalance_lists.read_list(
        FLAGS.input_csv, FLAGS.where, FLAGS.group_column, FLAGS.given_split
    )
    name, data = os.path.join(folder, "images.csv"), os.path.join(folder, "tfrecords")
    imbalance_lists.write_list(name, images)
    _build(name, _input_dir(), data)
    return imbalance_lists.read_built(os.path.join(data, dataset_dir.SOURCES))


def _input_dir() -> str:
    return FLAGS.input_dir or os.path.dirname(FLAGS.input_csv) or "."


def _build(table: str, source: str, data: str, *more: str) -> None:
    _run(
        "beam_pipelines.build",
        f"--input_csv={table}",
        f"--input_dir={source}",
        f"--output_dir={data}",
        f"--image_size={FLAGS.image_size}",
        "--nostats",
        *more,
    )


def _study(
    ratio: float, images: Sequence[imbalance_lists.Image], extra: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Builds and compares at one ratio; yields a row a method.

    Args:
      images: the list with its splits; empty: synthetic images.
      extra: flags for trainer.compare, which override those that are set here.
    """
    folder = os.path.join(FLAGS.work_dir, f"ratio-{ratio:g}")
    source, data, study = (os.path.join(folder, name) for name in ("images", "tfrecords", "study"))
    table = os.path.join(source, "images.csv")
    rare = imbalance_lists.rare_class(images, FLAGS.rare_class) if images else ""
    if images:
        os.makedirs(source, exist_ok=True)
        imbalance_lists.write_list(table, imbalance_lists.with_ratio(images, rare, ratio))
        _build(table, _input_dir(), data)
    else:
        if not os.path.exists(table):
            _draw_images(source, ratio)
        # Drawn images look so much alike that near-duplicates would be found among them.
        _build(table, source, data, "--dedup=off")
    _run(
        "trainer.compare",
        f"--data_dir={data}",
        f"--study_dir={study}",
        "--backbones=tiny",
        f"--methods={','.join(FLAGS.methods)}",
        f"--seeds={','.join(FLAGS.seeds)}",
        f"--epochs={FLAGS.epochs}",
        "--resamples=500",
        f"--jobs={FLAGS.jobs}",
        # The rate of `adam` suits a small network that starts from random weights.
        *([] if images else ["--optimizer=adam", "--learning_rate=0.003"]),
        *extra,
    )
    with open(os.path.join(study, "comparison.json"), encoding="utf-8") as file:
        content = json.load(file)
    yield from _rows(ratio, content, rare)


def _rows(ratio: float, content: Mapping[str, Any], rare: str) -> Iterator[dict[str, Any]]:
    """One row a method from comparison.json: [estimate, low, high] of each shown metric.

    low and high are None where no interval is known. `verdict` is a word, '' for the reference.
    """
    train = content["dataset"]["counts"]["train"]
    rare = rare or content["class_names"][int(np.argmin(train))]
    for name, entry in content["entries"].items():
        judged = content["differences"].get(name, {}).get("verdict", {})
        row: dict[str, Any] = {
            "ratio": ratio,
            "method": name,
            "train": train,
            "test": content["test"]["counts"],
            "verdict": judged.get(content["primary"], {}).get("word") or "",
        }
        for metric, variant, title in _SHOWN:
            by_class = metric == "calibration_slope"
            value = entry["probabilities"][variant][f"{metric}/{rare}" if by_class else metric]
            row[title] = [value[key] for key in ("estimate", "low", "high")]
        yield row


def _draw_images(source: str, ratio: float) -> None:
    """Draws the images, and last the list that names their splits."""
    rows = []
    first = dict.fromkeys(_CLASSES, 0)
    for split, share in _SHARES.items():
        sizes = synthetic.long_tailed_counts(round(share * FLAGS.images), ratio, len(_CLASSES))
        for name, size in zip(_CLASSES, sizes, strict=True):
            os.makedirs(os.path.join(source, name), exist_ok=True)
            for index in range(first[name], first[name] + size):
                # Odd numbers: some even one is copied by the odd one after it, as in real data.
                image, _ = synthetic.render(name, 2 * index, image_size=FLAGS.image_size)
                path = os.path.join(name, f"{index}.png")
                cv2.imwrite(os.path.join(source, path), image)
                rows.append((path, name, split))
            first[name] += size
    table = [("path", "label", "split"), *rows]
    name = os.path.join(source, "images.csv")
    with files.replacing(name) as temporary, files.open_file(temporary, "w") as file:
        csv.writer(file, lineterminator="\n").writerows(table)


def _run(module: str, *arguments: str) -> None:
    print(f"python -m {module} {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode:
        raise UserError(f"{module} failed, see above")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    from cxr_tfrecords.pages.markdown import markdown_table

    header = ["ratio", "training images", "method", *(title for *_, title in _SHOWN), "verdict"]
    lines = [
        [
            f"1:{row['ratio']:g}",
            ", ".join(f"{count:,}" for count in row["train"]),
            row["method"],
            *(_interval(row[title]) for *_, title in _SHOWN),
            row["verdict"],
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def _interval(values: Sequence[float | None]) -> str:
    estimate, low, high = values
    if estimate is None:
        return "unknown"
    bounds = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{estimate:.3f}{bounds}"


def _draw(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = [title for *_, title in _SHOWN]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with plt.rc_context(plot_style.STYLE):
        figure, axes = plt.subplots(1, len(titles), figsize=(20, 4.6), layout="constrained")
        for axis, title in zip(axes, titles, strict=True):
            for number, method in enumerate(methods):
                own = [row for row in rows if row["method"] == method]
                # Side by side: intervals on one spot would hide each other.
                x = [row["ratio"] * 1.035 ** (number - len(methods) / 2) for row in own]
                y, low, high = np.array([row[title] for row in own], float).T
                axis.errorbar(
                    x,
                    y,
                    yerr=np.nan_to_num([y - low, high - y]).clip(min=0),
                    marker="o",
                    markersize=4,
                    linewidth=1.4,
                    elinewidth=0.8,
                    label=method,
                )
            axis.set_xscale("log")
            ratios = sorted({row["ratio"] for row in rows})
            axis.set_xticks(ratios, [f"1:{ratio:g}" for ratio in ratios])
            axis.minorticks_off()
            axis.set(title=title, xlabel="least to most frequent class")
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods)
        )
        figure.savefig(path, dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    run_main(main, known_only=True)  # what is left goes to trainer.compare
