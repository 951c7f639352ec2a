"""report.md: a run on one page, from the files in its directory and from nothing else."""

from __future__ import annotations

import csv
import json
import os
from typing import Any

from tabulate import tabulate


def write_report(run_dir: str) -> str:
    """Writes report.md beside the pictures and returns its path."""

    def read(name: str) -> dict[str, Any]:
        with open(os.path.join(run_dir, name)) as file:
            return json.load(file)

    run, metrics, counts = read("config.json"), read("metrics.json"), read("sampler_counts.json")
    config, dataset = run["config"], run["dataset"]
    with open(os.path.join(run_dir, "history.csv"), newline="") as file:
        history = list(csv.DictReader(file))
    names = dataset["class_names"]
    sampled = [
        [name, *(counts[key][i] for key in ("natural", "realised", "unique"))]
        for i, name in enumerate(names)
    ]
    lines = [
        f"# {config['backbone']}, sampler {config['sampler']}, seed {config['seed']}",
        "",
        f"Weights {config['weights']}, trainable {config['trainable']}, BatchNormalization "
        f"{config['batch_norm']}, batch {config['batch_size']}, {len(history)} of at most "
        f"{config['epochs']} epochs. All flags and versions are in `config.json`.",
        "",
        f"Data set `{dataset['fingerprint'][:16]}`.",
        "",
        _table(sampled, ["class", "training split", "one epoch", "distinct images in it"]),
        "",
        "![class counts](class_counts.png)",
        "",
        "![training curves](training_curves.png)",
    ]
    for split, values in metrics.items():
        lines += ["", f"## {split.capitalize()}", "", *_results(values), ""]
        lines.append(f"![confusion matrix](confusion_matrix_{split}.png)")
    lines += [
        "",
        "## To recompute",
        "",
        "`predictions_validation.csv` and `predictions_test.csv` hold one row an image: its id, "
        "true label, logits and probabilities. Every figure above follows from them.",
        "Both splits keep the natural prevalence; only the training stream was resampled. "
        "Identical images never lie in two splits; patients are not known to the split.",
        "",
    ]
    path = os.path.join(run_dir, "report.md")
    with open(path, "w") as file:
        file.write("\n".join(lines))
    return path


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", floatfmt=".3f", intfmt=",")


def _results(values: dict[str, Any]) -> list[str]:
    columns = ("recall", "precision", "specificity", "f1", "auroc")
    rows = [
        [name, *(own[column] for column in columns), int(own["support"])]
        for name, own in values["per_class"].items()
    ]
    return [
        f"Accuracy {values['accuracy']:.3f}, balanced accuracy {values['balanced_accuracy']:.3f}, "
        f"macro AUROC {values['auroc_macro']:.3f}, log loss {values['log_loss']:.3f}.",
        "",
        _table(rows, ["class", *columns, "images"]),
    ]
