"""Losses against formulas written down again in NumPy, and whole runs with each of them."""

import csv
import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.utils.class_weight import compute_class_weight

from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import fake_run, toy
from trainer.balancing import class_weights, loss_table
from trainer.models.classifier import create_model
from trainer.runs import report
from trainer.runs.finished_run import read_run
from trainer.runs.run_limits import run_limits
from trainer.settings import balance_summary
from trainer.settings.config import TrainConfig
from trainer.settings.table import LOSSES
from trainer.training import losses
from trainer.training.learner import create_planner
from trainer.training.run import run

COUNTS = (16, 16, 24, 8)
SPLITS = {"train": COUNTS, "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), SPLITS)


def _config(loss, **values) -> TrainConfig:
    return TrainConfig("d", loss=loss, **values)


def _expected(name, labels, logits):
    """The papers' formulas, float64, image by image, with the default settings."""
    counts = np.array(COUNTS, float)
    values = []
    for label, z in zip(labels, logits.astype(np.float64), strict=True):
        if name in ("balanced_softmax", "logit_adjusted"):
            z = z + np.log(counts / counts.sum())
        if name == "ldam_drw":
            margins = 0.5 * (8 / counts) ** 0.25
            z = z - 30 * margins * np.eye(4)[label]
        nll = scipy.special.logsumexp(z) - z[label]
        if name == "class_weighted":
            nll *= 64 / (4 * counts[label])
        if name in ("effective_number", "class_balanced_focal"):
            weights = (1 - 0.999) / (1 - 0.999**counts)
            nll *= 4 * weights[label] / weights.sum()
        if name in ("focal", "class_balanced_focal"):
            others = np.delete(z, label)
            wrong = scipy.special.logsumexp(others) - scipy.special.logsumexp(z)
            nll *= np.exp(wrong) ** 2
        values.append(nll)
    return np.array(values)


BATCHES = st.integers(1, 6).flatmap(
    lambda b: st.tuples(
        hnp.arrays(np.int32, b, elements=st.integers(0, 3)),
        hnp.arrays(np.float32, (b, 4), elements=st.floats(-40, 40, width=32)),
    )
)


@pytest.mark.parametrize("name", LOSSES)
@given(batch=BATCHES)
@settings(max_examples=40, deadline=None)
def test_every_loss_is_its_papers_formula(name, batch):
    labels, logits = batch
    values = losses.TrainingLoss(_config(name), COUNTS)(labels, tf.constant(logits))
    assert values.dtype == tf.float32
    assert values.shape == labels.shape
    np.testing.assert_allclose(values, _expected(name, *batch), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_give_finite_losses_and_gradients(name, gamma):
    logits = tf.constant(
        [[1e4, -1e4, 0, 0], [-1e4, 1e4, 0, 0], [1e-30, 0, 0, 0], [500, 500, 500, -500]]
    )
    labels = tf.constant([0, 0, 2, 3])
    loss = losses.TrainingLoss(_config(name, focal_gamma=gamma), COUNTS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = loss(labels, logits)
    assert np.isfinite(values).all()
    assert np.isfinite(tape.gradient(values, logits)).all()
    assert float(values[1]) > 1e3  # confidently wrong is never forgiven


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_compiles_for_xla_with_static_shapes_and_agrees(name, strategy):
    rng = np.random.default_rng(0)
    labels = tf.constant(rng.integers(0, 4, 8), tf.int32)
    logits = tf.constant(rng.normal(0, 3, (8, 4)), tf.float32)
    loss = losses.TrainingLoss(_config(name), COUNTS)

    def value_and_gradient(labels, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = loss(labels, logits)
        assert values.shape.as_list() == [8]
        return values, tape.gradient(values, logits)

    compiled = tf.function(value_and_gradient, jit_compile=True)(labels, logits)
    for left, right in zip(compiled, value_and_gradient(labels, logits), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


COUNT_LISTS = st.lists(st.integers(1, 10**6), min_size=2, max_size=8)


@given(counts=COUNT_LISTS.filter(lambda counts: sum(counts) < 10**5))
@settings(max_examples=25, deadline=None)
def test_class_weights_are_scikit_learns_balanced_ones(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    theirs = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(class_weights.balanced_weights(counts), theirs)


@given(counts=COUNT_LISTS, beta=st.floats(0, 0.9999))
@settings(max_examples=50, deadline=None)
def test_effective_number_weights_follow_the_paper_and_its_limits(counts, beta):
    weights = class_weights.effective_number_weights(counts, beta)
    formula = np.array([(1 - beta) / (1 - beta ** float(n)) for n in counts])
    np.testing.assert_allclose(weights, formula * len(counts) / formula.sum(), rtol=1e-9)
    assert weights.sum() == pytest.approx(len(counts))
    np.testing.assert_array_equal(class_weights.effective_number_weights(counts, 0.0), 1.0)
    # Towards 1 they are scikit-learn's but for a factor: those have the mean 1 over images.
    near_one = class_weights.effective_number_weights(counts, 1 - 1e-11)
    balanced = class_weights.balanced_weights(counts)
    np.testing.assert_allclose(near_one / near_one.sum(), balanced / balanced.sum(), rtol=1e-4)


@given(batch=BATCHES)
@settings(max_examples=25, deadline=None)
def test_balanced_softmax_is_logit_adjustment_with_tau_1_and_cross_entropy_with_tau_0(batch):
    labels, logits = batch[0], tf.constant(batch[1])
    one, zero = (
        losses.TrainingLoss(_config("logit_adjusted", logit_adjustment_tau=tau), COUNTS)
        for tau in (1.0, 0.0)
    )
    softmax = losses.TrainingLoss(_config("balanced_softmax", logit_adjustment_tau=7.0), COUNTS)
    np.testing.assert_array_equal(one(labels, logits), softmax(labels, logits))
    np.testing.assert_array_equal(zero(labels, logits), losses.cross_entropy(labels, logits))


@given(counts=COUNT_LISTS, largest=st.floats(0.01, 2))
@settings(max_examples=25, deadline=None)
def test_ldam_margins_fall_with_the_fourth_root_and_the_rarest_class_has_the_largest(
    counts, largest
):
    margins = class_weights.ldam_margins(counts, largest)
    assert margins.max() == margins[np.argmin(counts)] == pytest.approx(largest)
    np.testing.assert_allclose(
        margins * np.array(counts, float) ** 0.25, margins[0] * counts[0] ** 0.25
    )


def test_ldam_model_has_cosines_times_the_scale_and_keeps_its_weights_at_length_one(
    data, strategy, tmp_path, monkeypatch
):
    model = create_model("tiny", image_size=32, channels=1, num_classes=4, cosine_scale=30.0)
    images, _ = toy.images_and_labels(8)
    features = keras.Model(model.input, model.get_layer("pool").output)(images).numpy()
    kernel = model.get_layer("cosines").kernel.numpy()
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(model(images), 30 * features @ kernel / lengths, atol=1e-3)

    config = TrainConfig(data.path, str(tmp_path / "run"), loss="ldam_drw", epochs=1, batch_size=16)
    begun, start_epoch = [], losses.TrainingLoss.start_epoch
    monkeypatch.setattr(
        losses.TrainingLoss,
        "start_epoch",
        lambda *args: (begun.append(args[1]), start_epoch(*args)),
    )
    run(config, data, strategy)
    assert begun == [1], "the epoch from which on it re-weighs counts these"
    saved = keras.models.load_model(tmp_path / "run" / "model.keras")
    kernel = saved.get_layer("cosines").kernel.numpy()
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-5)
    assert len(saved.get_layer("cosines").weights) == 1, "a bias would not be a cosine"


def test_deferred_weights_begin_at_their_epoch_whatever_came_before():
    config = _config("ldam_drw", epochs=10, effective_number_beta=0.9)
    assert config.first_drw_epoch == 9
    assert _config("ldam_drw", epochs=200).first_drw_epoch == 161
    assert _config("ldam_drw", epochs=10, drw_epoch=3).first_drw_epoch == 3
    logits, labels = tf.zeros([4, 4]), tf.range(4)
    straight, resumed = losses.TrainingLoss(config, COUNTS), losses.TrainingLoss(config, COUNTS)
    plain = straight(labels, logits).numpy()
    ratios = []
    for epoch in range(1, 11):
        straight.start_epoch(epoch)
        ratios.append(straight(labels, logits).numpy() / plain)
    np.testing.assert_array_equal(ratios[7], 1.0)
    weights = class_weights.effective_number_weights(COUNTS, 0.9)
    np.testing.assert_allclose(ratios[8:], [weights, weights], rtol=1e-6)
    resumed.start_epoch(9)
    np.testing.assert_array_equal(resumed(labels, logits).numpy() / plain, ratios[8])


@pytest.mark.slow
def test_the_loop_re_weighs_from_the_epoch_that_the_flag_names(data, strategy, tmp_path):
    values = {"epochs": 2, "batch_size": 16, "effective_number_beta": 0.9, "loss": "ldam_drw"}
    tables = []
    for epoch in (2, 3):
        config = TrainConfig(data.path, str(tmp_path / str(epoch)), drw_epoch=epoch, **values)
        run(config, data, strategy)
        with open(tmp_path / str(epoch) / "history.csv", newline="") as file:
            tables.append([row["loss"] for row in csv.DictReader(file)])
    assert tables[0][0] == tables[1][0]
    assert tables[0][1] != tables[1][1]


@pytest.mark.parametrize("name", [name for name in LOSSES if loss_table.LOSSES[name].needs_counts])
def test_class_without_training_images_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"--loss={name}: class 1 \(B\).*\[4, 0\]"):
        losses.TrainingLoss(_config(name), (4, 0), ["A", "B"])


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_losses_without_counts_take_classes_without_images(name):
    losses.TrainingLoss(_config(name), (4, 0))


@given(
    logits=hnp.arrays(np.float64, (5, 3), elements=st.floats(-20, 20)),
    counts=st.lists(st.integers(1, 1000), min_size=3, max_size=3),
    tau=st.floats(-2, 2),
)
@settings(max_examples=50, deadline=None)
def test_post_hoc_adjustment_divides_probabilities_by_the_priors_power(logits, counts, tau):
    adjusted = class_weights.adjust_logits(logits, counts, tau)
    priors = np.array(counts) / np.sum(counts)
    expected = scipy.special.softmax(logits, axis=1) / priors**tau
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scipy.special.softmax(adjusted, axis=1), expected, rtol=1e-9)
    np.testing.assert_allclose(
        class_weights.adjust_logits(logits, priors, tau), adjusted, atol=1e-9
    )


@pytest.mark.parametrize("priors", [[0.5, 0.5], [1, 1, 0], [1, 1, float("nan")], [1, 1, -1]])
def test_post_hoc_adjustment_refuses_priors_that_do_not_fit(priors):
    with pytest.raises(UserError, match="3 classes a share above 0"):
        class_weights.adjust_logits(np.zeros((2, 3)), priors)


@pytest.mark.parametrize(
    ("settings_", "flags"),
    [
        ({"sampler": "none", "loss": "class_weighted"}, None),
        ({"sampler": "oversample", "loss": "focal"}, None),
        ({"sampler": "oversample", "mixup_alpha": 0.2}, None),
        pytest.param(
            {"sampler": "oversample", "loss": "logit_adjusted"},
            "--sampler=oversample.*--loss=logit_adjusted",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"sampler": "progressive", "epochs": 2, "loss": "balanced_softmax"},
            "--sampler=progressive.*--loss=balanced_softmax",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"loss": "ldam_drw", "mixup": "balanced", "mixup_alpha": 0.2},
            "--loss=ldam_drw.*--mixup=balanced",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_balancing_twice_is_said_once_and_noted_in_the_report(
    settings_, flags, data, tmp_path, capsys, strategy
):
    config = TrainConfig(data.path, str(tmp_path), **{"epochs": 1, "batch_size": 16} | settings_)
    planned = create_planner(config, data).planned_counts(config.epochs - 1)
    text = balance_summary.double_balancing(config, COUNTS, planned.tolist())
    if flags is None:
        assert text is None
        return
    assert len(text.splitlines()) == 1
    run(config, data, strategy)
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning: ")]
    assert lines == [f"warning: {text}"]
    assert text in (tmp_path / "report.md").read_text()
    assert re.search(flags, text)


def test_report_tells_loss_and_what_it_does_to_probabilities(tmp_path):
    path = fake_run.write_run(
        tmp_path, sampler="none", loss="ldam_drw", ldam_scale=20.0, epochs=8, mixup_alpha=0.4
    )
    samples = json.loads((tmp_path / "sampler_counts.json").read_text())
    samples["planned"] = samples["natural"]
    (tmp_path / "sampler_counts.json").write_text(json.dumps(samples))
    report.write_report(path)
    text = (tmp_path / "report.md").read_text()
    assert "--loss=ldam_drw" in text
    assert "--ldam_scale=20.0" in text
    assert "ldam_drw (largest margin 0.5, scale 20, from epoch 7" in text
    assert "mixup plain (alpha 0.4)" in text
    assert "classes were balanced (--loss=ldam_drw)" in text
    assert "epoch 5, before deferred re-weighting" in text
    assert "last class mix" not in text
    late = dataclasses.replace(read_run(path).config, drw_epoch=5)
    notes = run_limits(dataclasses.replace(read_run(path), config=late))
    assert not any("before deferred" in note for note in notes)
    moving = dataclasses.replace(read_run(path).config, sampler="progressive")
    notes = run_limits(dataclasses.replace(read_run(path), config=moving))
    assert any("of epoch 5 of 8: --sampler=progressive had not" in note for note in notes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "hinge"),
        ("effective_number_beta", 1.0),
        ("focal_gamma", -1.0),
        ("logit_adjustment_tau", float("nan")),
        ("ldam_max_margin", -0.5),
        ("ldam_scale", 0.0),
        ("drw_epoch", -1),
        ("mixup", "cut"),
        ("mixup", "balanced"),
        ("mixup_alpha", -0.1),
    ],
)
def test_impossible_settings_of_losses_name_their_flag(field, value):
    with pytest.raises(UserError, match=f"--{field}="):
        dataclasses.replace(TrainConfig("d"), **{field: value})


def test_runs_that_differ_in_loss_have_different_directories():
    names = {_config(loss).run_dir for loss in LOSSES}
    names |= {TrainConfig("d", mixup=m, mixup_alpha=0.2).run_dir for m in ("plain", "balanced")}
    assert len(names) == len(LOSSES) + 2
    assert "runs/tiny-none-seed0" in names


# With terms by image and by class. Those of logit_adjusted and of ldam_drw train above.
QUICK_LOSSES = ("class_balanced_focal",)


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK_LOSSES else pytest.param(n, marks=pytest.mark.slow) for n in LOSSES],
)
def test_every_loss_trains_and_is_validated_by_cross_entropy(name, data, strategy, tmp_path):
    config = TrainConfig(
        data.path, str(tmp_path), loss=name, epochs=2, batch_size=16, flip=False, seed=1
    )
    metrics = run(config, data, strategy)
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    best = min(float(row["validation_loss"]) for row in rows)
    assert metrics["validation"]["log_loss"] == best


@pytest.mark.slow
def test_deferred_weights_and_mixup_give_the_same_losses_on_two_devices(data, strategy, tmp_path):
    # Re-weighted from the second of two epochs on, with mixup: all that an epoch changes.
    alone = TrainConfig(
        data.path,
        str(tmp_path / "cpu"),
        **{"loss": "ldam_drw", "epochs": 2, "batch_size": 16, "dropout": 0.0, "optimizer": "sgd"},
        **{"learning_rate": 0.002, "mixup_alpha": 0.4, "effective_number_beta": 0.9},
    )
    run(alone, data, strategy)
    shared = dataclasses.replace(alone, run_dir=str(tmp_path / "two"))
    toy.run_replicated(shared, 2)
    histories = []
    for name in ("cpu", "two"):
        with open(tmp_path / name / "history.csv", newline="") as file:
            histories.append([float(row["loss"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(*histories, rtol=1e-4)
