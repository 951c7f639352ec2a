"""A run's model in other programs: the same answers, and a description that is enough."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import types

import cv2
import keras
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from tensorflow import errors

from cxr_tfrecords import images, synthetic
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.reading import Reading
from tests import helpers
from tests.shared import ROOT
from tests.trainer import processes
from tests.trainer.fake_run import CLASSES
from trainer.deployment import corrected_probabilities
from trainer.distribution import strategies
from trainer.evaluation.predictions import read_predictions
from trainer.exporting import (
    contract,
    encoded_images,
    exported_model,
    format_table,
    formats,
    parity,
)
from trainer.exporting.format_table import FORMATS
from trainer.input.split_batches import SplitSource
from trainer.models import classifier
from trainer.runs.finished_run import read_run
from trainer.settings.config import TrainConfig
from trainer.training import run as experiment

SIZES = {"train": (16, 16, 40, 6), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}
PLACE = "COVID=0.7,Lung_Opacity=0.1,Normal=0.2,Viral Pneumonia=0"
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
# Names that are given and not keys of the contract.
GIVEN = {*CLASSES, *FORMATS, *contract.OUTPUTS, "logits", "serving_default", "png"}


@dataclasses.dataclass(frozen=True)
class Exported:
    folder: str
    content: dict
    lines: list
    images: np.ndarray


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), SIZES)


@pytest.fixture(scope="module")
def run_dir(data, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("runs") / "oversampled")
    settings = {"epochs": 2, "batch_size": 16, "sampler": "oversample"}
    config = TrainConfig(data.path, path, image_size=28, **settings)
    pictures = types.SimpleNamespace(write_pictures=lambda run_dir: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "report_pictures", pictures)
        patch.setattr("trainer.runs.report.write_report", lambda run_dir: None)
        experiment.run(config, data, strategies.create_strategy("cpu"))
    return path


@pytest.fixture(scope="module")
def exported(run_dir, data, tmp_path_factory):
    """In all formats, or in those whose packages are installed."""
    folder = str(tmp_path_factory.mktemp("exported") / "model")
    names = [name for name in FORMATS if not _lacks_packages(name)]
    lines = list(exported_model.export(run_dir, folder, PLACE.split(","), names))
    told = [line for line in lines if line.startswith("writing and checking ")]
    assert told == [f"writing and checking {FORMATS[name].path}" for name in names]
    with open(f"{folder}/deployment.json", encoding="utf-8") as file:
        content = json.load(file)
    pixels = next(SplitSource(data, "test").evaluation(batch_size=27).as_numpy_iterator())[0]
    return Exported(folder, content, lines, pixels)


def _lacks_packages(name):
    try:
        format_table.check_formats([name])
    except UserError:
        return True
    return False


def test_every_file_gives_every_kind_of_probability(exported, run_dir):
    plan = corrected_probabilities.plan_deployment(read_run(run_dir), (0.7, 0.1, 0.2, 0))
    test = read_predictions(os.path.join(run_dir, "predictions_test.csv"))
    expected = plan.variants(test.log_probabilities)
    assert {"keras", "saved_model", "litert"} <= set(exported.content["files"])
    for name, described in exported.content["files"].items():
        found = formats.open_written(name, exported.folder)(exported.images)
        assert sorted(found) == sorted(described["outputs"])
        rough = name == format_table.INT8
        np.testing.assert_allclose(found["logits"], test.logits, atol=0.5 if rough else 1e-4)
        for output, variant in contract.OUTPUTS.items():
            if rough:
                continue
            np.testing.assert_allclose(found[output], np.exp(expected[variant]), atol=1e-4)
            correction = exported.content["correction"][output]
            offset = [correction["offset"][c] for c in CLASSES]
            by_hand = softmax(correction["scale"] * found["logits"] + offset, axis=1)
            np.testing.assert_allclose(found[output], by_hand, atol=1e-5)


def test_deployment_json_describes_the_deployment(exported, run_dir):
    content = exported.content
    shares = dict(zip(CLASSES, (0.7, 0.1, 0.2, 0), strict=True))
    assert content["class_shares"]["target"] == pytest.approx(shares)
    plan = corrected_probabilities.plan_deployment(read_run(run_dir), (0.7, 0.1, 0.2, 0))
    assert content["temperature"] == plan.temperature
    assert "each image was weighted by the share of its class there" in "\n".join(exported.lines)
    test = read_predictions(os.path.join(run_dir, "predictions_test.csv"))
    expected = plan.variants(test.log_probabilities)
    kept = np.repeat(np.array([0.7, 0.1, 0.2]) / SIZES["test"][:3], SIZES["test"][:3])
    for name, variant in contract.OUTPUTS.items():
        chosen = expected[variant][np.arange(27), test.labels][: len(kept)]
        assert content["test"][name]["log_loss"] == pytest.approx(-(kept * chosen).sum()), name


def test_deployment_json_describes_input_files_and_checks(exported):
    content = exported.content
    size, channels = content["input"]["size"], content["input"]["channels"]
    assert exported.images.shape[1:] == (size, size, channels)
    for described in content["files"].values():
        for path, digest in described["sha256"].items():
            with open(os.path.join(exported.folder, path), "rb") as file:
                assert hashlib.sha256(file.read()).hexdigest() == digest
    assert content["parity"]["images"] == 27
    for name, one in content["parity"]["formats"].items():
        assert one["same_class"] == 1, name
        assert one["of_file"]["probabilities"] < 1e-4
        assert one["of_model"]["logits"] > 0, "float32 is not exact"
    cost = content["int8"]
    assert (cost["images"], cost["calibration_images"]) == (27, 28)
    answers = formats.open_written("litert_int8", exported.folder)(exported.images)["logits"]
    labels = np.repeat(np.arange(4), SIZES["test"])
    assert cost["accuracy"]["int8"] == pytest.approx((answers.argmax(axis=1) == labels).mean())
    shown = "\n".join(exported.lines)
    assert f"{cost['accuracy']['int8']:.1%}" in shown


def _keys(content):
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from _keys(value)


def test_the_page_names_every_key_and_every_output(exported):
    content = {**exported.content, "versions": dict.fromkeys(exported.content["versions"])}
    names = {key for key in _keys(content) if "/" not in key and "." not in key}
    missing = [name for name in names - GIVEN if f"`{name}`" not in PAGE]
    assert not missing
    assert all(f"`{name}`" in PAGE for name in ["logits", *contract.OUTPUTS, *FORMATS])


@pytest.mark.parametrize("package", ["onnxruntime", "ai_edge_litert"])
def test_the_examples_of_the_page_run(package, exported, run_dir):
    pytest.importorskip(package, reason="the example on the page uses it")
    [code] = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.S) if package in text]
    np.save(os.path.join(exported.folder, "images.npy"), exported.images)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=exported.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keras_answers = formats.open_written("keras", exported.folder)(exported.images)
    names = [CLASSES[c] for c in keras_answers["probabilities"].argmax(axis=1)]
    assert done.stdout.startswith(str(names))


def _png(pixels, **chunks):
    from io import BytesIO

    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **chunks)
    return stream.getvalue()


def test_the_saved_model_takes_png_files_only_where_it_finds_the_same_pixels(exported):
    import tensorflow as tf

    loaded = tf.saved_model.load(os.path.join(exported.folder, "saved_model"))
    from_files = loaded.signatures[encoded_images.SIGNATURE]
    from_pixels = loaded.signatures["serving_default"]
    pictures = [images.encode(pixels, "png") for pixels in exported.images]
    [argument] = from_pixels.structured_input_signature[1]
    expected = from_pixels(**{argument: tf.constant(exported.images)})["logits"]
    found = from_files(files=tf.constant(pictures))["logits"]
    np.testing.assert_array_equal(found, expected)
    gray = exported.images[0, :, :, 0]
    turned = Image.Exif()
    turned[0x0112] = 6
    refused = {
        "another size": _png(np.pad(gray, 1)),
        "colour": _png(np.dstack([gray] * 3)),
        "16 bits": cv2.imencode(".png", gray.astype(np.uint16) * 16)[1].tobytes(),
        "transparency": _png(gray, transparency=0),
        "orientation": _png(gray, exif=turned),
        "JPEG": cv2.imencode(".jpg", gray)[1].tobytes(),
        "damage": pictures[0][:-60],
        "nothing": b"",
    }
    for kind, data in refused.items():
        try:
            from_files(files=tf.constant([data]))
        except tf.errors.InvalidArgumentError:
            continue
        pytest.fail(f"{kind} was taken")


@pytest.mark.parametrize(
    ("reading", "mask", "reason"),
    [
        (Reading(8, 1, "clahe"), "none", "enhanced"),
        (Reading(8, 1, encoding="jpeg"), "none", "stored as JPEG"),
        (Reading(8, 1), "lungs", "--mask=lungs"),
        (Reading(8, 1), "none", ""),
    ],
)
def test_a_changed_data_set_gives_no_signature_for_files(reading, mask, reason):
    assert reason in encoded_images.why_not(reading, mask)
    assert bool(reason) == bool(encoded_images.why_not(reading, mask))


def test_at_natural_shares_the_test_split_scores_all(run_dir):
    run = read_run(run_dir)
    plan = corrected_probabilities.plan_deployment(run)
    scores = contract.describe_run(run, plan, Reading(96, 1), natural=True)["test"]
    assert scores["probabilities_raw"]["brier"] == pytest.approx(run.metrics["test"]["brier"])
    assert scores["probabilities"]["log_loss"] != scores["probabilities_raw"]["log_loss"]
    assert set(scores) == set(contract.OUTPUTS)


@pytest.mark.slow
def test_the_command_writes_a_model_and_says_what_is_missing(run_dir, tmp_path):
    output = tmp_path / "model"
    done = processes.run("trainer.export", f"--run_dir={run_dir}", f"--output_dir={output}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "of the deployment" in done.stdout
    assert sorted(os.listdir(output)) == ["README.md", "deployment.json", "model.keras"]
    assert "`model.keras` and `deployment.json`" in (output / "README.md").read_text()


def test_what_does_not_fit_is_refused_and_leaves_nothing(run_dir, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    new = str(tmp_path / "new")
    with pytest.raises(UserError, match=r"--output_dir=.*taken exists and is not empty"):
        list(exported_model.export(run_dir, str(tmp_path / "taken")))
    with pytest.raises(UserError, match=r"is .* a finished run"):
        list(exported_model.export(str(tmp_path), new))
    with pytest.raises(UserError, match="--deploy_prior: there is no class a; its"):
        list(exported_model.export(run_dir, new, ["a=1"]))
    with pytest.raises(UserError, match=r"--format=keras,tflite: 'tflite' is not one of keras,"):
        list(exported_model.export(run_dir, new, names=["keras", "tflite"]))
    with pytest.raises(UserError, match="name each format once"):
        list(exported_model.export(run_dir, new, names=["keras", "keras"]))
    monkeypatch.setattr(format_table.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tf2onnx is not .* pip install 'cxr-balance\[onnx\]'"):
        list(exported_model.export(run_dir, new, names=["onnx"]))
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        # As TensorFlow says it where it writes the variables of a SavedModel.
        errors.ResourceExhaustedError(None, None, "{{function_node a}} b; No space left on device"),
    ],
)
def test_a_full_disk_leaves_no_directory(error, run_dir, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(formats, "write", broken)
    with pytest.raises(UserError, match=r"cannot be written \(no space left on its disk\)"):
        list(exported_model.export(run_dir, str(tmp_path / "model")))
    assert os.listdir(tmp_path) == []


def test_a_file_with_other_weights_is_refused(run_dir, tmp_path, monkeypatch):
    def with_other_bias(name, model, folder, **rest):
        twin = formats.in_precision(model, "float32")
        bias = twin.get_layer(classifier.LOGITS).bias
        bias.assign(bias + np.array([1e-3, 0, 0, 0]))
        write(name, twin, folder, **rest)

    write = formats.write
    monkeypatch.setattr(formats, "write", with_other_bias)
    with pytest.raises(UserError, match="--format=keras: the file does not answer as the trained"):
        list(exported_model.export(run_dir, str(tmp_path / "model")))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "model", "fits"),
    [
        ([0.7, 0.3], [0.7, 0.3], True),
        ([0.7 + 9e-6, 0.3], [0.7, 0.3], True),
        ([0.7 + 1.1e-5, 0.3], [0.7, 0.3], False),
        # Eight times as far as float32 takes the model itself.
        ([0.7 + 7.9e-4, 0.3], [0.7 + 1e-4, 0.3], True),
        ([0.7 + 8.1e-4, 0.3], [0.7 + 1e-4, 0.3], False),
        ([0.4, 0.6], [0.6, 0.4], False),  # another class
        ([np.nan, 0.3], [0.7, 0.3], False),
    ],
)
def test_what_a_file_may_differ_by(file, model, fits):
    answers = [{"logits": a, "probabilities": a} for a in (np.array([file]), np.array([model]))]
    exact = np.array([[0.7, 0.3]])
    one = parity.compare(*answers, {"logits": exact, "probabilities": exact})
    if fits:
        parity.check("onnx", one)
    else:
        with pytest.raises(UserError, match="--format=onnx: the file does not answer as"):
            parity.check("onnx", one)


@pytest.mark.slow
def test_without_its_data_set_a_run_is_checked_on_synthetic_images(
    run_dir, tmp_path, monkeypatch, capsys
):
    def gone(run):
        raise UserError("DATA does not exist")

    monkeypatch.setattr(exported_model, "find_data", gone)
    with pytest.raises(UserError, match=r"=litert_int8 needs .*DATA does not exist"):
        list(exported_model.export(run_dir, str(tmp_path / "model"), names=["litert_int8"]))
    monkeypatch.setattr(parity, "IMAGES", 4)
    list(exported_model.export(run_dir, str(tmp_path / "model")))
    assert "checked on synthetic radiographs" in capsys.readouterr().out
    content = json.loads((tmp_path / "model" / "deployment.json").read_text())
    assert (content["parity"]["source"], content["parity"]["images"]) == ("synthetic", 4)


def test_a_bfloat16_model_in_float32_is_the_float32_model():
    arguments = {"image_size": 32, "channels": 1, "num_classes": 4}
    brain = classifier.create_model("tiny", **arguments, mixed_precision="bfloat16")
    single = classifier.create_model("tiny", **arguments)
    pixels = synthetic.render("COVID", 0, image_size=32)[0][None, :, :, None]
    expected = single(pixels, training=False).numpy()
    np.testing.assert_array_equal(formats.in_precision(brain, "float32")(pixels), expected)
    exact = formats.in_precision(brain, "float64")(pixels).numpy()
    assert exact.dtype == np.float64
    assert 0 < np.abs(exact - expected).max() < 1e-5 < np.abs(brain(pixels) - expected).max()


def test_a_saved_model_holds_all_it_needs_and_the_network_is_traced_once(tmp_path):
    """Tracing takes most of the time of an export, minutes for deep networks."""
    traced = []

    class Traced(keras.layers.Dense):
        def call(self, inputs):
            traced.append(inputs)
            return super().call(inputs)

    image = keras.Input((8, 8, 1), dtype="uint8", name="image")
    scaled = keras.layers.Normalization(mean=[100.0], variance=[400.0])(image)
    logits = Traced(2)(keras.layers.Flatten()(scaled))
    model = keras.Model(image, {"logits": logits})
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    expected = model(pixels)["logits"]
    traced.clear()
    formats.write("saved_model", model, str(tmp_path))
    assert len(traced) == 1
    del model
    found = formats.open_written("saved_model", str(tmp_path))(pixels)["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_weights_of_a_normalization_layer_are_in_the_onnx_file(tmp_path):
    pytest.importorskip("tf2onnx", reason="of the extra onnx")
    image = keras.Input((8, 8, 1), dtype="uint8", name="image")
    scaled = keras.layers.Normalization(mean=[100.0], variance=[400.0])(image)
    logits = keras.layers.Dense(2)(keras.layers.Flatten()(scaled))
    model = keras.Model(image, {"logits": logits})
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    expected = model(pixels)["logits"]
    formats.write("onnx", model, str(tmp_path))
    found = formats.open_written("onnx", str(tmp_path))(pixels)["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
