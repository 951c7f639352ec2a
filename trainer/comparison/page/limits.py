"""The page's last sections: what was not tested, and checklists filled from the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages.class_lists import few
from cxr_tfrecords.pages.html import Html, escaped, paragraph, table
from trainer.comparison.methods import Entry
from trainer.comparison.page import reporting_items as items
from trainer.comparison.text import TITLES

BLANK = Html('<span class="blank">to be filled in by the authors</span>')


def limits(content: Mapping[str, Any]) -> Iterator[str]:
    notes = "".join(f"<li>{escaped(note)}</li>" for note in _notes(content))
    yield f"<ul>{notes}</ul>"


def _notes(content: Mapping[str, Any]) -> Iterator[str]:
    data = content["dataset"]
    yield (
        "One data set, and no external data: no other hospital, scanner or period was tested. "
        "Where classes come from different sources, a model can tell them apart by their source."
    )
    yield (
        f"Unit of the split: {data['split_unit'] or 'unknown'}; none is in two splits. Unless that "
        "names the patient, several images of one patient may be in two splits or count as "
        "independent test images; figures may then be too good and intervals too narrow."
    )
    if content["folds"]:
        yield (
            "The trainings of a seed share most of their images. Intervals hold for other images "
            "and other seeds; how much a training set with other images would change the figures "
            "is not in them, and cannot be estimated from one cross-validation (Bengio and "
            "Grandvalet 2004)."
        )
    yield (
        "No epoch, threshold or temperature was chosen on the test split; validation was used for "
        "all of these, so that only test figures are shown. Choosing a method by this page and "
        "reporting its figures would make them too good."
    )
    yield (
        "Labels are those of the data set and were not read again; wrong ones count as errors of "
        "the model, and a model that repeats their pattern is rewarded."
    )
    yield (
        f"BatchNormalization: {', '.join(_policies(content))}. It normalises evaluation by moments "
        "of a class mix, and can move results as much as a sampler does."
    )
    balanced = data["balanced_splits"]
    if balanced:
        yield (
            f"Split with balanced classes: {', '.join(balanced)}. Figures of it do not hold at the "
            "natural prevalence."
        )
    yield "This is no medical device, and none of these figures shows a benefit to patients."


def _policies(content: Mapping[str, Any]) -> list[str]:
    return sorted({entry["config"]["batch_norm"] for entry in content["entries"].values()})


def checklists(content: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    yield paragraph(
        "Filled in as far as the files of the runs say. This is not complete, and no statement of "
        "compliance."
    )
    yield f"<h3>{escaped(items.TRIPOD_AI_SOURCE)}</h3>"
    yield _listed(items.TRIPOD_AI, _tripod(content, entries))
    yield f"<h3>{escaped(items.CLAIM_SOURCE)}</h3>"
    yield _listed(items.CLAIM, _claim(content, entries))


def _listed(topics: Mapping[str, str], answers: Sequence[tuple[str, str]]) -> str:
    rows = [[f"{number} {topics[number]}", answer] for number, answer in answers]
    return table(["item", "this study"], rows, texts=2)


def _tripod(content: Mapping[str, Any], entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Item 13 first, because this tool is about it; then those that a run tells something of."""
    data = content["dataset"]
    return [
        ("13", _imbalance(content)),
        ("5a", BLANK),
        ("6b", BLANK),
        ("7", _preparation(content)),
        ("8a", _outcome(content)),
        ("10", _sizes(content) + " How it was arrived at: not known to the software."),
        (
            "11",
            "Images that could not be read were set aside when the data set was built: how many, "
            "and why, is in its manifest.json. What was never collected: to be filled in by the "
            "authors.",
        ),
        ("12a", _split(content)),
        ("12c", _model(content, entries)),
        ("12e", _measures(content)),
        ("12f", "See item 13; nothing was trained again."),
        ("14", _fairness(content)),
        (
            "15",
            "A probability of each class: raw, corrected for the class shares, and with a "
            "temperature. The predicted class is the one of the largest raw probability; "
            "thresholds, where given, were chosen on validation.",
        ),
        (
            "16",
            f"One data set, split within classes. Balanced: training only{_also_balanced(data)}.",
        ),
        ("18e", BLANK),
        ("18f", _code(content, entries)),
        ("21", _sizes(content)),
        ("23a", "Sections Results, Recall by class, Probabilities."),
        (
            "26",
            f"Section Limits; what is particular to {data['path']}: to be filled in by the "
            "authors.",
        ),
    ]


def _claim(content: Mapping[str, Any], entries: Sequence[Entry]) -> list[tuple[str, str]]:
    return [
        ("4", _design(content)),
        ("7", BLANK),
        ("8", BLANK),
        ("9", _preparation(content)),
        ("11", BLANK),
        ("14", BLANK),
        ("16", BLANK),
        ("18", BLANK),
        ("20", _split(content)),
        ("22", _model(content, entries)),
        ("25", _imbalance(content)),
        ("29", _measures(content)),
        ("31", "Grad-CAM of the most confident mistakes, where models were kept."),
        ("33", "None."),
        ("34", BLANK),
        ("36", BLANK),
        ("39", "Confusion matrices and the gallery of mistakes."),
        ("42", BLANK),
        ("44", BLANK),
    ]


