"""Sections of a card on the model: what it is for, its data, how it was balanced and trained."""

from __future__ import annotations

from collections.abc import Iterator

from cxr_tfrecords.pages.markdown import code, escaped, plain_table
from trainer.card.facts import Facts
from trainer.runs import report
from trainer.runs.balancing_notes import balancing_notes
from trainer.settings import balance_summary

AUTHOR = "To be answered by the author"


def what_it_is(facts: Facts) -> Iterator[str]:
    run, deployment = facts.run, facts.deployment
    size, channels = deployment["input"]["size"], deployment["input"]["channels"]
    colour = {1: "gray", 3: "RGB"}[channels]
    names = "; ".join(map(escaped, run.class_names))
    mask = run.config.mask
    yield (
        f"A classifier of chest radiographs into {len(run.class_names)} classes: {names}. Each "
        f"image gets one class. The network is `{run.config.backbone}`; its input is one image of "
        f"{size} × {size} pixels ({colour}, uint8, not scaled)"
        + ("" if mask == "none" else f", of which it sees only the {mask}, by a lung mask")
        + "; its outputs are logits and a probability of each class. Pixels are the only input: no "
        "age, sex or history."
    )
    yield f"Digest of the weights (SHA-256 of model.keras): `{deployment['model_sha256']}`."


def intended_use(facts: Facts) -> Iterator[str]:
    del facts
    yield (
        "**A research tool, not a medical device.** It was not tested for use on patients, and no "
        "figure here shows a benefit to them."
    )
    yield (
        "- Meant for: research on training with imbalanced classes, comparison with other models "
        "on the same data, teaching.\n"
        "- Not meant for: diagnosis, triage, screening or any decision about a person; images of "
        "other body parts or kinds, photographs of screens or films; other ages, projections, "
        "scanners or hospitals than those of the data, unless it was tested there.\n"
        "- It always answers with one of its classes, also for an image that shows none of them."
    )
    yield f"{AUTHOR}: the population, the setting and the users that the model is meant for."


def data(facts: Facts) -> Iterator[str]:
    run = facts.run
    dataset, reading = run.dataset, facts.deployment["reading"]
    rows = [
        [escaped(name), *(f"{counts[c]:,}" for counts in dataset["counts"].values())]
        for c, name in enumerate(run.class_names)
    ]
    rows.append(["all", *(f"{sum(counts):,}" for counts in dataset["counts"].values())])
    yield plain_table(["class", *dataset["counts"]], rows)
    mix = "No split was cut to equal classes."
    if dataset["balanced_splits"]:
        mix = f"Splits cut to equal classes: {', '.join(dataset['balanced_splits'])}."
    chosen = "".join(f" Classes were chosen by {flags}." for flags in run.chosen_classes)
    fold = "".join(f" This model is of {fold}." for fold in run.fold)
    yield (
        f"Data set {code(dataset['path'])}, fingerprint `{dataset['fingerprint'][:16]}`. {mix}"
        f"{chosen}{fold}"
    )
    yield (
        "From a file to pixels:\n\n"
        f"- decoding: {reading['decoding']}\n"
        f"- channels: {reading['channels']}\n"
        f"- size: {reading['resize']}\n"
        f"- contrast enhancement: {reading['enhance']}"
    )
    yield _split(facts)
    yield (
        f"{AUTHOR}: where the images come from (hospitals, scanners, dates), who was included, how "
        "and by whom each image got its class, the license of the data, ethical approval."
    )


def _split(facts: Facts) -> str:
    unit = facts.run.dataset["split_unit"] or "not known"
    text = f"Unit of the split: {escaped(unit)}. All images of a unit are in the same split."
    manifest = facts.manifest
    if manifest is None:
        return (
            f"{text} The data set was not in its place when this card was written, so that copies "
            "and units are not counted here."
        )
    proof, copies = manifest["split_proof"], manifest.get("duplicates", {})
    if units := proof.get("groups"):
        counted = ", ".join(f"{s} {units[s]:,}" for s in facts.run.dataset["counts"] if s in units)
        text += f" Units: {counted}; in two splits: {proof['groups_in_two_splits']:,}."
    if "num_groups" in copies:
        text += (
            f" Copies and near copies: {copies['images']:,} images in {copies['num_groups']:,} "
            f"groups, {copies['num_label_conflicts']:,} of them under several classes."
        )
    if "rejected" in manifest:
        text += f" Files that could not be used and were left out: {len(manifest['rejected']):,}."
    return text + " `python -m cxr_tfrecords.verify DATA` proves the split from the records alone."


def balancing(facts: Facts) -> Iterator[str]:
    run, shares = facts.run, facts.deployment["class_shares"]
    total = sum(run.samples["planned"])
    shown = {
        "training split": shares["natural"],
        "seen in the first epoch": dict(
            zip(run.class_names, (n / total for n in run.samples["planned"]), strict=True)
        ),
        "assumed by raw probabilities": shares["trained_at"],
    }
    rows = [
        [title, *(f"{values[name]:.1%}" for name in run.class_names)]
        for title, values in shown.items()
    ]
    flags = f"Sampler `{run.config.sampler}`, loss {balance_summary.describe_loss(run.config)}"
    if run.decoupled:
        flags += f", afterwards `trainer.decouple --method={run.decoupled['method']}`"
    mixes = (run.samples["natural"], run.samples["planned"])
    balanced = run.decoupled or balance_summary.balancers(run.config, *mixes)
    yield f"{flags}. " + (
        "Only training was balanced, after the split."
        if balanced
        else "Nothing was balanced: training saw the class shares of the data."
    )
    yield plain_table(["class shares", *map(escaped, run.class_names)], rows)
    yield from balancing_notes(run)


def training(facts: Facts) -> Iterator[str]:
    config = facts.run.config
    source = config.init_from or config.weights
    start = "random weights" if source == "none" else code(source)
    yield f"Started from {start}; trained layers: {config.trainable}; seed {config.seed}."
    yield report.describe_training(facts.run)
    yield f"{AUTHOR}: what was tried before with other settings, and how these were chosen."
