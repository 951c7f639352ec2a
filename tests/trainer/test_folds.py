"""trainer.main --fold: over all folds every image is tested exactly once."""

import json

import pytest

from tests import helpers
from tests.trainer import processes
from trainer.evaluation.predictions import read_predictions

COUNTS = {f"fold{k}": (4, 5, 6, 3) for k in range(3)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


def _train(data, run_dir, *flags):
    return processes.run(
        "trainer.main", f"--data_dir={data.path}", f"--run_dir={run_dir}", "--epochs=1", *flags
    )


@pytest.mark.slow
def test_every_image_is_tested_once_over_the_folds(data, tmp_path):
    tested = {}
    for fold in range(3):
        run_dir = tmp_path / f"run{fold}"
        result = _train(data, run_dir, f"--fold={fold}", "--batch_size=6")
        assert result.returncode == 0, result.stderr
        content = json.loads((run_dir / "config.json").read_text())
        assert (content["config"]["fold"], content["dataset"]["folds"]) == (fold, 3)
        assert content["dataset"]["counts"]["train"] == [4, 5, 6, 3]
        tested[fold] = read_predictions(str(run_dir / "predictions_test.csv")).ids
        validated = read_predictions(str(run_dir / "predictions_validation.csv")).ids
        assert {name.split("/")[1].split("-")[0] for name in tested[fold]} == {f"fold{fold}"}
        assert all(f"fold{(fold + 1) % 3}-" in name for name in validated)
    pooled = [name for ids in tested.values() for name in ids]
    assert len(pooled) == len(set(pooled)) == 3 * 18
    other = _train(data, tmp_path / "run0", "--fold=1", "--batch_size=6")
    assert other.returncode == 2
    assert "--fold: 0 there, 1 here" in other.stderr


def test_a_missing_fold_is_refused_by_name(data, tmp_path):
    result = _train(data, tmp_path / "run")
    assert result.returncode == 2
    assert "choose the test fold with --fold" in result.stderr
    assert not (tmp_path / "run").exists()
