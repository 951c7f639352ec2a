"""A run's model and predictions that are not those that its training wrote."""

import json
import shutil

import pytest

from cxr_tfrecords.errors import UserError
from tests.trainer import fake_run
from trainer.runs import file_hashes, run_files
from trainer.runs.finished_run import read_run

COUNTS = dict.fromkeys(("train", "validation", "test"), [3] * 4)


@pytest.fixture
def run_dir(tmp_path):
    for seed in (0, 1):
        fake_run.write_run(tmp_path / f"run{seed}", counts=COUNTS, rng_seed=seed)
        (tmp_path / f"run{seed}" / run_files.MODEL).write_text(f"model {seed}")
    file_hashes.write(str(tmp_path / "run0"))
    return tmp_path / "run0"


def test_files_of_the_run_are_read(run_dir):
    run = read_run(str(run_dir))
    assert len(run.predictions("test").ids) == 12
    file_hashes.check(f"{run_dir}/{run_files.MODEL}")


@pytest.mark.parametrize("name", ["predictions_test.csv", "predictions_validation.csv"])
def test_predictions_of_another_run_and_an_edited_group_are_refused(run_dir, name):
    told = rf"{name} is not the file that the run's training has written: restore it"
    text = (run_dir / name).read_text()
    for other in (
        (run_dir.parent / "run1" / name).read_text(),
        text.replace(text.splitlines()[1].rpartition(",")[2], "x", 1),
    ):
        assert other != text
        (run_dir / name).write_text(other)
        with pytest.raises(UserError, match=told):
            read_run(str(run_dir)).predictions(name[len("predictions_") : -len(".csv")])


def test_the_model_of_another_run_is_refused(run_dir):
    shutil.copy(run_dir.parent / "run1" / run_files.MODEL, run_dir)
    with pytest.raises(UserError, match=r"model\.keras is not the file that the run's training"):
        file_hashes.check(f"{run_dir}/{run_files.MODEL}")


def test_edited_hashes_are_refused_and_runs_of_before_have_none(run_dir):
    path = run_dir / run_files.FILE_HASHES
    content = json.loads(path.read_text())
    content["sha256"]["predictions_test.csv"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"file_hashes\.json was changed after the training"):
        read_run(str(run_dir)).predictions("test")
    path.unlink()
    assert len(read_run(str(run_dir)).predictions("test").ids) == 12
