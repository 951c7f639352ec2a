"""Recipes are read as trainer.main would read them, and compared with what their authors report."""

import glob
import json
import os
import pathlib

import pytest

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import flag_values
from tests.helpers import write_dataset
from tests.trainer import fake_study, processes
from trainer.comparison.markdown_text import markdown
from trainer.comparison.page.page import render
from trainer.comparison.recipes import description, read_recipes, text
from trainer.comparison.study_cells import parse_main_flags
from trainer.settings.config import TrainConfig

PATHS = sorted(glob.glob(os.path.join(read_recipes.FOLDER, "*.flags")))
HEADER = ("Source:", "What the authors did:", "What they report:", "What to expect", "Cost:", "Use")


def write_recipe(folder, name, flags):
    path = folder / f"{name}.flags"
    path.write_text(flags)
    return str(path)


@pytest.mark.parametrize("path", PATHS, ids=read_recipes.recipe_name)
def test_a_recipe_is_a_training_with_a_source(path):
    values = parse_main_flags([f"--flagfile={path}"])
    TrainConfig(**flag_values(TrainConfig, values=values))
    [((backbone, method),), _] = read_recipes.parse_recipes([read_recipes.recipe_name(path)], [])
    assert backbone == values["backbone"].value
    assert method.flags["batch_size"] == str(values["batch_size"].value)
    header = pathlib.Path(path).read_text()
    assert not [part for part in HEADER if f"# {part}" not in header]
    metrics = read_recipes.read_reported(path)["metrics"]
    assert 0 < metrics["accuracy"] < 1


def test_reported_figures_belong_to_recipes():
    names = files.read_json(os.path.join(read_recipes.FOLDER, read_recipes.REPORTED)).keys() - {
        "about"
    }
    scripts = glob.glob(os.path.join(read_recipes.FOLDER, "*.sh"))
    recipes = {os.path.basename(path).partition(".")[0] for path in (*PATHS, *scripts)}
    assert names == recipes - {"recipe"}  # recipe.sh holds what the scripts share


def test_reported_matrices_agree_with_reported_recall_and_precision():
    """A number that was copied with a mistake would not. To half a percent, as they are printed;
    but a precision that is printed as 98% is 98.97% by its matrix (wuisan_c, COVID).
    """
    for path in PATHS:
        one = read_recipes.read_reported(path)
        matrix = one["confusion_matrix"]
        for name, row in matrix.items():
            recall = row[name] / sum(row.values())
            precision = row[name] / sum(other[name] for other in matrix.values())
            assert recall == pytest.approx(one["metrics"][f"recall/{name}"], abs=0.0051), path
            assert precision == pytest.approx(one["metrics"][f"precision/{name}"], abs=0.0098), path


def test_given_flags_override_all_recipes_and_the_users_own_file_is_one(tmp_path):
    own = write_recipe(tmp_path, "mine", "# words\n--sampler=weighted\n--noflip\n--classes=A,B C\n")
    extra = ["--epochs=1", "--classes="]
    methods, chosen = read_recipes.parse_recipes(["wuisan_b", own], extra)
    assert [(backbone, method.name) for backbone, method in methods] == [
        ("mobilenet_v2", "wuisan_b"),
        ("tiny", "mine"),
    ]
    assert methods[1][1].flags == {
        "sampler": "weighted",
        "flip": "false",
        "epochs": "1",
        "classes": "",
    }
    assert methods[0][1].flags["epochs"] == "1"
    assert chosen == ((), ())
    [((_, method),), chosen] = read_recipes.parse_recipes([own], [])
    assert (method.flags["classes"], chosen[0]) == ("A,B C", ("A", "B C"))
    assert read_recipes.read_reported(own) == {}


@pytest.mark.parametrize(
    ("names", "extra", "message"),
    [
        (
            ["wuisan"],
            [],
            "wuisan.flags does not exist. Give the path of a .flags file, or one of b",
        ),
        (["wuisan_a", "wuisan_a"], [], "--recipes=wuisan_a,wuisan_a: name each once"),
        (["wuisan_a", "rahman"], [], r"all classes; rahman: --classes=COVID,Lung_Opacity,Normal\)"),
        (["wuisan_a"], ["--seed=1"], "--seed is set by the comparison, see --study_dir, --seeds"),
        (["bad"], [], "bad.flags: unknown flag --batchsize .did you mean --batch_size"),
        (["unread"], [], "reported.json: the part of unread must have a source"),
        (["uncounted"], [], "reported.json: the part of uncounted .* number.*'many'"),
    ],
)
def test_recipes_that_cannot_be_compared_are_refused(tmp_path, names, extra, message):
    reported = {
        "unread": {"metrics": {"accuracy": "high"}},
        "uncounted": {"source": "", "metrics": {}, "training_images": {"COVID": "many"}},
    }
    files.write_json(str(tmp_path / "reported.json"), reported)
    own = {
        "bad": write_recipe(tmp_path, "bad", "--batchsize=8\n"),
        "unread": write_recipe(tmp_path, "unread", "--batch_size=8\n"),
        "uncounted": write_recipe(tmp_path, "uncounted", "--batch_size=8\n"),
    }
    with pytest.raises(UserError, match=message):
        read_recipes.parse_recipes([own.get(name, name) for name in names], extra)


