"""Model files: what is refused, and what a killed process leaves."""

import os
import tempfile
import zipfile

import keras
import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from trainer.models import keras_files
from trainer.models.classifier import create_model
from trainer.runs import run_directory, run_files


@pytest.fixture(scope="module")
def model():
    return create_model("tiny", image_size=32, channels=1, num_classes=4, seed=0)


def test_a_model_comes_back_with_its_weights_and_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    os.mkdir(tempfile.gettempdir())
    path = str(tmp_path / "model.keras")
    keras_files.save(path, model)
    for one, other in zip(keras_files.load(path).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [name for name in os.listdir(tempfile.gettempdir()) if "autograph" not in name] == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(model, tmp_path, value):
    broken = keras.models.clone_model(model)
    kernel = broken.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, value, np.float32))
    run_directory.save_model(str(tmp_path), broken)
    with pytest.raises(UserError, match=r"model\.keras cannot be read \(its weights .* are NaN or"):
        run_directory.load_model(str(tmp_path), 4)


def test_a_part_that_unpacks_to_much_is_refused_unread(model, tmp_path, monkeypatch):
    run_directory.save_model(str(tmp_path), model)
    with zipfile.ZipFile(tmp_path / run_files.MODEL, "a", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("more.json", bytes(60_000_000))
    monkeypatch.delattr(keras.models, "load_model")
    with pytest.raises(UserError, match=r"more\.json in it has 60,000,000 bytes"):
        run_directory.load_model(str(tmp_path))
