"""A training that starts from a finished run: which runs fit, and which weights it begins with."""

import os

import keras
import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer.fake_run import write_run
from trainer.models.classifier import features_model, head_model
from trainer.runs import initial_run, run_files
from trainer.settings.config import TrainConfig
from trainer.training.learner import create_network


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(data, tmp_path_factory):
    """A finished run of another seed, whose BatchNormalization's statistics are its own too."""
    path = write_run(
        tmp_path_factory.mktemp("runs") / "first",
        **{"backbone": "tiny", "seed": 5, "head_units": (8,)},
        class_names=data.class_names,
        dataset={"fingerprint": data.fingerprint, "path": data.path},
    )
    model = create_network(TrainConfig(data_dir="", seed=5, head_units=(8,)), data)
    rng = np.random.default_rng(0)
    model.set_weights([rng.random(w.shape) for w in model.get_weights()])
    model.save(os.path.join(path, run_files.MODEL))
    return path


def _same(part, model, source):
    theirs = keras.models.load_model(os.path.join(source, run_files.MODEL))
    pairs = zip(part(model).get_weights(), part(theirs).get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _config(data, source, **settings):
    return TrainConfig(data.path, init_from=source, **{"head_units": (8,)} | settings)


@pytest.mark.slow
def test_backbone_and_head_are_taken_over_and_other_image_sizes_fit(data, source, tmp_path):
    larger = write_dataset(tmp_path / "larger", image_size=40)
    for config, here in (
        (_config(data, source, trainable="head"), data),
        (_config(larger, source), larger),
    ):
        model = create_network(config, here)
        assert _same(features_model, model, source)
        assert _same(head_model, model, source)
        assert initial_run.describe(config, here.class_names) == f"weights and head of {source}"
    # Two stages as in Basu et al. (2020): other images, size, classes and head at once.
    config = _config(larger, source, classes=larger.class_names[1:], head_units=(9,))
    model = create_network(config, config.shown(larger))
    assert _same(features_model, model, source)
    assert model.output_shape == (None, 3)


def test_the_report_says_what_a_training_started_from(data, source, tmp_path):
    other = write_dataset(tmp_path / "other", seed=1, image_size=40)
    config = _config(other, source, classes=other.class_names[1:])
    text = initial_run.describe_source(config, other.class_names[1:])
    assert text.startswith(f"Started from the weights of {source} with a new head (that run has o")
    assert text.endswith(f"trained on 13,545 images of `{data.path}` at 96 px.")
    (limit,) = initial_run.limits(config)
    assert limit.startswith(f"{source} was trained on other data ({data.path}): if images or pat")
    assert not list(initial_run.limits(_config(data, source)))
    gone = _config(other, str(tmp_path / "gone"))
    assert "is not there any more" in initial_run.describe_source(gone, other.class_names)
    assert not list(initial_run.limits(gone))


def test_other_classes_get_a_new_head_and_a_line_says_so(data, source):
    # Weights also fit a network that sees the images smaller or larger than the source did.
    config = _config(data, source, classes=data.class_names[:3], image_size=12)
    shown = config.shown(data)
    model = create_network(config, shown)
    assert _same(features_model, model, source)
    assert model.output_shape == (None, 3)
    fresh = create_network(TrainConfig(data.path, head_units=(8,)), shown)
    for a, b in zip(head_model(model).get_weights(), head_model(fresh).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    text = initial_run.describe(config, shown.class_names)
    assert "with a new head (that run has other classes (COVID, Lung_Opacity, Normal, V" in text
    assert not initial_run.other_data(config)
    for settings in ({"head_units": (9,)}, {"head": "rnn"}):
        other = _config(data, source, **settings)
        assert "(that run has another --head, --head" in initial_run.describe(
            other, data.class_names
        )


def test_runs_that_do_not_fit_are_refused(data, source, tmp_path):
    with pytest.raises(UserError, match="both say which weights"):
        _config(data, source, weights="file.h5")
    with pytest.raises(UserError, match="is not a finished run whose model"):
        initial_run.read_source(_config(data, str(tmp_path)))
    with pytest.raises(UserError, match="has another backbone, tiny, than --backbone=resnet18: gi"):
        initial_run.read_source(_config(data, source, backbone="resnet18"))


def test_a_model_of_other_classes_than_its_run_is_refused(data, tmp_path):
    path = write_run(tmp_path, backbone="tiny", class_names=data.class_names)
    layers = [keras.layers.Flatten(), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((8, 8, 1)), *layers]).save(tmp_path / run_files.MODEL)
    with pytest.raises(UserError, match=r"model\.keras .*it has 2 outputs, but its run 4 classes"):
        create_network(_config(data, path), data)


def test_a_run_that_has_seen_the_test_fold_is_refused(tmp_path):
    folds = write_dataset(tmp_path / "folds", {f"fold{k}": (4, 5, 6, 3) for k in range(3)})
    dataset = {"fingerprint": folds.fingerprint, "path": folds.path, "folds": 3}
    path = write_run(tmp_path / "run", backbone="tiny", fold=1, dataset=dataset)
    (tmp_path / "run" / run_files.MODEL).touch()
    initial_run.read_source(TrainConfig(folds.path, init_from=path, fold=1))
    with pytest.raises(UserError, match="has seen test images of --fold=0"):
        initial_run.read_source(TrainConfig(folds.path, init_from=path, fold=0))
