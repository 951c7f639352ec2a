"""An edited file of a run is refused in one line that names it, or reads as a run."""

import json
import os

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.damage import edit_csv, edit_json
from tests.trainer.fake_run import write_run
from trainer.runs.finished_run import read_run

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
