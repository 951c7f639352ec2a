"""Training on a frozen backbone's features, which are computed once."""

import csv
import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import toy
from trainer.evaluation.predictions import read_predictions
from trainer.models import backbones
from trainer.settings.config import TrainConfig
from trainer.training import feature_files, loop
from trainer.training.learner import create_trainer
from trainer.training.passes import training_batches
from trainer.training.run import run

COUNTS = {"train": (16, 15, 24, 9), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


def _config(data, run_dir, **settings) -> TrainConfig:
    values = {"batch_size": 16, "epochs": 3, "trainable": "head", "sampler": "oversample"}
    values |= {"optimizer": "sgd", "learning_rate": 0.02, "cache": "features"}
    return TrainConfig(data.path, str(run_dir), **values | settings)


def _losses(config) -> list[float]:
    with open(os.path.join(config.run_dir, "history.csv"), newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def _logits(config) -> np.ndarray:
    path = os.path.join(config.run_dir, "predictions_test.csv")
    return read_predictions(path).logits


def test_features_train_the_same_head_as_images_mirrored_ones_included(
    data, strategy, tmp_path, capsys
):
    featured = _config(data, tmp_path / "features")
    run(featured, data, strategy)
    printed = capsys.readouterr().out
    assert "train: features of 64 images and their mirror images computed once" in printed
    assert "test: features of 27 images computed once" in printed
    model = tf.keras.models.load_model(tmp_path / "features" / "model.keras")
    images = toy.images_and_labels(3, size=data.image_size)[0]
    assert model(images).shape == (3, 4), "the saved model takes images"
    seen = dataclasses.replace(featured, cache="memory", run_dir=str(tmp_path / "images"))
    run(seen, data, strategy)
    np.testing.assert_allclose(_losses(featured), _losses(seen), rtol=1e-5)
    np.testing.assert_allclose(_logits(featured), _logits(seen), atol=1e-5)
    unmirrored = dataclasses.replace(featured, flip=False, run_dir=str(tmp_path / "unmirrored"))
    run(unmirrored, data, strategy)
    assert abs(_losses(unmirrored)[0] - _losses(seen)[0]) > 1e-4, "mirroring changes nothing here"


@pytest.mark.slow
def test_features_on_disk_serve_other_runs_of_the_same_data_and_weights(
    data, strategy, tmp_path, capsys
):
    folder = tmp_path / "features"
    first = _config(data, tmp_path / "first", features_dir=str(folder), epochs=1)

    def train(name, **settings):
        config = dataclasses.replace(first, run_dir=str(tmp_path / name), **settings)
        run(config, data, strategy)
        return _logits(config), "read from" in capsys.readouterr().out

    logits, was_read = train("first")
    assert not was_read
    assert sorted(path.name.split("-")[1] for path in folder.iterdir()) == sorted(COUNTS)
    again, was_read = train("again")
    assert was_read
    np.testing.assert_array_equal(again, logits)
    for path in folder.iterdir():  # damaged: computed again and replaced
        path.write_bytes(path.read_bytes()[:200])
    assert train("damaged") == (pytest.approx(logits), False)
    assert train("mended")[1]
    # Another seed gives the random backbone other weights, so these features are not its own.
    assert not train("other", seed=1)[1]
    assert len(list(folder.iterdir())) == 2 * len(COUNTS)


def test_features_of_a_damaged_file_are_never_taken(tmp_path):
    path, rng = str(tmp_path / "features.npy"), np.random.default_rng(0)
    features = rng.normal(0, 1, (20, 8)).astype(np.float32)

    def read():
        return feature_files.read_or_compute(path, len(features), lambda: features.copy())

    assert not read()[1]
    assert read()[1]
    with open(path, "rb") as file:
        whole = file.read()
    for number in range(120):
        data, place = bytearray(whole), int(rng.integers(len(whole)))
        if number % 4 == 0:
            data = data[:place]
        elif number % 4 == 1:
            data[place:place] = bytes([int(rng.integers(256))])
        else:
            data[place] ^= 1 << int(rng.integers(8))
        with open(path, "wb") as file:
            file.write(data)
        found, was_read = read()
        np.testing.assert_array_equal(found, features)
        assert was_read == (bytes(data) == whole), number
        with open(path, "rb") as file:
            assert file.read() == whole


def test_a_features_dir_that_cannot_be_written_is_named(data, strategy, tmp_path):
    (tmp_path / "file").write_text("")
    config = _config(data, tmp_path / "run", features_dir=str(tmp_path / "file" / "features"))
    with pytest.raises(UserError, match=r"--features_dir=.*file/features: Not a directory"):
        run(config, data, strategy)


@pytest.mark.slow
def test_two_devices_share_the_work(data, strategy, tmp_path):
    alone = _config(data, tmp_path / "cpu", dropout=0.0, head="rnn", rnn_units=8)
    run(alone, data, strategy)
    shared = dataclasses.replace(alone, run_dir=str(tmp_path / "two"))
    toy.run_replicated(shared, 2)
    np.testing.assert_allclose(_logits(shared), _logits(alone), atol=1e-5)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_never_stopped(data, strategy, tmp_path, monkeypatch):
    whole = _config(data, tmp_path / "whole")
    run(whole, data, strategy)
    stopped = dataclasses.replace(whole, run_dir=str(tmp_path / "stopped"))

    def stop(row, *_):
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        return ""

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_describe_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(stopped, data, strategy)
    run(stopped, data, strategy)
    assert _losses(stopped) == _losses(whole)
    np.testing.assert_array_equal(_logits(stopped), _logits(whole))


def test_a_weights_file_that_changed_is_refused(data, strategy, tmp_path):
    weights = tmp_path / "tiny.weights.h5"
    backbones.create_backbone("tiny", data.image_size, "none").save_weights(weights)
    config = _config(data, tmp_path / "run", weights=str(weights), epochs=1)
    run(config, data, strategy)
    (tmp_path / "run" / "metrics.json").unlink()
    backbones.create_backbone("tiny", data.image_size, "none").save_weights(weights)
    with pytest.raises(UserError, match=r"--weights=.*tiny\.weights\.h5: the file has changed"):
        run(config, data, strategy)


@pytest.mark.parametrize(
    ("settings", "streamed", "featured"),
    [
        ({"cache": "auto"}, False, True),
        ({"cache": "auto", "trainable": "all"}, False, False),
        ({"cache": "auto", "mixup_alpha": 0.2}, False, False),
        ({"cache": "auto", "cache_mb": 0}, True, False),
        ({"cache": "memory"}, False, False),
    ],
)
def test_auto_takes_features_where_they_never_change_and_fit(
    data, strategy, tmp_path, settings, streamed, featured
):
    trainer = create_trainer(_config(data, tmp_path, **settings), data, strategy)
    images = next(training_batches(trainer, trainer.planner.plan(0)))
    assert (images[0].shape.rank == 2) == featured
    assert trainer.sources["train"].streamed == streamed


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"trainable": "all"}, "--trainable=all"), ({"mixup_alpha": 0.2}, "--mixup_alpha=0.2")],
)
def test_features_that_would_change_are_refused(data, tmp_path, settings, named):
    with pytest.raises(UserError, match=rf"--cache=features .* which {named} would change"):
        _config(data, tmp_path, **settings)


@pytest.mark.slow
def test_a_frozen_backbone_drops_nothing():
    network = backbones.create_backbone("efficientnet_b0", 32, "none")
    images = tf.constant(toy.images_and_labels(4)[0], tf.float32) / 255
    images = tf.repeat(images, 3, axis=-1)
    backbones.freeze(network, "all")
    before = [network(images, training=True) for _ in range(2)]
    assert not np.allclose(*before), "nothing is dropped: the test says nothing"
    backbones.freeze(network, "head")
    np.testing.assert_array_equal(network(images, training=True), network(images, training=False))
