"""cascade.md: what a cascade is, how good its stages are, and whether it beats one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages.markdown import code, code_block, escaped, plain_table
from trainer.cascades import figures
from trainer.comparison.recipes.text import as_printed
from trainer.comparison.text import TITLES, change, number, unit, with_interval
from trainer.evaluation.inference import RARE_BELOW
from trainer.runs import initial_run, report
from trainer.runs.finished_run import FinishedRun

PRIMARY = "balanced_accuracy"
_VARIANTS = {
    "raw": "raw",
    "prior_corrected": "prior-corrected",
    "calibrated": "calibrated",
    "equal_shares": "at equal class shares",
}
_PRODUCT = (
    "The probability of a class is the product of the probabilities of the answers that lead to "
    "it; the class is that of the largest product of raw probabilities. Hard routing sends each "
    "image where the likeliest answer of a stage says, so that a mistake of an early stage cannot "
    "be made good. Intervals are of 95%, over groups of test images, for these trained models."
)
_STAGES = (
    "Belong: test images of the stage's own classes. Arrive: those that hard routing sends there, "
    "some of which belong elsewhere and can only get a wrong class. The metrics of a stage are of "
    "images that belong there; the last column is of those of them that arrive."
)
_PROBABILITIES = (
    "Raw: products of what the stages give, at the class shares that each was trained with. "
    "Prior-corrected: each stage is first corrected to the shares of its training split (Saerens "
    "et al. 2002). Calibrated: also at a temperature for each stage, fitted on validation (Guo et "
    "al. 2017). Lower is better for log loss, Brier score and ECE."
)
_LIMITS = (
    "All stages have the same split: an image, or a copy of it, that one stage was trained on is a "
    "test image of none.",
    "A cascade trains and runs several networks. A flat model of the same total cost, or several "
    "seeds averaged, would be the fairer comparison than one flat model of one stage's size.",
    "These are one seed each: intervals cover the choice of test images, not of the seed.",
    "The epoch of each stage was chosen on its own validation images. Choosing among cascades by "
    "the test figures would make these too good.",
    "This is not a medical device.",
)


def render(
    content: Mapping[str, Any], runs: Mapping[str, FinishedRun], flat: FinishedRun | None
) -> str:
    """The page in Markdown, with tree.png beside it."""
    names = [escaped(stage["name"]) for stage in content["stages"]]
    parts = [
        f"# A cascade of {len(names)} stages: {', '.join(names)}",
        *(f"**{sentence}**" for sentence in verdict(content)),
        "![The stages and their test images](tree.png)",
        "## From end to end",
        _PRODUCT,
        *_end_to_end(content),
        "Which class is taken for which, by the product:",
        _confusion(content),
        "## Stage by stage",
        _STAGES,
        _stage_table(content),
        *_reported(content),
        *_answer_tables(content),
        "## Probabilities",
        _PROBABILITIES,
        _shares(content),
        _probability_table(content),
        "## What was run",
        *_runs(content, runs, flat),
        "## What these figures do not say",
        "\n".join(f"- {text}" for text in _limits(content, runs)),
    ]
    return "\n\n".join(parts) + "\n"


def verdict(content: Mapping[str, Any]) -> Iterator[str]:
    """The main result in one sentence, and another one on the flat model if there is one."""
    ours = with_interval(PRIMARY, content["product"][PRIMARY])
    yield (
        f"On {content['product']['images']:,} test images of {len(content['class_names'])} classes "
        f"the cascade has a balanced accuracy of {ours}; by hard routing "
        f"{with_interval(PRIMARY, content['routed'][PRIMARY])}."
    )
    if content["flat"]:
        one = content["flat"]["difference"][PRIMARY]
        theirs = with_interval(PRIMARY, content["flat"]["metrics"][PRIMARY])
        text = f"One flat model has {theirs}; the cascade minus it is {_difference(PRIMARY, one)}"
        if one["low"] is None or one["low"] <= 0 <= one["high"]:
            text += ": chance may explain it"
        yield f"{text}."


def _difference(metric: str, one: Mapping[str, Any]) -> str:
    text = with_interval(metric, one, change)
    if one["estimate"] is None:
        return text
    return text.replace(" [", f"{unit(metric)} [", 1) if " [" in text else text + unit(metric)


def _end_to_end(content: Mapping[str, Any]) -> Iterator[str]:
    columns = {"product": content["product"], "hard routing": content["routed"]}
    differences = {"routing minus product": content["routed_difference"]}
    if content["flat"]:
        columns["flat model"] = content["flat"]["metrics"]
        differences["product minus flat"] = content["flat"]["difference"]
    rare = content["product"]["rare_classes"]
    classes = [f"recall/{name}" for name in content["class_names"]]
    rows = []
    for metric in (*figures.COMPARED, *classes):
        kind, _, name = metric.partition("/")
        title = f"recall {escaped(name)}{' *' if name in rare else ''}" if name else TITLES[kind]
        decided = bool(name) or metric in figures.DECISIONS
        row = [title]
        for column, values in columns.items():
            shown = metric in values and (decided or column != "hard routing")
            row.append(with_interval(metric, values[metric]) if shown else "–")
        for values in differences.values():
            row.append(_difference(metric, values[metric]) if metric in values else "–")
        rows.append(row)
    yield plain_table(["", *columns, *differences], rows)
    if rare:
        yield f"\\* fewer than {RARE_BELOW} groups of images: too few to say much."


def _confusion(content: Mapping[str, Any]) -> str:
    names = [escaped(name) for name in content["class_names"]]
    rows = []
    for name, counts in zip(names, content["product"]["confusion_matrix"], strict=True):
        total = sum(counts)
        cells = [f"{n:,} ({n / total:.0%})" if total else "0" for n in counts]
        rows.append([name, f"{total:,}", *cells])
    return plain_table(["true class", "images", *names], rows)


def _stage_table(content: Mapping[str, Any]) -> str:
    rows = []
    for stage in content["stages"]:
        inside, there = stage["belonging"], stage["arriving"]
        cells = [with_interval("recall", stage[name]) for name in ("reach", "pure", "right")]
        if stage is content["stages"][0]:  # all images belong and arrive
            cells[:2] = ["–", "–"]
        metrics = [
            with_interval(metric, part[metric]) if metric in part else "–"
            for part, metric in ((inside, "accuracy"), (inside, PRIMARY), (there, PRIMARY))
        ]
        counts = [f"{inside['images']:,}", f"{stage['arrived']:,}"]
        rows.append([escaped(stage["name"]), stage["backbone"], *counts, *cells, *metrics])
    header = [
        *("stage", "backbone", "belong", "arrive", "of the belonging, arrive"),
        *("of the arriving, belong", "of the arriving, right in the end"),
        *("accuracy", "balanced accuracy", "balanced accuracy of those that arrive"),
    ]
    return plain_table(header, rows, texts=2)


def _reported(content: Mapping[str, Any]) -> Iterator[str]:
    """What the authors of a published cascade report of the stages that have the same names."""
    if not content["reported"]:
        return
    rows = []
    for stage in content["stages"]:
        for metric, value in content["reported"]["metrics"].items():
            kind, _, name = metric.partition("/")
            if name == stage["name"] and kind in stage["belonging"]:
                here = with_interval(kind, stage["belonging"][kind])
                rows.append([escaped(name), TITLES[kind], as_printed(kind, value), here])
    if rows:
        source = f"{content['reported']['source']} {content['reported']['note']}".rstrip()
        yield f"Beside what the authors report: {escaped(source)}"
        header = ["stage", "figure", "reported by the authors", "here, of those that belong"]
        yield plain_table(header, rows, texts=2)


def _answer_tables(content: Mapping[str, Any]) -> Iterator[str]:
    for stage in content["stages"]:
        rows = []
        for answer, classes in stage["answers"].items():
            parts = (stage["belonging"], stage["arriving"])
            metric = f"recall/{answer}"
            cells = [with_interval(metric, p[metric]) if metric in p else "–" for p in parts]
            areas = [with_interval("auroc", p[f"auroc/{answer}"]) for p in parts[:1] if metric in p]
            rows.append([escaped(answer), escaped(" + ".join(classes)), *cells, *areas])
        yield f"Stage {escaped(stage['name'])}, images that belong there:"
        header = ["answer", "classes of the data set", "recall", "recall of those that arrive"]
        yield plain_table([*header, "AUROC"], rows, texts=2)


def _shares(content: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{escaped(n)} {x:.0%}" for n, x in content["assumed_shares"].items())
    return (
        f"The raw products assume these class shares: {shown}. Balancing within each stage does "
        "not make them equal; balancing a flat model does, so that it favours rare classes more. "
        "The last row corrects the raw products to equal shares: compare it with the balanced "
        "accuracy of a flat model that is balanced."
    )


def _probability_table(content: Mapping[str, Any]) -> str:
    rows = [
        [_VARIANTS[variant], *(number(m, values[m]["estimate"]) for m in figures.PROBABILITIES)]
        for variant, values in content["probabilities"].items()
    ]
    return plain_table(["products", *(TITLES[m] for m in figures.PROBABILITIES)], rows)


def _runs(
    content: Mapping[str, Any], runs: Mapping[str, FinishedRun], flat: FinishedRun | None
) -> Iterator[str]:
    data = content["data"]
    left_out = f"; left out: {escaped(', '.join(data['left_out']))}" if data["left_out"] else ""
    yield f"{code(data['path'])}, fingerprint `{data['fingerprint'][:16]}`{left_out}."
    for stage in content["stages"]:
        yield (
            f"Stage {escaped(stage['name'])} ([report]({stage['folder']}/report.md)), "
            f"{stage['updates']:,} updates:"
        )
        yield code_block(report.run_command(runs[stage["name"]]))
    if flat:
        yield f"The flat model, {flat.updates:,} updates:"
        yield code_block(report.run_command(flat))
    else:
        yield (
            "To compare it with one model, train that with trainer.main "
            f"{code(data['class_flags'])} on the same data set, and name it with `--flat_run`."
        )


def _limits(content: Mapping[str, Any], runs: Mapping[str, FinishedRun]) -> Sequence[str]:
    sources = dict.fromkeys(
        text for run in runs.values() for text in initial_run.limits(run.config)
    )
    return [*_LIMITS, *map(escaped, sources)]