@pytest.mark.usefixtures("undrawn")
def test_page_and_text_show_reported_figures_and_what_is_confounded(tmp_path):
    reported = {
        "none": {
            "source": "A paper.",
            "metrics": {"recall/COVID": 0.5075, "recall/Flu": 0.9},
            "training_images": {"COVID": 1000, "Flu": 3000},
            "confusion_matrix": {"COVID": {"COVID": 30, "Flu": 10}, "Flu": {"COVID": 0, "Flu": 0}},
        }
    }
    files.write_json(str(tmp_path / "reported.json"), reported)
    names = ("none", "undersample", "oversample")
    paths = [write_recipe(tmp_path, name, f"--sampler={name}\n") for name in names]
    content, entries = fake_study.compare(fake_study.write_study(tmp_path, seeds=(0,)))
    entry = content["entries"]["undersample"]
    entry["config"] |= {"backbone": "mobilenet_v2", "features_dir": "elsewhere"}
    content["entries"]["oversample"]["updates"] = content["entries"]["none"]["updates"]
    content["recipes"] = description.describe_recipes(paths, content)
    content = json.loads(json.dumps(content))
    assert content["recipes"]["confounded"] == [
        "undersample differs from none in backbone (tiny → mobilenet_v2), sampler (none → "
        "undersample), number of updates. These are confounded: a difference of the figures cannot "
        "be put down to one of them.",
        "oversample differs from none in sampler (none → oversample).",
    ]
    measured = content["entries"]["none"]["metrics"]["recall/COVID"]["estimate"]
    [covid, flu] = text.reported_rows(content)
    assert covid[:3] == ["none", "recall, COVID", "50.75%"]
    assert covid[3].startswith(f"{measured:.1%}")
    assert flu == ["none", "recall, Flu", "90%", "–"]
    entry = content["entries"]["none"]
    [covid, flu] = text.count_rows(content)
    planned, total = entry["planned_last"][0], sum(entry["planned_last"])
    here = f"{planned:,} ({planned / total:.1%})"
    assert covid == ["none", "COVID", "1,000 (25.0%)", here]
    assert flu == ["none", "Flu", "3,000 (75.0%)", "–"]
    [(header, rows)] = text.matrix_tables(content)
    hits = entry["confusion_matrix"][0][0] / sum(entry["confusion_matrix"][0])
    assert header == ["none: true class", "COVID", "Flu"]
    assert rows == [["COVID", f"75.0% / {hits:.1%}", "25.0% / –"], ["Flu", "– / –", "– / –"]]
    for page in (
        render(content, entries, gallery=False),
        markdown(content) + text.markdown(content),
    ):
        assert "Which recipe does better? 3 recipes on" in page
        assert "These are confounded" in page
        assert "recall, Flu" in page
        assert "A paper." in page
        assert "1,000 (25.0%)" in page
        assert f"75.0% / {hits:.1%}" in page


@pytest.mark.slow
def test_two_recipes_are_trained_and_compared(tmp_path):
    data = write_dataset(tmp_path / "data", image_size=24)
    own = write_recipe(tmp_path, "own", "--sampler=undersample\n--batch_size=4\n")
    flags = [f"--data_dir={data.path}", f"--study_dir={tmp_path / 'study'}", "--resamples=100"]
    flags += [f"--recipes=wuisan_a,{own}", "--seeds=0", "--backbone=tiny", "--epochs=1"]
    done = processes.run("trainer.compare", *flags)
    assert done.returncode == 0, done.stderr
    content = files.read_json(str(tmp_path / "study" / "comparison.json"))
    configs = [content["entries"][name]["config"] for name in ("wuisan_a", "own")]
    assert [c["batch_size"] for c in configs] == [32, 4]
    assert [c["backbone"] for c in configs] == ["tiny", "tiny"]
    assert content["recipes"]["reported"]["wuisan_a"]["metrics"]["accuracy"] == 0.9558
    assert "2 runs, 2 of them finished" in processes.run("trainer.compare", *flags).stdout


@pytest.mark.slow
def test_a_recipe_trains_a_step(tmp_path):
    data = write_dataset(tmp_path / "data", image_size=32)
    flags = [f"--flagfile={read_recipes.recipe_path('hariyani')}", f"--data_dir={data.path}"]
    flags += [f"--run_dir={tmp_path / 'run'}", "--weights=none", "--epochs=1", "--strategy=cpu"]
    done = processes.run("trainer.main", *flags, "--steps_per_epoch=1", "--batch_size=4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.md").exists()
