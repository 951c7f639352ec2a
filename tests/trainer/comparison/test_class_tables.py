"""A comparison of hundreds of classes ends: its tables show some classes, a CSV file has all."""

import csv
import os
import time

import pytest

from cxr_tfrecords.pages.class_lists import ROWS
from tests.trainer import fake_run, fake_study
from trainer.comparison import class_tables
from trainer.comparison.markdown_text import markdown
from trainer.comparison.page.page import render
from trainer.comparison.page.probabilities import probabilities, thresholds


def _study(folder, classes, resamples):
    """(content, entries) of two runs; the first classes have most images."""
    names = [f"class {number:03}" for number in range(classes)]
    test = [2 + 40 * (number < 3) + (number < classes - 3) for number in range(classes)]
    counts = {"train": [3 * n for n in test], "validation": test, "test": test}
    paths = [
        fake_run.write_run(
            os.path.join(folder, sampler),
            class_names=names,
            counts=counts,
            planned=counts["train"],
            rng_seed=number,
            sampler=sampler,
            backbone="tiny",
        )
        for number, sampler in enumerate(("none", "oversample"))
    ]
    return fake_study.compare(paths, resamples)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return _study(tmp_path_factory.mktemp("many"), ROWS + 5, 10)[0]


def _rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_tables_show_the_largest_and_the_smallest_classes_and_say_so(content):
    shown, names = class_tables.shown_names(content), content["class_names"]
    assert len(shown) == ROWS
    assert {*names[:3], *names[-3:]} <= set(shown)
    hidden = next(name for name in names if name not in shown)
    said = f"Of {len(names)} classes, the {ROWS // 2} with most images and the {ROWS // 2} with"
    text = markdown(content)
    for part, heading in ((text, "## Recall by class"), (text, "## Operating points")):
        section = part.split(heading)[1].split("\n## ")[0]
        assert shown[0] in section
        assert hidden not in section
    assert said in text
    assert "comparison_classes.csv has all" in text
    widest = max(line.count("|") for line in text.splitlines())
    assert widest < 25
    for section in (probabilities, thresholds):
        page = "".join(section(content))
        assert shown[-1] in page
        assert said in page
        assert hidden not in page


def test_few_classes_are_columns_and_all_are_shown(tmp_path):
    content, _ = fake_study.compare(fake_study.write_study(tmp_path, seeds=(0,)), 10)
    text = markdown(content)
    section = text.split("## Recall by class\n\n")[1]
    assert section.startswith("| method | COVID | Lung_Opacity | Normal | * Viral Pneumonia |\n")
    assert "comparison_classes.csv" not in text


@pytest.mark.slow
def test_the_csv_file_has_the_figures_of_all_classes(content, tmp_path):
    path = str(tmp_path / "classes.csv")
    class_tables.write_classes(path, content)
    rows = _rows(path)
    assert {row["class"] for row in rows} == set(content["class_names"])
    found = {(row["class"], row["method"], row["figure"]): row for row in rows}
    for name in (content["class_names"][0], content["class_names"][-1]):
        for kind in ("recall", "auprc"):
            row = found[name, "oversample", kind]
            one = content["entries"]["oversample"]["metrics"][f"{kind}/{name}"]
            other = content["differences"]["oversample"]["metrics"][f"{kind}/{name}"]
            for column, value in (
                *((key, one[key]) for key in ("estimate", "low", "high")),
                ("difference", other["estimate"]),
                ("p", other["p_holm"]),
            ):
                assert row[column] == ("" if value is None else str(value)), (name, kind, column)
        assert found[name, "none", "recall"]["difference"] == ""
        point = content["entries"]["none"]["operating_points"][name][0]
        row = found[name, "none", "sensitivity at the threshold"]
        assert (row["seed"], row["low"]) == ("0", str(point["sensitivity"]["low"]))
        line = content["entries"]["none"]["probabilities"]["calibrated"]
        slope = line[f"calibration_slope/{name}"]["estimate"]
        assert found[name, "none", "calibration_slope calibrated"]["estimate"] == (
            "" if slope is None else str(slope)
        )


@pytest.mark.slow
def test_a_comparison_of_500_classes_ends(tmp_path):
    started = time.process_time()
    content, entries = _study(tmp_path, 500, 2000)
    page = render(content, entries, gallery=False)
    assert time.process_time() - started < 240
    assert len(page) < 6e6
    assert len(markdown(content)) < 1e6
