"""report.md: one page on a finished run, its settings, data, results and limits."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from cxr_tfrecords.files import write_text
from cxr_tfrecords.pages import class_lists
from cxr_tfrecords.pages.markdown import all_escaped, code, code_block, escaped, plain_table
from trainer.balancing.sampler_table import SAMPLERS
from trainer.epochs.audit import describe_run
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.inference import RARE_BELOW
from trainer.runs import initial_run, network, report_intervals
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.runs.run_files import REPORT, SPLITS
from trainer.runs.run_limits import run_limits
from trainer.runs.training_priors import planned_in_last_epoch
from trainer.settings import balance_summary, image_size
from trainer.settings.config import TrainConfig

Intervals = Mapping[str, Interval]
_RELIABILITY = (
    "On the dashed line of a reliability diagram, predicted probabilities and observed shares "
    "agree; below it the class is predicted too often. Each bin holds about the same number of "
    "images, with Wilson's 95% interval for independent images."
)
# Always shown in the command, even with default values, because readers look for them first.
_SHOWN = ("data_dir", "run_dir", "backbone", "weights", "sampler", "loss", "seed")


def write_report(run_dir: str) -> str:
    """Writes report.md into a run directory, from its files, and returns its path.

    Raises:
      UserError: the run directory lacks a file.
    """
    run = read_run(run_dir)
    intervals = {split: report_intervals.intervals(run, split) for split in SPLITS}
    measured = {split: ends for split, (ends, _) in intervals.items()}
    parts = [
        _title(run),
        _summarize(run, measured["test"]),
        "## Results",
        _results_table(run, measured),
        *(_confusions(run, split) for split in reversed(SPLITS)),
        class_lists.left_out(len(run.class_names), "metrics.json"),
        "By class, test split:",
        _class_table(run, "test", *intervals["test"]),
        "![ROC curves of the test split](roc_test.png)",
        "![Reliability diagrams of the test split](reliability_test.png)",
        _RELIABILITY,
        "By class, validation split:",
        _class_table(run, "validation", *intervals["validation"]),
        f"## What was run\n\n{code_block(run_command(run))}",
        describe_training(run),
        "![Training curves](training_curves.png)",
        *network.describe_network(run),
        "## Data",
        _describe_data(run),
        _counts_table(run),
        describe_run(all_escaped(run.audit), checked=not run.config.mixup_alpha)
        if run.audit
        else "",
        "![Training images of each class before and after sampling](class_counts.png)",
        "## What these figures do not say",
        "\n".join(f"- {note}" for note in run_limits(run)),
        "## Computing them again",
        _recompute(run),
    ]
    path = os.path.join(run_dir, REPORT)
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    return path


def describe_command(config: TrainConfig) -> str:
    """The command of this run: its main flags, and all others that differ from the defaults."""
    usual = TrainConfig(data_dir="", backbone=config.backbone).to_json()
    flags = []
    for name, value in config.to_json().items():
        if name not in _SHOWN and value == usual[name]:
            continue
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no{name}")
            continue
        if isinstance(value, list):  # of words, or of pairs
            sign = ":" if name == "map_classes" else "="
            words = (sign.join(map(str, v)) if isinstance(v, list) else str(v) for v in value)
            value = ",".join(words)
        flags.append(shlex.quote(f"--{name}={value}"))
    lines = [" ".join(flags[i : i + 3]) for i in range(0, len(flags), 3)]
    return " \\\n    ".join(["python -m trainer.main", *lines])


def _title(run: FinishedRun) -> str:
    config = run.config
    parts = [config.backbone, f"sampler {config.sampler}"]
    if config.loss != "cross_entropy":
        parts.append(f"loss {config.loss}")
    if config.mixup_alpha > 0:
        parts.append(f"{config.mixup} mixup")
    if run.decoupled:
        parts.append(f"decoupled by {run.decoupled['method']}")
    return f"# {', '.join([*parts, *run.fold, f'seed {config.seed}'])}"


def run_command(run: FinishedRun) -> str:
    if not run.decoupled:
        return describe_command(run.config)
    flags = {name: run.decoupled[name] for name in ("from_run", "method")}
    flags |= {"run_dir": run.config.run_dir} | run.decoupled.get("flags", {})
    words = [shlex.quote(f"--{name}={value}") for name, value in flags.items()]
    return " \\\n    ".join(["python -m trainer.decouple", *words])


def _summarize(run: FinishedRun, ends: Intervals) -> str:
    test = run.metrics["test"]
    return (
        f"On {_total(run, 'test'):,} test images at {_mix(run, 'test')}: accuracy "
        f"**{test['accuracy']:.1%}** ({_ends(ends['accuracy'])}), balanced accuracy "
        f"**{_number(test['balanced_accuracy'])}** ({_ends(ends['balanced_accuracy'])}; "
        f"{len(run.class_names)} classes, chance is {100 / len(run.class_names):.2g}%). Intervals "
        "are of 95%, over groups of test images."
    )


def _results_table(run: FinishedRun, measured: Mapping[str, Intervals]) -> str:
    shown = {
        "accuracy": "accuracy",
        "balanced accuracy (mean recall)": "balanced_accuracy",
        "AUROC, mean over classes": "auroc_macro",
        "cross-entropy, nats": "log_loss",
    }
    rows: list[list[str]] = [["images", *(f"{_total(run, s):,}" for s in SPLITS)]]
    for title, key in shown.items():
        rows.append([title, *(_cell(key, run.metrics[s][key], measured[s]) for s in SPLITS)])
    return plain_table(["", *SPLITS], rows)


def _class_table(run: FinishedRun, split: str, ends: Intervals, rare: Sequence[str]) -> str:
    columns = ("recall", "precision", "specificity", "f1", "auroc")
    rows = [
        [
            f"{escaped(name)}{' *' if name in rare else ''}",
            f"{values['support']:,}",
            *(_cell(f"{column}/{name}", values[column], ends) for column in columns),
        ]
        for name, values in (
            (name, run.metrics[split]["per_class"][name])
            for name in (run.class_names[c] for c in run.shown_classes())
        )
    ]
    header = ["class", "n", "recall", "precision", "specificity", "F1", "AUROC"]
    note = f"\n\n\\* fewer than {RARE_BELOW} groups of images: too few to say much." if rare else ""
    return plain_table(header, rows) + note


def _confusions(run: FinishedRun, split: str) -> str:
    """The confusion matrix, or of too many classes for it the most frequent mistakes."""
    if len(run.class_names) <= class_lists.ROWS:
        return f"![Confusion matrix of {split}](confusion_matrix_{split}.png)"
    counts = np.array(run.metrics[split]["confusion_matrix"])
    np.fill_diagonal(counts, 0)
    worst = np.argsort(-counts, axis=None, kind="stable")[: class_lists.ROWS // 2]
    rows = [
        [
            escaped(run.class_names[true]),
            escaped(run.class_names[answer]),
            f"{counts[true, answer]:,}",
        ]
        for true, answer in zip(*np.unravel_index(worst, counts.shape), strict=True)
        if counts[true, answer]
    ]
    title = f"The most frequent mistakes, {split} split (metrics.json has the confusion matrix):"
    return title + "\n\n" + plain_table(["true class", "predicted class", "images"], rows, texts=2)


def _cell(metric: str, value: float | None, ends: Intervals) -> str:
    """`81.2% [78.0% to 84.1%]`; AUROC and cross-entropy are plain numbers of four decimals."""
    decimals = 4 if metric.split("/")[0] in ("auroc", "auroc_macro", "log_loss") else None
    text = _number(value, decimals)
    return text if value is None else f"{text} [{_ends(ends[metric], decimals)}]"


def _ends(one: Interval, decimals: int | None = None) -> str:
    return f"{_number(one.low, decimals)} to {_number(one.high, decimals)}"


def _counts_table(run: FinishedRun) -> str:
    columns = dict(run.dataset["counts"])
    after = f"train, after {run.config.sampler}"
    if SAMPLERS[run.config.sampler].varies_by_epoch:
        columns[f"{after}, epoch 1"] = run.samples["planned"]
        last = int(run.history[-1]["epoch"])
        columns[f"{after}, epoch {last}"] = planned_in_last_epoch(run)
    else:
        columns[after] = run.samples["planned"]
    columns["different images in epoch 1"] = run.samples["unique"]
    rows = [
        [escaped(name), *(f"{counts[c]:,}" for counts in columns.values())]
        for c, name in ((c, run.class_names[c]) for c in run.shown_classes())
    ]
    rows.append(["all", *(f"{sum(counts):,}" for counts in columns.values())])
    return plain_table(["class", *columns], rows)


def describe_training(run: FinishedRun) -> str:
    config, rates = run.config, [row["learning_rate"] for row in run.history]
    falls = sum(after < before for before, after in itertools.pairwise(rates))
    rate = f"{rates[0]:g}" + (f", lowered {falls}× to {rates[-1]:g}" if falls else "")
    if config.lr_schedule != "plateau":
        rate = f"{config.scaled_learning_rate:g} at most ({config.lr_schedule} schedule)"
    last = run.history[-1]
    epochs = int(last["epoch"])
    ended = "stopped early" if epochs < config.epochs else "all that were planned"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return (
        f"{epochs} epoch{'s' * (epochs > 1)} ({ended}), {int(last['step']):,} steps of "
        f"{config.batch_size}, "
        f"{_describe_time(sum(row['seconds'] for row in run.history))} with validation; "
        f"{config.optimizer}, learning rate {rate}. "
        f"Weights are those of epoch {int(run.best['epoch'])}, the best by "
        f"{config.monitor.replace('_', ' ')} ({run.best[config.monitor]:.4f}). "
        f"BatchNormalization: {config.batch_norm}. Loss: {balance_summary.describe_loss(config)}; "
        f"validation is scored by plain cross-entropy.{_describe_decoupling(run)} "
        f"Versions: {versions}. {initial_run.describe_source(config, run.class_names)}".rstrip()
    )


def _describe_time(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"


def _describe_decoupling(run: FinishedRun) -> str:
    if not run.decoupled:
        return ""
    source = code(run.decoupled["from_run"])
    if run.decoupled["method"] == "crt":
        return (
            f" That was the second stage: the features are those of {source}, frozen, and only the "
            "output layer was trained again (cRT, Kang et al. 2020)."
        )
    if run.decoupled["method"] == "posthoc_logit_adjusted":
        return (
            f" That was the training of {source}. From its logits, tau = {run.decoupled['tau']:g} "
            "times the log class shares of training were subtracted (post hoc logit adjustment, "
            "Menon et al. 2021)."
        )
    chosen = run.decoupled.get("tau_from", "it is not known why")
    return (
        f" That was the training of {source}. Its output weights were then divided by their "
        f"norms to the power tau = {run.decoupled['tau']:g} ({chosen}), "
        "without bias (tau-normalisation, Kang et al. 2020)."
    )


def _describe_data(run: FinishedRun) -> str:
    data = run.dataset
    size = image_size.describe(data["image_size"], run.config.image_size)
    of = [code(data["path"]), size, *run.chosen_classes, *run.fold]
    return (
        f"{', '.join(of)}, fingerprint `{data['fingerprint'][:16]}`. "
        f"Validation is at {_mix(run, 'validation')}, test at {_mix(run, 'test')}; the sampler "
        "acts on the training images alone, after the split."
    )


def _recompute(run: FinishedRun) -> str:
    script = (
        "import json\n\n"
        "from trainer.evaluation.predictions import compute_metrics, read_predictions\n\n"
        'with open("config.json", encoding="utf-8") as file:\n'
        '    class_names = json.load(file)["dataset"]["class_names"]\n'
        'predictions = read_predictions("predictions_test.csv")\n'
        "print(compute_metrics(predictions, class_names))"
    )
    return (
        "`predictions_validation.csv` and `predictions_test.csv` hold id, true class, logits and "
        "probabilities of every image once; all figures above come from "
        f"them:\n\n{code_block(script, 'python')}"
    )


def _mix(run: FinishedRun, split: str) -> str:
    """The class mix of a split, in words."""
    balanced = split in run.dataset["balanced_splits"]
    return "balanced classes (not the natural prevalence)" if balanced else "natural prevalence"


def _total(run: FinishedRun, split: str) -> int:
    return int(np.sum(run.metrics[split]["confusion_matrix"]))


def _number(value: float | None, decimals: int | None = None) -> str:
    """Percent with one decimal, or a plain number; a dash where a metric is undefined."""
    if value is None:
        return "–"
    return f"{value:.1%}" if decimals is None else f"{value:.{decimals}f}"
