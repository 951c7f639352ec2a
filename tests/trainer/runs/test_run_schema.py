"""An edited file of a run is refused in one line that names it, or reads as a run."""

import json
import os
import re

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.damage import edit_csv, edit_json
from tests.trainer.fake_run import CLASSES, write_run
from trainer.runs.finished_run import read_run
from trainer.runs.report import write_report
from trainer.training.run import describe_results

COUNTS = {split: [3, 2, 4, 2] for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), counts=COUNTS, planned=[4] * 4)


def refusal(run_dir):
    """The error's message, or none, of a run that is read and whose rows are used."""
    try:
        run = read_run(run_dir)
        run.predictions("test")
        return "" if run.best["epoch"] and run.updates else "nothing"
    except UserError as error:
        return str(error)


@pytest.mark.parametrize(
    "name",
    ["config.json", "metrics.json", "sampler_counts.json", "history.csv", "predictions_test.csv"],
)
def test_edits_are_one_line_or_a_run(run_dir, name):
    path, rng, refused = os.path.join(run_dir, name), np.random.default_rng(0), 0
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for _ in range(60):
        words, data = (edit_json if name.endswith(".json") else edit_csv)(text, rng)
        with open(path, "wb") as file:
            file.write(data)
        message = refusal(run_dir)
        refused += bool(message)
        assert "\n" not in message, words
        assert run_dir in (message or run_dir), words
    assert refused > 25
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config.json", '"seed": 0', '"seed": "x"', 'config.seed is "x", not a finite number'),
        ("config.json", '"channels": 1', '"channels": 2', "dataset.channels is 2, not one of 1, 3"),
        ("config.json", '"test": [3, ', '"test": [', "dataset.counts.test has 3 items, not one"),
        ("config.json", '"mobilenet_v2"', '"resnet"', "config.json: --backbone=resnet is not one"),
        ("metrics.json", '"accuracy": ', '"accuracy": null, "x": ', "validation.accuracy is null"),
        ("sampler_counts.json", '"unique": [', '"unique": [-1, ', "unique[0] is -1, not a whole"),
    ],
)
def test_the_message_names_key_and_value(run_dir, name, old, new, message):
    path = os.path.join(run_dir, name)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    json.loads(text.replace(old, new, 1))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new, 1))
    assert message in refusal(run_dir)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


SHARES = {"planned_shares": [0.25] * 4, "realised_shares": [0.25] * 4}
EPOCH = {"epoch": 1, "planned_counts": [4] * 4, "unique_so_far": [2] * 4, **SHARES}
EPOCH |= {"largest_repeat": 2, "read_amplification": 1.0}
POSTHOC = {"method": "posthoc_logit_adjusted", "tau": 1.0, "priors": [0.25] * 4}
DELETED = object()


@pytest.fixture
def decoupled(tmp_path):
    """A decoupled run, with an audit as a trained one has."""
    path = write_run(tmp_path, counts=COUNTS, planned=[4] * 4)
    content = json.loads((tmp_path / "config.json").read_text())
    origin = {"from_run": "RUN", "from_config": content["config"], "flags": {}, **POSTHOC}
    (tmp_path / "config.json").write_text(json.dumps({**content, "decoupled": origin}))
    epochs = [{**EPOCH, "epoch": number + 1} for number in range(8)]
    audit = {"class_names": CLASSES, "natural_counts": COUNTS["train"], "epochs": epochs}
    (tmp_path / "sampler_audit.json").write_text(json.dumps(audit))
    return path


