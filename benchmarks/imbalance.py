"""Balanced accuracy and Brier score of each method, by how imbalanced the classes are.

  python -m benchmarks.imbalance --json=imbalance.json --picture=docs/imbalance.png

Synthetic radiographs of four classes, as many in all at every ratio; the classes' sizes fall
geometrically from the most to the least frequent (the long-tailed profile of Cui et al. 2019,
section 4.2). The test split has the same class mix and is twice as large as the training split,
so that its rarest class still has images. Each ratio is a study of trainer.compare at equal
updates: studies that are finished are used again.
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

from cxr_tfrecords import files, synthetic
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
flags.DEFINE_string("json", "", "File for the rows.")
flags.DEFINE_string("picture", "", "File for the figure.")

# Most frequent first, as in the public data set.
_CLASSES = ("Normal", "Lung_Opacity", "COVID", "Viral Pneumonia")
_SHARES = {"train": 1.0, "validation": 0.5, "test": 2.0}
_SHOWN = (("balanced_accuracy", "raw"), ("brier", "raw"), ("brier", "calibrated"))


def main(argv: list[str]) -> None:
    del argv
    try:
        ratios = [float(ratio) for ratio in FLAGS.ratios]
    except ValueError as error:
        raise UserError(f"--ratios={','.join(FLAGS.ratios)} must be numbers") from error
    if min(ratios) < 1:
        raise UserError(f"--ratios={','.join(FLAGS.ratios)}: 1 is the least, equal classes")
    rows = [row for ratio in ratios for row in _study(ratio)]
    print(_table(rows))
    if FLAGS.json:
        files.write_json(FLAGS.json, rows)
    if FLAGS.picture:
        _draw(rows, FLAGS.picture)


def _study(ratio: float) -> Iterator[dict[str, Any]]:
    """Builds and compares at one ratio; yields a row a method."""
    folder = os.path.join(FLAGS.work_dir, f"ratio-{ratio:g}")
    source, data, study = (os.path.join(folder, name) for name in ("images", "tfrecords", "study"))
    if not os.path.exists(os.path.join(source, "images.csv")):
        _draw_images(source, ratio)
    size = f"--image_size={FLAGS.image_size}"
    # Drawn images look so much alike that near-duplicates would be found among them.
    _run(
        "beam_pipelines.build",
        f"--input_csv={source}/images.csv",
        f"--output_dir={data}",
        size,
        "--dedup=off",
        "--nostats",
    )
    _run(
        "trainer.compare",
        f"--data_dir={data}",
        f"--study_dir={study}",
        "--backbones=tiny",
        f"--methods={','.join(FLAGS.methods)}",
        f"--seeds={','.join(FLAGS.seeds)}",
        "--budget=steps",
        f"--epochs={FLAGS.epochs}",
        "--resamples=500",
        f"--jobs={FLAGS.jobs}",
        # The rate of `adam` suits a small network that starts from random weights. It stays: a
        # plateau of a noisy validation score would lower it at another step for each method.
        *("--optimizer=adam", "--learning_rate=0.003", "--reduce_lr_patience=0"),
    )
    with open(os.path.join(study, "comparison.json"), encoding="utf-8") as file:
        content = json.load(file)
    for name, entry in content["entries"].items():
        row: dict[str, Any] = {"ratio": ratio, "method": name, "test": content["test"]["counts"]}
        for metric, variant in _SHOWN:
            found = entry["probabilities"][variant][metric]
            row[f"{metric}/{variant}"] = [found[key] for key in ("estimate", "low", "high")]
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

    header = ["ratio", "method", "balanced accuracy", "Brier, raw", "Brier, corrected"]
    lines = []
    for row in rows:
        accuracy, *briers = (row["/".join(shown)] for shown in _SHOWN)
        lines.append(
            [
                f"1:{row['ratio']:g}",
                row["method"],
                f"{accuracy[0]:.1%} [{accuracy[1]:.1%}, {accuracy[2]:.1%}]",
                *(f"{b[0]:.3f} [{b[1]:.3f}, {b[2]:.3f}]" for b in briers),
            ]
        )
    return markdown_table(header, lines)


def _draw(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = ("Balanced accuracy", "Brier score, raw", "Brier score, corrected and calibrated")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with plt.rc_context(plot_style.STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
        for axis, shown, title in zip(axes, _SHOWN, titles, strict=True):
            for number, method in enumerate(methods):
                own = [row for row in rows if row["method"] == method]
                # Side by side: intervals on one spot would hide each other.
                x = [row["ratio"] * 1.035 ** (number - len(methods) / 2) for row in own]
                y, low, high = np.array([row["/".join(shown)] for row in own]).T
                axis.errorbar(
                    x,
                    y,
                    yerr=[y - low, high - y],
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
    run_main(main)
