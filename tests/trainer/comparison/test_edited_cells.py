"""Edited files in a study's cells are refused in lines that name the run, or change nothing."""

import json
import os
import shutil

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.damage import edit_csv, edit_json
from tests.helpers import write_dataset
from tests.trainer.fake_study import decouple_cell, finish_cell
from trainer.comparison import compare_methods, method_grid, study_checks
from trainer.comparison.markdown_text import markdown
from trainer.comparison.methods import group_runs
from trainer.comparison.study_cells import Study
from trainer.runs.finished_run import read_run

METHODS = ("none", "oversample", "tau_norm")
FILES = ("config.json", "metrics.json", "sampler_counts.json", "history.csv")
FILES += ("predictions_validation.csv", "predictions_test.csv")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of three finished cells, and what its comparison says."""
    folder = tmp_path_factory.mktemp("study")
    data = write_dataset(folder / "data", image_size=24)
    cells = method_grid.make_grid([method_grid.parse_method(m) for m in METHODS], [0], ["tiny"])
    study = Study(str(folder / "study"), {None: data}, [f"--data_dir={data.path}"], cells)
    for cell in cells:
        (decouple_cell if cell.method.decoupled else finish_cell)(study, cell)
    return study, _comparison(study)


def _comparison(study):
    """As `trainer.compare` makes it of finished cells, with few resamples."""
    study_checks.check_same_study(study)
    named = [(cell.method.name, read_run(study.run_dir(cell))) for cell in study.cells]
    content = compare_methods.compare(group_runs(named), reference="none", resamples=4)
    return json.loads(json.dumps(content)), markdown(content)


def _try_edits(study, folder, name, seed, count):
    """How many of `count` edits of a cell's file were refused."""
    one, before = study
    path, rng = os.path.join(folder, name), np.random.default_rng(seed)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        refused = sum(_is_refused(one, path, text, rng) for _ in range(count))
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    assert _comparison(one) == before
    return refused


def _is_refused(study, path, text, rng):
    words, data = (edit_json if path.endswith(".json") else edit_csv)(text, rng)
    with open(path, "wb") as file:
        file.write(data)
    run = message = os.path.basename(os.path.dirname(path))
    try:
        _comparison(study)
        refused = False
    except UserError as error:
        refused, message = True, str(error)
    several = f"--study_dir={study.folder} holds runs" in message
    assert several or "\n" not in message, words
    assert run in message, words
    return refused


@pytest.mark.parametrize("name", ["config.json"])
def test_a_few_edits_of_a_cell_are_refused_or_harmless(study, name):
    folder = study[0].run_dir(study[0].cells[2])
    assert _try_edits(study, folder, name, 0, 12) > 4


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cell", range(len(METHODS)))
def test_edits_of_a_cell_are_refused_or_harmless(study, cell, name):
    folder = study[0].run_dir(study[0].cells[cell])
    assert _try_edits(study, folder, name, cell, 20) > 5


@pytest.mark.slow
def test_a_file_of_a_cell_that_is_a_folder_or_gone_is_named(study):
    one, _ = study
    for cell in one.cells:
        for name in FILES:
            path = os.path.join(one.run_dir(cell), name)
            shutil.move(path, path + ".away")
            for make in (lambda _: None, os.mkdir):
                make(path)
                with pytest.raises(UserError) as caught:
                    _comparison(one)
                assert cell.name in str(caught.value)
            os.rmdir(path)
            shutil.move(path + ".away", path)
