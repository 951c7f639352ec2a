"""A study reuses a run only if it would train the same run again."""

import json
import os
import pathlib
import shutil

import pytest

from cxr_tfrecords.errors import UserError
from tests.helpers import COUNTS, write_dataset
from tests.trainer import processes
from tests.trainer.fake_study import decouple_cell, finish_cell
from trainer.comparison import method_grid, study_cells, study_checks
from trainer.comparison.page.paper import read_paper
from trainer.comparison.study_cells import Study

METHODS = ("none", "oversample", "posthoc_logit_adjusted")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), image_size=24)


def make_study(folder, data, *flags, methods=METHODS):
    methods = [method_grid.parse_method(name) for name in methods]
    common = [f"--data_dir={data.path}", "--batch_size=8", *flags]
    cells = method_grid.make_grid(methods, [0], ["tiny"])
    return Study(str(folder / "study"), {None: data}, common, cells)


@pytest.fixture
def finished(tmp_path, data):
    study = make_study(tmp_path, data, "--epochs=2")
    for cell in study.cells:
        decouple_cell(study, cell) if cell.method.decoupled else finish_cell(study, cell)
    return study


def refusal(study):
    with pytest.raises(UserError) as caught:
        study_checks.check_same_study(study)
    assert "They were left as they are" in str(caught.value)
    return str(caught.value)


def test_the_same_settings_are_the_same_study(finished, tmp_path, data):
    study_checks.check_same_study(finished)
    study_checks.check_same_study(make_study(tmp_path, data, "--epochs=2", "--strategy=auto"))
    more = make_study(tmp_path, data, "--epochs=2", methods=(*METHODS, "focal", "crt"))
    study_checks.check_same_study(more)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--epochs=3", "--epochs: 2 there, 3 here"),
        ("--learning_rate=0.01", "--learning_rate: 0.001 there, 0.01 here"),
        ("--steps_per_epoch=5", "--steps_per_epoch: 0 there, 5 here"),
    ],
)
def test_other_settings_are_refused_for_all_runs_decoupled_ones_too(
    finished, tmp_path, data, flag, text
):
    told = refusal(make_study(tmp_path, data, "--epochs=2", flag))
    assert f"  {text} (tiny-none-seed0, tiny-oversample-seed0, tiny-posthoc_logit" in told


def test_other_data_are_refused_and_the_same_data_elsewhere_are_not(finished, tmp_path, data):
    moved = write_dataset(tmp_path / "moved", image_size=24)
    study_checks.check_same_study(make_study(tmp_path, moved, "--epochs=2"))
    other = write_dataset(tmp_path / "other", image_size=24, seed=1)
    assert "--data_dir: " in refusal(make_study(tmp_path, other, "--epochs=2"))


def test_an_unfinished_run_counts_once_it_has_a_checkpoint(finished, tmp_path, data):
    cell = finished.cells[1]
    os.remove(os.path.join(finished.run_dir(cell), "report.md"))
    other = make_study(tmp_path, data, "--epochs=3", methods=("oversample",))
    study_checks.check_same_study(other)  # trainer.main starts such a run anew
    os.makedirs(os.path.join(finished.run_dir(cell), "checkpoints", "resume", "epoch-1"))
    assert "--epochs: 2 there, 3 here (tiny-oversample-seed0)" in refusal(other)
    study_checks.check_same_study(finished)


def test_a_decoupled_run_must_come_from_the_run_that_is_there(finished, tmp_path):
    none, _, decoupled = finished.cells
    (pathlib.Path(finished.run_dir(none)) / "model.keras").write_text("another model")
    told = refusal(finished)
    assert "tiny-none-seed0, was trained again since (tiny-posthoc_logit_adjusted-seed0)" in told
    shutil.rmtree(finished.run_dir(decoupled))
    shutil.copytree(finished.run_dir(none), finished.run_dir(decoupled))
    assert "holds a run of trainer.main (tiny-posthoc" in refusal(finished)


def test_a_decoupled_run_with_other_flags_is_refused(finished):
    decouple_cell(finished, finished.cells[2], flags={"tau": 0.5})
    assert "trainer.decouple: {'tau': 0.5} there, {'tau': 1.0} here" in refusal(finished)


