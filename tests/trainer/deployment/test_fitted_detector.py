"""The detector that lies beside a model: when it is fitted, and what it flags."""

import csv
import os
import shutil

import numpy as np
import pytest
from absl.testing import flagsaver

from cxr_tfrecords import images
from tests import helpers
from tests.trainer import fake_run
from trainer import predict
from trainer.deployment import predicted_files, prediction_rows
from trainer.deployment.predictor import Classifier
from trainer.models.classifier import create_model
from trainer.runs import run_directory, run_files

COUNTS = {"train": (30, 30, 30, 30), "validation": (10, 10, 10, 10), "test": (10, 10, 10, 10)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    data = helpers.write_dataset(root / "data", COUNTS)
    run_dir = fake_run.write_run(
        root / "run",
        class_names=helpers.CLASS_NAMES,
        counts={split: list(counts) for split, counts in COUNTS.items()},
        dataset=fake_run.of(data),
        batch_size=16,
        backbone="tiny",
    )
    _save_model(run_dir, seed=0)
    return run_dir


def _save_model(run_dir, seed):
    model = create_model("tiny", image_size=32, channels=1, num_classes=4, seed=seed)
    run_directory.save_model(run_dir, model)


@pytest.fixture
def run_dir(made, tmp_path):
    """A copy that a test may change; its data set is at the same place."""
    return shutil.copytree(made, tmp_path / "run")


def _without_data(run_dir):
    path = run_dir / run_files.CONFIG
    text = path.read_text()
    path.write_text(text.replace('/data"', '/gone"'))
    assert path.read_text() != text


def _radiographs(count):
    rng = np.random.default_rng(5)
    return [helpers.tiny_image(i, rng, 32, 1) for i in range(count)]


@pytest.mark.parametrize("method", ["vim", "mahalanobis", "knn"])
def test_noise_and_inverted_images_are_flagged_and_those_of_its_kind_are_not(run_dir, method):
    """The network is not trained: its features tell brightness and little else, and vim misses a
    change along the directions in which the training images vary."""
    classifier = Classifier.load(run_dir, ood_method=method)
    noise = list(np.random.default_rng(0).integers(0, 256, (20, 32, 32), np.uint8))
    inverted = [255 - image for image in _radiographs(20)]
    assert classifier.predict(noise).out_of_distribution.mean() >= 0.8
    if method != "vim":
        assert classifier.predict(inverted).out_of_distribution.mean() >= 0.8
    own = classifier.predict(_radiographs(60))
    assert own.out_of_distribution.mean() < 0.2
    flagged = own.out_of_distribution_score > classifier.detector.threshold
    np.testing.assert_array_equal(own.out_of_distribution, flagged)


def test_it_is_fitted_once_for_a_model_and_a_method(run_dir, capsys):
    first = Classifier.load(run_dir)
    assert "fits the mahalanobis detector" in capsys.readouterr().out
    images = _radiographs(20)
    again = Classifier.load(run_dir, false_alarms=0.2)
    assert "fits" not in capsys.readouterr().out
    assert again.detector.threshold < first.detector.threshold
    one, other = (c.predict(images).out_of_distribution_score for c in (first, again))
    np.testing.assert_array_equal(one, other)
    for change in (
        lambda: Classifier.load(run_dir, ood_method="knn"),
        lambda: (_save_model(run_dir, seed=1), Classifier.load(run_dir, ood_method="knn")),
        lambda: (
            (run_dir / run_files.OUT_OF_DISTRIBUTION).write_bytes(b"PK damaged"),
            Classifier.load(run_dir, ood_method="knn"),
        ),
    ):
        change()
        assert "fits the knn detector" in capsys.readouterr().out


def test_without_the_data_set_images_are_not_checked_and_a_line_says_why(run_dir, capsys):
    Classifier.load(run_dir)
    _without_data(run_dir)
    assert Classifier.load(run_dir).detector, "the file is enough"
    capsys.readouterr()
    os.remove(run_dir / run_files.OUT_OF_DISTRIBUTION)
    classifier = Classifier.load(run_dir)
    printed = capsys.readouterr().out
    assert "images unlike the training images are not flagged" in printed
    assert "/gone, the data set of" in printed
    assert "--ood_method=none" in printed
    answers = classifier.predict(_radiographs(1))
    assert (answers.out_of_distribution, answers.out_of_distribution_score) == (None, None)
    assert Classifier.load(run_dir, ood_method="none").detector is None
    assert "not flagged" not in capsys.readouterr().out


def test_too_few_validation_images_are_said(run_dir, capsys):
    assert Classifier.load(run_dir, false_alarms=0.01).detector is None
    assert (
        "validation has 40 groups of images, too few for --false_alarms=0.01"
        in capsys.readouterr().out
    )


def test_the_command_writes_the_flag_and_counts_it(run_dir, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = [*_radiographs(3), np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)]
    for number, image in enumerate(pixels):
        (folder / f"{number}.png").write_bytes(images.encode(image, "png"))
    output = tmp_path / "out.csv"
    with flagsaver.flagsaver(model=[str(run_dir)], input=str(folder), output=str(output)):
        predict.FLAGS.mark_as_parsed()
        predict.main([])
    with open(output, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["out_of_distribution"] for row in rows] == ["0", "0", "0", "1"]
    assert float(rows[3]["out_of_distribution_score"]) > float(rows[0]["out_of_distribution_score"])
    assert "1 image looks unlike the training images" in capsys.readouterr().out

    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction_rows, "read_file", stop)
    settings = []
    for rate in (0.05, 0.2):
        one = Classifier.load(run_dir, false_alarms=rate)
        with pytest.raises(KeyboardInterrupt):
            predicted_files.predict_files([one], str(folder), str(tmp_path / "s.csv"), threads=1)
        settings.append((tmp_path / "s.csv.part.json").read_text())
    assert settings[0] != settings[1], "rows with another threshold are not taken over"


def test_several_models_flag_what_most_of_them_do_and_have_no_score(run_dir, tmp_path):
    one = Classifier.load(run_dir)
    source = tmp_path / "a.png"
    source.write_bytes(images.encode(_radiographs(1)[0], "png"))
    unchecked = Classifier.load(run_dir, ood_method="none")
    headers = []
    for number, models in enumerate(([one, one], [one, unchecked])):
        output = tmp_path / f"{number}.csv"
        predicted_files.predict_files(models, str(source), str(output), threads=1)
        headers.append(output.read_text().splitlines()[0].split(","))
    assert headers[0][-2:] == ["disagreement", "out_of_distribution"]
    assert headers[1][-1] == "disagreement"