def _edit(path, name, keys, value):
    """keys: with dots; a number is a place in a list."""
    path = os.path.join(path, name)
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    *outer, last = (int(key) if key.isdigit() else key for key in keys.split("."))
    holder = content
    for key in outer:
        holder = holder[key]
    if value is DELETED:
        del holder[last]
    else:
        holder[last] = value
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"),
    [
        ("metrics", "test.per_class.COVID.recall", DELETED, "test.per_class.COVID.recall is missi"),
        ("metrics", "test.per_class.COVID.support", None, "test.per_class.COVID.support is null"),
        ("metrics", "test.per_class.Normal.auprc", DELETED, "test.per_class.Normal.auprc is miss"),
        ("metrics", "test.per_class.Normal.calibration_slope", "x", 'calibration_slope is "x", no'),
        ("metrics", "test.per_class.Normal", DELETED, "test.per_class.Normal is missing"),
        ("metrics", "test.mcc", DELETED, "test.mcc is missing"),
        ("metrics", "test.brier", DELETED, "test.brier is missing"),
        ("metrics", "test.auroc_macro", "x", 'test.auroc_macro is "x", not a finite number'),
        ("metrics", "validation.auprc_macro", [], "validation.auprc_macro is [], not a finite num"),
        ("config", "config.map_classes", "x", 'config.map_classes is "x", not a list'),
        ("config", "config.map_classes", ["ab"], 'config.map_classes[0] is "ab", not a text and'),
        ("config", "config.augment_strength", [["a", "b"]], 'augment_strength[0][1] is "b", not a'),
        ("config", "config.head_units", {}, "config.head_units is {}, not a list"),
        ("config", "config.sampling_strategy", 3, "config.sampling_strategy is 3, not a list"),
        ("config", "config.fold", 2, "config.fold is 2, and dataset.folds 0"),
        ("config", "dataset.pixel_rules", "x", 'dataset.pixel_rules is "x", not a whole number'),
        ("config", "decoupled.from_config.augment_strength", None, "augment_strength is null, not"),
        ("config", "decoupled.from_config.sampler", "x", "--sampler=x is not one of"),
        (
            "config",
            "decoupled.method",
            "x",
            'decoupled.method is "x", not one of "crt", "tau_norm"',
        ),
        ("config", "decoupled.tau", DELETED, "decoupled.tau is missing"),
        ("config", "decoupled.tau", -1, "decoupled.tau is -1, not a finite number of at least 0"),
        ("config", "decoupled.priors", None, "decoupled.priors is null, not a list"),
        (
            "config",
            "decoupled.priors",
            [0.5, 0.5],
            "decoupled.priors has 2 items, not one for each",
        ),
        ("config", "decoupled.priors.1", 0, "decoupled.priors[1] is 0, not a finite number from"),
        (
            "sampler_audit",
            "epochs.0.planned_counts",
            DELETED,
            "epochs[0].planned_counts is missing",
        ),
        (
            "sampler_audit",
            "epochs.1.planned_counts",
            None,
            "epochs[1].planned_counts is null, not a",
        ),
        (
            "sampler_audit",
            "epochs.0.planned_counts.2",
            "x",
            'planned_counts[2] is "x", not a whole',
        ),
        (
            "sampler_audit",
            "epochs.0.unique_so_far",
            [1],
            "epochs[0].unique_so_far has 1 items, not",
        ),
        ("sampler_audit", "class_names", [], "class_names has 0 items, not one for each of 4"),
    ],
)
def test_what_readers_need_is_named_where_it_is_wrong(decoupled, name, keys, value, message):
    read_run(decoupled)
    _edit(decoupled, f"{name}.json", keys, value)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_run(decoupled)
    assert os.path.join(decoupled, f"{name}.json") in str(caught.value)


def test_runs_of_versions_that_said_less_are_read(decoupled):
    for keys in ("dataset.split_unit", "dataset.balanced_splits", "decoupled.flags"):
        _edit(decoupled, "config.json", keys, DELETED)
    _edit(decoupled, "config.json", "config.augment_strength", DELETED)
    with open(write_report(decoupled), encoding="utf-8") as file:
        assert "Unit of the split: unknown. All images" in file.read()


def test_a_class_without_images_has_no_recall_and_the_summary_shows_a_dash(tmp_path):
    path = write_run(tmp_path, counts={**COUNTS, "validation": [3, 0, 4, 2]}, planned=[4] * 4)
    shown = describe_results(path, read_run(path).metrics)
    [line] = [line for line in shown.splitlines() if line.startswith("recall Lung_Opacity")]
    assert line.split()[2] == "–"