def test_a_damaged_settings_file_is_named(finished):
    for cell in finished.cells[:2]:
        (pathlib.Path(finished.run_dir(cell)) / "config.json").write_text("[]")
    assert "config.json is damaged" in refusal(finished)


def test_the_command_refuses_other_settings_and_reuses_the_same(tmp_path, data):
    flags = [f"--data_dir={data.path}", f"--study_dir={tmp_path / 'study'}", "--resamples=100"]
    flags += ["--methods=none,oversample", "--seeds=0", "--batch_size=8", "--epochs=2"]
    common = ["--epochs=2", "--monitor=validation_balanced_accuracy"]
    common += ["--steps_per_epoch=5", "--early_stopping_patience=0", "--reduce_lr_patience=0"]
    study = make_study(tmp_path, data, *common, methods=METHODS[:2])
    for cell in study.cells:
        finish_cell(study, cell)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*")}
    refused = processes.run("trainer.compare", *flags, "--budget=epochs")
    assert (refused.returncode, refused.stdout) == (2, ""), refused.stdout
    assert "holds runs that this command would not make" in refused.stderr
    missing = tmp_path / "missing.json"
    for flag, text in (
        ("--benefit_class=Covid", f"name one of {', '.join(data.class_names)}"),
        ("--reference=focal", "--reference=focal is not one of none, oversample"),
        (f"--paper_tables={missing}", f"--paper_tables={missing}: {missing}: No such file"),
    ):
        unknown = processes.run("trainer.compare", *flags, flag, "--seeds=7")
        assert (unknown.returncode, unknown.stdout) == (2, ""), unknown.stdout
        assert text in unknown.stderr
        assert unknown.stderr.count("\n") == 1
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*")}
    assert after == before
    same = processes.run("trainer.compare", *flags)
    assert same.returncode == 0, same.stderr
    assert "2 runs, 2 of them finished already" in same.stdout


def test_flags_of_the_comparison_must_fit_the_classes(data):
    first, *others = data.class_names
    shares = [f"{name}=0.1" for name in others]
    study_checks.check_classes(data, "", [])
    study_checks.check_classes(data, first, [f"{first}=0.7", *shares])
    for flag, *given in (("benefit_class", "Covid", []), ("deploy_prior", "", shares)):
        with pytest.raises(UserError, match=f"--{flag}=.*{first}, {others[0]}"):
            study_checks.check_classes(data, *given)


def test_names_must_be_methods_of_the_comparison():
    study_checks.check_names(["none", "none", "focal"], "focal")
    with pytest.raises(UserError, match=r"^1 method: at least 2 are needed"):
        study_checks.check_names(["none", "none"], "")
    with pytest.raises(UserError, match=r"^--reference=focal is not one of a \(x\), a \(y\)$"):
        study_checks.check_names(["a (x)", "a (y)"], "focal")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "must hold class_names and models"),
        ({"table_XIII_recall_percent": []}, "another layout .*AttributeError"),
        ({"table_V_train_after_sampling": {"none": 3}}, "another layout"),
    ],
)
def test_a_papers_tables_are_read_before_training(tmp_path, content, text):
    path = tmp_path / "tables.json"
    tables = {
        "class_order": ["a", "b"],
        "confusion_matrices_rows_actual": {"A": [[3, 1], [0, 4]]},
        "table_I_class_counts": {"a": 9, "b": 9},
    }
    path.write_text(json.dumps(tables))
    assert list(read_paper(str(path)).models) == ["A"]
    path.write_text(json.dumps(content and {**tables, **content}))
    with pytest.raises(UserError, match=f"^--paper_tables={path}: .*{text}"):
        read_paper(str(path))


def untrainable(study):
    with pytest.raises(UserError) as caught:
        study_checks.check_trainable(study, study.cells)
    return str(caught.value)


