"""A sampler, a loss and a backbone are each added in one room: everything else reads its row."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import helpers
from tests.shared import ROOT

COUNTS = {"train": (16, 16, 24, 8), "validation": (4, 4, 4, 4), "test": (4, 4, 4, 4)}

# What a new method needs, and no more. In a process of its own, since flags are made on import.
ADD_SAMPLER = """
import numpy as np
from trainer.balancing.sampler_table import SAMPLERS, Sampler
SAMPLERS["halves"] = Sampler(
    "half of every class, other halves in each epoch",
    lambda sizes, sampling, epoch: sizes // 2 + epoch % 2,
    varies_by_epoch=True,
)
"""
ADD_LOSS = """
from trainer.balancing.loss_table import LOSSES, Loss, LossTerms
def squared(labels, logits):
    import tensorflow as tf
    truth = tf.one_hot(labels, logits.shape[-1])
    return tf.reduce_sum((tf.nn.softmax(logits) - truth) ** 2, axis=-1)
LOSSES["brier"] = Loss(
    "squared errors of the probabilities, weighted by 1/sqrt(n_c)",
    lambda counts, settings: LossTerms(np.asarray(counts) ** -0.5, per_image=squared),
    needs_counts=True,
    settings_text="gamma {0.focal_gamma:g} ignored",
)
"""
ADD_BACKBONE = """
from trainer.models.backbone_table import TABLE, Backbone
TABLE["pooled"] = Backbone(None, "tf", min_px=4)
"""
NETWORK = """
import keras
from trainer.models import small_networks
def pooled(shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.AveragePooling2D(4)(inputs), name="pooled")
small_networks.pooled = pooled
"""
TRAIN = """
import json, sys
from cxr_tfrecords.errors import run_main
from trainer import main
try:
    run_main(main.main)
except SystemExit as stop:
    if stop.code or "--helpfull" in sys.argv:
        raise
from trainer.comparison.method_grid import describe_method, parse_method
from trainer.runs.finished_run import read_run
from trainer.runs.training_priors import training_priors
run = read_run(main.FLAGS.run_dir)
told = {"method": describe_method(run), "priors": training_priors(run).tolist()}
told["best"] = int(run.best["epoch"])
told["flags"] = dict(parse_method("halves+brier").flags)
with open("told.json", "w") as file:
    json.dump(told, file)
"""


def _run(tmp_path, code, *flags):
    return subprocess.run(
        [sys.executable, "-c", code, *flags],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        check=False,
    )


@pytest.mark.slow
def test_new_sampler_loss_and_backbone_are_each_one_entry_and_all_else_knows_them(tmp_path):
    for entry in (ADD_SAMPLER, ADD_LOSS, ADD_BACKBONE + NETWORK):
        assert entry.count("\n") < 30
    data = helpers.write_dataset(tmp_path / "data", COUNTS)
    code = ADD_SAMPLER + ADD_LOSS + ADD_BACKBONE + NETWORK + TRAIN
    methods = ["--sampler=halves", "--loss=brier", "--backbone=pooled"]
    flags = [f"--data_dir={data.path}", "--run_dir=run", "--epochs=2", "--batch_size=8", *methods]
    done = _run(tmp_path, code, *flags)
    assert done.returncode == 0, done.stderr

    told = json.loads((tmp_path / "told.json").read_text())
    assert told["method"] == "halves+brier"
    assert told["flags"] == {"sampler": "halves", "loss": "brier"}
    shares = np.array([[8, 8, 12, 4], [9, 9, 13, 5]])[told["best"] - 1]
    shares = shares * np.array(COUNTS["train"]) ** -0.5
    np.testing.assert_allclose(told["priors"], shares / shares.sum())
    audit = json.loads((tmp_path / "run" / "sampler_audit.json").read_text())
    planned = [epoch["planned_counts"] for epoch in audit["epochs"]]
    assert planned == [[8, 8, 12, 4], [9, 9, 13, 5]]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "brier (gamma 2 ignored)" in report
    assert "--backbone=pooled" in report


def test_help_and_checks_know_new_methods(tmp_path):
    code = ADD_SAMPLER + ADD_LOSS + ADD_BACKBONE + TRAIN
    text = " ".join(_run(tmp_path, code, "--helpfull").stdout.split())
    assert "halves: half of every class, other halves in each epoch." in text
    assert "brier: squared errors of the probabilities" in text
    assert "|pooled|" in text or "|pooled>" in text
    refused = _run(tmp_path, code, "--sampler=halves", "--sampling_strategy=all")
    assert refused.returncode == 2
    assert "--sampling_strategy has no meaning with --sampler=halves" in refused.stderr
