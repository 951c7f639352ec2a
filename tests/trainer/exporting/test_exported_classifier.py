"""An exported model is used without its run: the same answers, from the folder alone."""

import json
import shutil

import cv2
import numpy as np
import pytest

import trainer.exporting.exported_classifier  # noqa: F401
from cxr_tfrecords.checks import seal
from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import processes
from trainer.deployment.predictor import Classifier
from trainer.distribution import strategies
from trainer.exporting import exported_model
from trainer.runs.finished_run import read_run
from trainer.serving.api import describe_model
from trainer.serving.engine import Engine
from trainer.settings.config import TrainConfig
from trainer.training import run as experiment

FORMATS = ["keras", "saved_model"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    data = helpers.write_dataset(tmp_path_factory.mktemp("data"))
    path = str(tmp_path_factory.mktemp("runs") / "run")
    config = TrainConfig(data.path, path, image_size=24, epochs=1, batch_size=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.report_pictures, "write_pictures", lambda run_dir: None)
        patch.setattr("trainer.runs.report.write_report", lambda run_dir: None)
        experiment.run(config, data, strategies.create_strategy("cpu"))
    return path


@pytest.fixture(scope="module")
def whole(run_dir, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported") / "model")
    list(exported_model.export(run_dir, folder, names=FORMATS))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def _keep(folder, *formats):
    """Leaves other formats out, as an export with these would have."""
    path = folder / "deployment.json"
    content = json.loads(path.read_text())
    for name in set(content["files"]) - set(formats):
        del content["files"][name]
    path.write_text(json.dumps(seal.sealed(content)))


@pytest.mark.parametrize("kept", [FORMATS, ["saved_model"]])
def test_it_answers_as_its_run_does(kept, folder, run_dir):
    _keep(folder, *kept)
    run = Classifier.load(run_dir, ood_method="none")
    exported = Classifier.load(folder)
    assert (exported.class_names, exported.reading) == (run.class_names, run.reading)
    rng = np.random.default_rng(0)
    pixels = [helpers.tiny_image(n % 4, rng, 24, 1) for n in range(20)]
    one, other = run.predict(pixels), exported.predict(pixels)
    np.testing.assert_allclose(other.logits, one.logits, atol=1e-4)
    for name, values in one.probabilities.items():
        np.testing.assert_allclose(other.probabilities[name], values, atol=1e-5)
    np.testing.assert_array_equal(other.above_threshold, one.above_threshold)
    np.testing.assert_array_equal(other.in_set, one.in_set)
    assert one.in_set.any()
    assert other.out_of_distribution is None
    ready = np.stack([run.read(image) for image in pixels])
    labels = one.logits.argmax(axis=1)
    if "keras" in kept:
        maps = exported.heat_maps(ready, labels)
        np.testing.assert_allclose(maps, run.heat_maps(ready, labels), atol=1e-3)
    else:
        with pytest.raises(UserError, match=r"has no model\.keras, and heat maps need it"):
            exported.heat_maps(ready, labels)
        engine = Engine([run, exported])
        assert engine.ask(ready[0], heat_map=True).result(60).heat_map is None
        engine.close()
        assert [describe_model([one], 0.95, 0.9).heat_maps for one in (run, exported)] == [
            True,
            False,
        ]


def test_other_shares_are_those_of_the_run(folder, run_dir):
    shares = (0.7, 0.1, 0.1, 0.1)
    run = Classifier.load(run_dir, deploy_prior=shares, ood_method="none")
    exported = Classifier.load(folder, deploy_prior=shares)
    for name, (scale, offset) in run.deployment.scaling().items():
        assert exported.deployment.scaling()[name][0] == scale
        np.testing.assert_allclose(exported.deployment.scaling()[name][1], offset)


def _change(folder, **changed):
    path = folder / "deployment.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(seal.sealed({**content, **changed})))
    return content


def test_what_does_not_fit_is_refused_in_one_line(folder):
    for flag, word in ({"sensitivity": 0.8}, "--sensitivity=0.8"), ({"coverage": 0.5}, "0.9 only"):
        with pytest.raises(UserError, match=word):
            Classifier.load(folder, **flag)
    content = _change(folder, contract=2)
    with pytest.raises(UserError, match="version 2 of its contract, and this software knows 1"):
        Classifier.load(folder)
    _change(folder, contract=1, reading={**content["reading"], "mask": "lungs"})
    with pytest.raises(UserError, match="--mask=lungs"):
        Classifier.load(folder)
    _change(folder, reading={**content["reading"], "pixel_rules": 999})
    with pytest.raises(UserError, match=f"{folder} needs a later version of this software"):
        Classifier.load(folder)
    _change(folder, reading=content["reading"])
    with open(folder / "model.keras", "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"model\.keras is missing or was changed after"):
        Classifier.load(folder)
    _keep(folder)
    with pytest.raises(UserError, match="nothing can be computed with here"):
        Classifier.load(folder)
    (folder / "deployment.json").write_text("{}")
    with pytest.raises(UserError, match="no digest"):
        Classifier.load(folder)


def test_commands_that_need_the_run_say_so(folder):
    with pytest.raises(UserError, match=r"is an exported model of trainer\.export"):
        read_run(str(folder))


@pytest.mark.slow
def test_the_command_predicts_with_it(folder, tmp_path):
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), helpers.tiny_image(1, np.random.default_rng(0), 24, 1))
    output, page = tmp_path / "predictions.csv", tmp_path / "page.html"
    flags = [f"--model={folder}", f"--input={image}", f"--output={output}", f"--html={page}"]
    done = processes.run("trainer.predict", *flags)
    assert done.returncode == 0, done.stderr
    assert "images unlike the training images are not flagged" in done.stdout
    assert len(output.read_text().splitlines()) == 2
    assert "data:image" in page.read_text()
    _keep(folder, "saved_model")
    output.unlink()
    page.unlink()
    done = processes.run("trainer.predict", *flags)
    assert done.returncode == 2
    assert f"--html={page}: {folder} has no model.keras" in done.stderr.splitlines()[-1]
    assert not output.exists()