def test_all_runs_that_cannot_be_trained_are_listed_at_once(tmp_path):
    data = write_dataset(tmp_path / "data", {**COUNTS, "train": (40, 0, 30, 6)}, image_size=24)
    methods = ("none", "undersample+focal", "oversample", "focal", "crt")
    study = make_study(tmp_path, data, "--batch_size=32", methods=methods)
    told = untrainable(study)
    assert told.startswith("2 of the 5 runs cannot be trained. Nothing was trained.\n")
    assert "(tiny-undersample+focal-seed0" in told
    assert not os.path.exists(study.folder)
    weights = make_study(tmp_path, data, "--weights=none.h5", "--image_size=25", methods=methods)
    assert untrainable(weights).count("\n") >= 2
    assert "--image_size=25" in untrainable(weights)


def test_a_batch_larger_than_an_undersampled_epoch_is_told_before_training(tmp_path):
    data = write_dataset(tmp_path / "data", {**COUNTS, "train": (60, 8, 20, 4)}, image_size=24)
    study = make_study(tmp_path, data, "--batch_size=32", methods=("none", "undersample"))
    line = "--batch_size=32 must lie within 1 and the 16 images of an epoch"
    assert f"  {line} with --sampler=undersample (tiny-undersample-seed0)\n" in untrainable(study)


def test_paths_and_disk_are_checked(finished, tmp_path, data, monkeypatch):
    none, _, decoupled = finished.cells
    shutil.rmtree(finished.run_dir(decoupled))
    study_checks.check_trainable(finished, finished.cells)
    os.remove(os.path.join(finished.run_dir(none), "model.keras"))
    assert "model.keras is not there any more (tiny-posthoc" in untrainable(finished)

    file = tmp_path / "file"
    file.write_text("")
    assert f"{file} is not a folder (tiny-" in untrainable(make_study(file, data))
    remote = Study(
        "gs://bucket/study", {None: data}, [f"--data_dir={data.path}"], finished.cells[:1]
    )
    assert "name a --study_dir there" in untrainable(remote)

    new = make_study(tmp_path / "new", data)
    study_checks.check_trainable(new, new.cells)
    usage = shutil.disk_usage(tmp_path)._replace(free=9_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "0.0 GB are free" in untrainable(new)


def test_a_missing_weights_file_is_told_before_training(tmp_path, data):
    missing = make_study(tmp_path, data, "--weights=none.h5")
    refusal = untrainable(missing)
    assert "--weights=none.h5: no such file: give a file that exists, imagenet or none (" in refusal
    assert "(tiny-none-seed0, tiny-ov" in refusal


@pytest.mark.slow
def test_weights_that_do_not_fit_are_told_before_training(tmp_path, data):
    wrong = tmp_path / "wrong.h5"
    wrong.write_text("no weights")
    study = make_study(tmp_path, data, f"--weights={wrong}")
    assert "does not fit --backbone=tiny" in untrainable(study)


def test_a_method_and_seed_is_compared_once_all_its_folds_are_finished(tmp_path):
    counts = {f"fold{k}": (4, 5, 6, 3) for k in range(3)}
    path = write_dataset(tmp_path / "data", counts, image_size=24).path
    folds = study_cells.load_data(path, None, folds=True)
    grid = method_grid.parse_grid(["none", "oversample"], ["0"], ["tiny"], folds)
    flags = [f"--data_dir={path}", "--batch_size=6", "--epochs=2"]
    study = Study(str(tmp_path / "study"), folds, flags, grid, {k: 3 + k for k in folds})
    assert [study.config(cell).fold for cell in grid] == [0, 0, 1, 1, 2, 2]
    assert [study.config(cell).steps_per_epoch for cell in grid] == [3, 3, 4, 4, 5, 5]
    assert "tiny-none-fold2-seed0" in [cell.name for cell in grid]
    for cell in grid[:-1]:
        finish_cell(study, cell)
    study_checks.check_same_study(study)
    study_checks.check_trainable(study, study.cells)
    assert [cell.name for cell in study.comparable()] == [f"tiny-none-fold{k}-seed0" for k in folds]
    finish_cell(study, grid[-1])
    assert study.comparable() == grid
    finish_cell(study, grid[-1], fold=1)
    assert "--fold: 1 there, 2 here (tiny-oversample-fold2-seed0)" in refusal(study)
