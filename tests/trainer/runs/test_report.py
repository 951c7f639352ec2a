"""The report of a finished run says what its files say, and what they do not."""

import dataclasses
import functools
import html
import re
import shlex

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from tests.trainer import fake_run
from tests.trainer.conftest import PICTURES
from trainer.runs import report
from trainer.runs.finished_run import read_run
from trainer.settings.config import TrainConfig


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return fake_run.write_run(tmp_path_factory.mktemp("run"))


@functools.cache
def _text(run_dir) -> str:
    with open(report.write_report(run_dir), encoding="utf-8") as file:
        return file.read()


def test_figures_are_those_of_the_metrics(run_dir):
    text, test = _text(run_dir), read_run(run_dir).metrics["test"]
    assert f"accuracy **{test['accuracy']:.1%}**" in text
    assert f"balanced accuracy **{test['balanced_accuracy']:.1%}**" in text
    for name, values in test["per_class"].items():
        (row,) = re.findall(rf"^\| {name} \| {values['support']:,} \|.*$", text, re.MULTILINE)
        for key in ("recall", "precision", "specificity", "f1"):
            assert f"| {values[key]:.1%} [" in row
        assert f"| {values['auroc']:.4f} [" in row
    assert f"| {test['auroc_macro']:.4f} [" in text


def test_tables_have_as_many_cells_in_each_row(run_dir):
    for table in re.findall(r"(?:^\|.*\n)+", _text(run_dir), re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table


def test_every_picture_that_a_run_has_is_in_the_report(run_dir):
    assert sorted(re.findall(r"\]\(([\w.]+\.png)\)", _text(run_dir))) == sorted(PICTURES)


def test_interval_of_the_accuracy_is_wilsons(run_dir):
    confusion = np.array(read_run(run_dir).metrics["test"]["confusion_matrix"])
    total = confusion.sum()
    low, high = proportion_confint(np.trace(confusion), total, method="wilson")
    shown = re.search(r"accuracy \*\*[\d.]+%\*\* \(([\d.]+)% to ([\d.]+)%", _text(run_dir))
    assert [float(end) / 100 for end in shown.groups()] == pytest.approx([low, high], abs=0.0011)


def test_classes_of_few_groups_are_marked(tmp_path):
    counts = {**fake_run.COUNTS, "test": [50, 60, 70, 9]}
    text = _text(fake_run.write_run(tmp_path, counts=counts))
    assert "| Viral Pneumonia * | 9 |" in text
    assert text.count("fewer than 15 groups") == 1


def test_the_command_shown_gives_the_same_settings():
    config = TrainConfig(
        data_dir="a folder/data",
        backbone="mobilenet_v2",
        sampler="weighted",
        target_distribution=(("COVID", 0.5), ("Viral Pneumonia", 0.5)),
        head_units=(256, 64),
        flip=False,
        weights="w.h5",
        seed=3,
    )
    words = shlex.split(report.describe_command(config).replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "trainer.main"]
    given = dict(w.removeprefix("--").partition("=")[::2] for w in words[3:])
    assert given["target_distribution"] == "COVID=0.5,Viral Pneumonia=0.5"
    assert given["head_units"] == "256,64"
    assert "noflip" in given
    named = {f.name for f in dataclasses.fields(TrainConfig)}
    assert {name.removeprefix("no") for name in given} <= named
    assert "epochs" not in given, "defaults make the command long"


def test_unit_of_the_split_and_balanced_splits_are_told(run_dir, tmp_path):
    assert "test images at natural prevalence" in _text(run_dir)
    told = {"split_unit": "group of copies; patients are not known", "balanced_splits": ["test"]}
    text = _text(fake_run.write_run(tmp_path / "balanced", dataset=told))
    assert "test images at balanced classes" in text
    assert "Validation is at natural prevalence, test at balanced" in text
    assert "Unit of the split: group of copies; patients are not known. All images of" in text


def test_counts_of_changing_shares_are_those_of_the_first_and_the_last_epoch(tmp_path):
    natural = fake_run.COUNTS["train"]
    options = {"sampler": "progressive", "epochs": len(fake_run.LOSSES), "planned": natural}
    text = _text(fake_run.write_run(tmp_path, **options))
    assert "| train, after progressive, epoch 1 | train, after progressive, epoch 8 |" in text
    assert "| Viral Pneumonia | 832 | 218 | 276 | 832 | 3,386 | 827 |" in text
    assert "| all | 13,545 | 3,387 | 4,233 | 13,545 | 13,545 | 13,525 |" in text


@pytest.mark.parametrize(
    ("sampler", "planned", "warns"),
    [("oversample", [7137, 7650, 6509, 6656], True), ("none", fake_run.COUNTS["train"], False)],
)
def test_changed_class_mix_asks_for_recalibration(tmp_path, sampler, planned, warns):
    text = _text(fake_run.write_run(tmp_path, sampler=sampler, planned=planned))
    assert ("Recalibrate" in text) == warns


def test_recomputation_shown_in_the_report_runs_and_agrees(run_dir, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", _text(run_dir), re.DOTALL).group(1)
    monkeypatch.chdir(run_dir)
    exec(code)
    assert str(read_run(run_dir).metrics["test"]["accuracy"]) in capsys.readouterr().out


def test_names_of_classes_are_shown_as_they_are(tmp_path):
    names = ["<img src=x onerror=alert(1)>", "a|b", "*_c_*", "Lung_Opacity"]
    counts = {split: [50, 60, 70, 9] for split in ("train", "validation", "test")}
    dataset = {"path": "d`<b>\n```\n# `"}
    path = fake_run.write_run(tmp_path, class_names=names, counts=counts, dataset=dataset)
    text = _text(path)
    assert "\n```\n# `" not in text
    assert "```` d`<b> ``` # ` ````, 96 px" in text
    rows = re.findall(r"^\| ([^|]+) \| (?:50|60|70) \| \d+\.\d%", text, re.MULTILINE)
    assert [html.unescape(name) for name in rows] == 2 * names[:3]
    tables = text[: text.index("## Computing them again")]
    assert "<img" not in tables
    assert "| Lung_Opacity * |" in tables