def _imbalance(content: Mapping[str, Any]) -> str:
    names, entries = content["class_names"], content["entries"]
    natural = content["dataset"]["counts"]["train"]
    counts = few(f"{n} {c:,}" for n, c in zip(names, natural, strict=True))
    handled = ", ".join(name for name in entries)
    return (
        f"Why: the training split holds {counts} (ratio {max(natural) / max(min(natural), 1):.1f} "
        f"to 1). How: {len(entries)} ways were compared ({handled}), in training only, after the "
        "split. Recalibration: raw probabilities, prior correction to the deployment's class "
        "shares, and a temperature fitted on validation are all reported."
    )


def _fairness(content: Mapping[str, Any]) -> str:
    if "subgroups" not in content:
        return BLANK
    columns = content["subgroups"]["columns"]
    listed = "; ".join(f"{name} ({', '.join(one['subgroups'])})" for name, one in columns.items())
    return (
        f"Section Subgroups: {TITLES[content['primary']]} and recall by {listed}, with intervals, "
        "and differences between subgroups. Why these subgroups, and what was done about "
        "differences: to be filled in by the authors."
    )


def _also_balanced(data: Mapping[str, Any]) -> str:
    splits = data["balanced_splits"]
    return f", and {' and '.join(splits)} when the data set was built" if splits else ""


def _preparation(content: Mapping[str, Any]) -> str:
    data = content["dataset"]
    colour = {1: "gray", 3: "RGB"}[data["channels"]]
    return (
        f"{data['image_size']} × {data['image_size']} pixels, {colour}; data set fingerprint "
        f"{data['fingerprint'][:16]}, steps in its manifest.json."
    )


def _outcome(content: Mapping[str, Any]) -> str:
    names = few(content["class_names"])
    return (
        f"Class of the radiograph: {names}. Who assessed it and how: to be filled in by the "
        "authors."
    )


def _sizes(content: Mapping[str, Any]) -> str:
    names = content["class_names"]
    counts_of = dict(content["dataset"]["counts"])
    start = ""
    if content["folds"]:
        start = f"{content['folds']} folds, each tested once; training and validation of fold 0. "
        counts_of["test"] = content["test"]["counts"]
    return start + " ".join(
        f"{split}: {sum(counts):,} ("
        + few(f"{n} {c:,}" for n, c in zip(names, counts, strict=True))
        + ")."
        for split, counts in counts_of.items()
    )


def _split(content: Mapping[str, Any]) -> str:
    unit = content["dataset"]["split_unit"] or "unknown"
    if content["folds"]:
        return (
            f"Cross-validation with {content['folds']} folds, each image in one; unit of the "
            f"folds: {unit}. Each fold was the test split of one training a seed and method; the "
            "next fold was validation, and chose epochs, temperatures and thresholds; the others "
            "were training. Test images of all folds are pooled."
        )
    return (
        f"Training, validation and test, each image in one; unit of the split: {unit}. Validation "
        "chose epochs, temperatures and thresholds; test was read once a run."
    )


def _model(content: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    configs = [entry.runs[0].config for entry in entries]

    def values(name: str) -> str:
        return ", ".join(sorted({str(getattr(config, name)) for config in configs}))

    tuned = "whether it was tuned beforehand is for the authors to say"
    if "tuning" in content:
        tuned = f"{content['tuning']['tries']} tries of each method were judged on validation"
    return (
        f"Backbone {values('backbone')}, weights "
        f"{values('init_from') or values('weights')}, trainable {values('trainable')}, "
        f"optimizer {values('optimizer')}, learning rate "
        f"{values('learning_rate')}, batch size {values('batch_size')}, at most "
        f"{values('epochs')} epochs, kept epoch by {values('monitor')}, BatchNormalization "
        f"{values('batch_norm')}. Where one value stands, all methods share it; {tuned}."
    )


def _measures(content: Mapping[str, Any]) -> str:
    settings = content["settings"]
    return (
        f"Primary: {TITLES[content['primary']]}. Besides: {', '.join(TITLES.values())}, and by "
        f"class. {settings['level']:.0%} intervals for other seeds and other images (Obuchowski "
        "and Rockette 1995, Hillis 2007; seeds as readers, images as cases) with "
        f"{settings['resamples']:,} bootstrap resamples of groups; paired differences, Holm's "
        "correction over methods, a margin for equivalence; score intervals at fixed thresholds."
    )


def _design(content: Mapping[str, Any]) -> str:
    return (
        f"Retrospective comparison of {len(content['entries'])} training methods on one data set; "
        f"reference {content['reference']}. Clinical question and intended use: to be filled in by "
        "the authors."
    )


def _code(content: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    versions = ", ".join(f"{n} {v}" for n, v in sorted(entries[0].runs[0].versions.items()))
    return (
        f"Settings and software of every run are in its config.json ({versions}). Where the code "
        "can be had: to be filled in by the authors."
    )
