"""A model that looks at a corner is caught, one that looks at the lungs is not."""

import json

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import processes
from tests.trainer.audit import planted
from trainer.audit.audit_run import audit_run
from trainer.audit.file_facts import predict_from_files
from trainer.audit.masks import choose_source, has_black_surroundings, lit, open_masks
from trainer.audit.open_run import open_run
from trainer.evaluation.predictions import read_predictions


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted.write_data(tmp_path_factory.mktemp("audit") / "data")


@pytest.fixture(scope="module")
def corner_run(data, tmp_path_factory):
    return planted.write_looking_run(
        tmp_path_factory.mktemp("corner") / "run", data, planted.CORNER
    )


def _audit(path, out, mask_source="data_set", data_dir=""):
    run, data = open_run(path, data_dir)
    masks = open_masks(data, "test", mask_source)
    return audit_run(run, data, "test", masks, str(out), resamples=100)


def _balanced(content):
    return {
        name: one["balanced_accuracy"]["estimate"] for name, one in content["conditions"].items()
    }


def test_a_corner_mark_is_caught_and_the_command_says_so(corner_run, tmp_path):
    done = processes.run(
        "trainer.shortcuts",
        *(f"--model={corner_run}", f"--output_dir={tmp_path / 'out'}", "--resamples=100"),
    )
    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stdout.splitlines() if line.startswith("Shortcut"))
    assert first.startswith("Shortcut likely: with a rectangle over the lungs the model still")
    assert "a balanced accuracy of 100.0% [87.8%, 100.0%] (100.0% on whole images" in first
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("shortcuts.html", "shortcuts.json", "shortcuts.md"),
    ]
    content = json.loads((tmp_path / "out" / "shortcuts.json").read_text())
    assert content["mask_source"] == "data_set"
    assert content["verdict"]["level"] == "likely"
    figures = _balanced(content)
    assert figures["image"] == figures["no_box"] == figures["border"] == figures["no_lungs"] == 1
    assert figures["only_lungs"] == 0.25
    assert content["lung_share"] == pytest.approx(0.25)
    page = (tmp_path / "out" / "shortcuts.html").read_text()
    assert page.count("<figure>") == 8
    assert first in page


def test_a_model_that_looks_at_the_lungs_passes(data, tmp_path):
    path = planted.write_looking_run(tmp_path / "run", data, planted.INSIDE)
    content = _audit(path, tmp_path / "out")
    assert content["verdict"]["level"] == "none"
    assert content["verdict"]["text"][0].startswith("No shortcut was seen: ")
    figures = _balanced(content)
    assert figures["image"] == figures["only_lungs"] == 1
    assert figures["no_box"] == figures["border"] == 0.25
    assert content["conditions"]["no_box"]["balanced_accuracy"]["difference"]["estimate"] == -0.75


def test_without_masks_only_the_border_is_looked_at(corner_run, tmp_path):
    content = _audit(corner_run, tmp_path / "out", "box")
    assert content["verdict"]["level"] == "likely"
    assert set(content["conditions"]) == {"image", "border", "only_middle", "blurred", "shuffled"}
    assert "Where the lungs are is not known" in (tmp_path / "out" / "shortcuts.md").read_text()


def test_other_files_than_those_of_the_run_are_refused(corner_run, tmp_path):
    def draw(label, *given):
        return planted.draw((label + 1) % 4, *given)

    other = planted.write_data(tmp_path / "other", draw=draw)
    with pytest.raises(UserError, match="holds other pixels than"):
        _audit(corner_run, tmp_path / "out", data_dir=other.path)
    helpers.write_dataset(tmp_path / "few", {**planted.COUNTS, "test": (1, 1, 1, 1)})
    with pytest.raises(UserError, match="its test split does not hold the images of"):
        _audit(corner_run, tmp_path / "out", "box", data_dir=str(tmp_path / "few"))
    assert not (tmp_path / "out").exists()


def test_the_source_of_masks_is_chosen_and_checked(data, tmp_path):
    def lungs_only(label, rng, size, channels):
        return helpers.tiny_image(label, rng, size, channels) * planted.LUNGS[:, :, None]

    assert choose_source(data, "test", "auto", "") == "data_set"
    plain = helpers.write_dataset(tmp_path / "plain")
    assert choose_source(plain, "test", "auto", "") == "box"
    assert choose_source(plain, "test", "auto", "x.keras") == "segmenter"
    with pytest.raises(UserError, match="holds no lung masks: build it with --with_masks"):
        choose_source(plain, "test", "data_set", "")
    with pytest.raises(UserError, match="needs --segmenter=FILE"):
        choose_source(plain, "test", "segmenter", "")
    black = helpers.write_dataset(tmp_path / "black", draw=lungs_only)
    assert not has_black_surroundings(plain, "test")
    assert choose_source(black, "test", "auto", "") == "black"


def test_pixels_that_are_not_black_are_lung_with_the_holes_between_them():
    pixels = np.zeros((1, 8, 8, 1), np.uint8)
    pixels[0, 2:6, 2:6] = 100
    pixels[0, 3, 3] = 0
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(lit(pixels)[0], expected)


def test_files_alone_answer_on_the_tested_images_after_training_images(data, corner_run, tmp_path):
    tested = read_predictions(f"{corner_run}/predictions_test.csv")
    answers, why = predict_from_files(data, tested)
    assert (answers, "sources.csv is missing" in why) == ({}, True)
    other = planted.write_data(tmp_path / "data")
    planted.write_sources(other, [(32, 500), (40, 500), (32, 900), (40, 900)])
    answers, why = predict_from_files(other, tested)
    assert why == ""
    right = {n: (p.logits.argmax(1) == p.labels).mean() for n, p in answers.items()}
    assert right == {"file_facts": 1.0, "file_facts_without_size": 0.5}
