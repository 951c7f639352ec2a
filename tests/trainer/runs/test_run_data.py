"""Where a run's data set is found again, and what is said when files are decoded otherwise now."""

import json
import os

import pytest

from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import fake_run
from trainer.runs.finished_run import read_run
from trainer.runs.run_data import changed_pixel_rules, find_data, reading_of

COUNTS = {"train": (1, 1, 1, 1), "validation": (1, 1, 1, 1), "test": (1, 1, 1, 1)}


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a run whose config.json says `dataset` beside what is true."""
    data = helpers.write_dataset(tmp_path / "data", COUNTS)
    counts = {split: list(numbers) for split, numbers in COUNTS.items()}

    def make(**dataset):
        settings = {"counts": counts, "class_names": list(data.class_names)}
        content = {**fake_run.of(data), **dataset}
        path = fake_run.write_run(tmp_path / "run", dataset=content, **settings)
        return read_run(path)

    return make


def test_a_data_set_is_found_where_it_was_or_where_the_flag_leads(make_run, tmp_path, monkeypatch):
    run = make_run()
    assert find_data(run).path == run.dataset["path"]
    os.makedirs(tmp_path / "moved" / "data")
    os.rename(run.dataset["path"], tmp_path / "moved" / run.config.data_dir)
    with pytest.raises(UserError, match=r"/data, the data set of .*, is not there any more"):
        find_data(run)
    assert find_data(run, str(tmp_path / "moved" / run.config.data_dir))
    monkeypatch.chdir(tmp_path / "moved")  # --data_dir was relative
    assert find_data(run).path == run.config.data_dir


@pytest.mark.parametrize(
    ("given", "remedy"), [("", "put that one back"), ("data", "name that one with --data_dir")]
)
def test_another_data_set_in_its_place_is_refused(make_run, tmp_path, given, remedy):
    run = make_run(fingerprint="of another")
    with pytest.raises(UserError, match=f"is not the data set that .* was trained on: {remedy}"):
        find_data(run, given and str(tmp_path / given))


def test_files_that_are_decoded_otherwise_now_are_named(make_run, capsys):
    run = make_run(pixel_rules=1)
    reading_of(run)
    printed = capsys.readouterr().out
    assert printed.startswith(f"warning: {run.path} was trained on images that an earlier version")
    assert "\n  pixel rules, version 2: EXIF orientation: followed\n" in printed
    reading_of(make_run(pixel_rules=rules.VERSION))
    assert not capsys.readouterr().out
    with pytest.raises(UserError, match="needs a later version of this software"):
        reading_of(make_run(pixel_rules=rules.VERSION + 1))


def test_a_run_that_does_not_say_its_rules_asks_its_data_set(make_run):
    assert not changed_pixel_rules(make_run(path="/gone"))
    run = make_run()
    path = os.path.join(run.dataset["path"], "manifest.json")
    with open(path, encoding="utf-8") as file:
        manifest = json.load(file)
    for version, said in ((rules.VERSION, ""), (1, "warning: ")):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**manifest, "pixel_rules": version}, file)
        assert changed_pixel_rules(run)[:9] == said
