"""--fold of trainer.main and --folds of trainer.compare: every image is tested exactly once."""

import json

import pytest

from tests import helpers
from tests.trainer import processes
from trainer.evaluation.predictions import compute_metrics, read_predictions

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
        assert f"gray; test fold {fold} of 3; train 18" in result.stdout
        assert f", test fold {fold} of 3, seed 0\n" in (run_dir / "report.md").read_text()
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


def _compare(*flags):
    return processes.run("trainer.compare", *map(str, flags))


@pytest.mark.slow
def test_a_study_pools_the_folds_of_each_method_and_seed(data, tmp_path):
    study = tmp_path / "study"
    flags = [f"--data_dir={data.path}", f"--study_dir={study}", "--epochs=1", "--batch_size=6"]
    flags += ["--seeds=0", "--resamples=100"]
    methods = "--methods=none,posthoc_logit_adjusted"
    one = _compare(*flags, methods, "--fold=1")
    assert one.returncode == 0, one.stderr
    assert "test fold 1 of 3" in (study / "comparison.md").read_text()
    all_folds = _compare(*flags, methods, "--folds")
    assert all_folds.returncode == 0, all_folds.stderr
    assert "6 runs, 2 of them finished already" in all_folds.stdout
    content = json.loads((study / "comparison.json").read_text())
    assert (content["folds"], content["test"]["images"]) == (3, 3 * 18)
    assert content["test"]["counts"] == [12, 15, 18, 9]
    for name, entry in content["entries"].items():
        paths = [f"{study}/runs/tiny-{name}-fold{k}-seed0" for k in range(3)]
        assert entry["runs"] == paths
    assert all(entry["updates"] == [3, 3, 3] for entry in content["entries"].values())
    other_dir = f"--study_dir={tmp_path / 'other'}"
    gathered = _compare(f"--runs={study}/runs/*", other_dir, "--resamples=100", "--folds")
    assert gathered.returncode == 0, gathered.stderr
    other = json.loads((tmp_path / "other" / "comparison.json").read_text())
    for name, entry in content["entries"].items():
        assert other["entries"][name]["metrics"] == entry["metrics"]
    (study / "runs" / "tiny-none-fold1-seed0" / "report.md").unlink()
    refused = _compare(f"--runs={study}/runs/*", other_dir)
    assert refused.returncode == 2
    assert "(none seed 0: fold 1)" in refused.stderr


def test_folds_that_do_not_fit_are_refused(data, tmp_path):
    plain = helpers.write_dataset(tmp_path / "plain")
    for path, flags, message in (
        (data.path, ["--fold=0", "--folds"], "give only one"),
        (data.path, [], "choose the test fold with --fold"),
        (data.path, ["--fold=3"], "--fold=3 is not one of them"),
        (plain.path, ["--folds"], "--folds: "),
    ):
        result = _compare(f"--data_dir={path}", f"--study_dir={tmp_path / 'study'}", *flags)
        assert result.returncode == 2
        assert message in result.stderr
        assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_each_fold_is_tuned_by_its_own_validation(data, tmp_path):
    study = tmp_path / "study"
    done = _compare(
        *(f"--data_dir={data.path}", f"--study_dir={study}", "--folds", "--tune=2", "--seeds=0"),
        *("--epochs=1", "--batch_size=6", "--resamples=100", "--methods=none,tau_norm"),
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((study / "comparison.json").read_text())
    assert (content["folds"], content["test"]["images"]) == (3, 3 * 18)
    tuned = content["tuning"]["methods"]
    assert list(tuned) == ["none"]  # tau_norm starts from the tuned run of its fold
    for name, folds in tuned.items():
        assert [one["fold"] for one in folds] == [0, 1, 2]
        for one in folds:
            scores = [each["validation"] for each in one["tries"]]
            assert scores[one["chosen"]] == max(scores)
            for number, each in enumerate(one["tries"]):
                path = study / "tuning" / f"tiny-{name}-fold{one['fold']}-try{number}-seed1000"
                predictions = read_predictions(str(path / "predictions_validation.csv"))
                after = (one["fold"] + 1) % 3  # the fold after the test fold is validation
                assert all(f"/fold{after}-" in image for image in predictions.ids)
                score = compute_metrics(predictions, content["class_names"])["balanced_accuracy"]
                assert each["validation"] == pytest.approx(score)
            chosen = one["tries"][one["chosen"]]["values"]
            for method in (name, "tau_norm"):
                run = study / "runs" / f"tiny-{method}-fold{one['fold']}-seed0" / "config.json"
                config = json.loads(run.read_text())["config"]
                assert {key: config[key] for key in chosen} == chosen
