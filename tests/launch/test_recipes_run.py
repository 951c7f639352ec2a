"""Every recipe trains to its report, on images of a few pixels with the smallest network."""

import os
import shlex
import subprocess
import sys

import pytest

from tests.helpers import write_dataset
from tests.launch.shell import LAUNCH
from tests.trainer import processes

SMALL = ("--weights=none", "--epochs=1", "--batch_size=8")
TINY = ("--backbone=tiny", *SMALL)
# `hariyani` takes a step with its own ResNet50 in tests/trainer/comparison/recipes/test_recipes.py.
ALONE = ("wuisan_a", "wuisan_b_initial", "wuisan_b", "wuisan_c", "chowdhury_2class")
ALONE += ("chowdhury_3class",)
RUNS = ["--data_dir=DATA", "--run_dir=RUN"]
SCRIPTS = {  # flags for classes and sizes that are there; what must be there afterwards
    "basu": (
        [
            *RUNS,
            "--first_data_dir=LARGE",
            "--first_map=Lung_Opacity:Ill,COVID:Ill,Viral Pneumonia:Ill",
            "--backbone=tiny",
        ],
        ["RUN/first/report.md", "RUN/second/report.md"],
    ),
    "covid_resnet": ([*RUNS, "--sizes=16 24"], ["RUN/16/report.md", "RUN/24/report.md"]),
    "hammoudi": (
        [*RUNS, "--backbones=tiny", "--classes=Normal,Lung_Opacity,Viral Pneumonia"],
        ["RUN/tiny/report.md", "RUN/tiny-blind/evaluation.md"],
    ),
    "shelke": (
        [
            "--data_dir=DATA",
            "--cascade_dir=DIR",
            "--first=Normal, Pneumonia",
            "--second=COVID, Other=Viral Pneumonia+Lung_Opacity",
            "--third=none",
            "--backbones=tiny tiny tiny",
        ],
        ["DIR/first/report.md", "DIR/Pneumonia/report.md", "DIR/cascade.md"],
    ),
    "rahman": (
        [
            "--input_dir=IMAGES",
            "--output_dir=BUILDS",
            "--run_dir=RUN",
            "--image_size=24",
            "--enhancements=bcet",
        ],
        ["RUN/bcet-none/report.md", "RUN/bcet-lungs/report.md"],
    ),
}
OWN_FLAGS = {"basu": SMALL, "shelke": SMALL, "hammoudi": ("--head=rnn", "--rnn_units=4", *SMALL)}


def run(module, *flags):
    done = processes.run(module, *flags)
    assert done.returncode == 0, f"{module} {shlex.join(flags)}\n{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """DATA and LARGE, data sets of the four classes, and IMAGES with lung masks."""
    folder = tmp_path_factory.mktemp("recipes")
    write_dataset(folder / "DATA", image_size=24)
    write_dataset(folder / "LARGE", image_size=24, seed=1)
    run("cxr_tfrecords.synthetic", f"--output_dir={folder / 'IMAGES'}", "--synthetic_scale=0.004")
    return folder


def test_every_recipe_is_here():
    names = {path.name.partition(".")[0] for path in LAUNCH.glob("recipes/*.*s*")}
    assert names - {"recipe", "reported"} == {*ALONE, *SCRIPTS, "hariyani"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_a_recipe_of_one_training(name, folder, tmp_path):
    flags = [f"--flagfile={LAUNCH}/recipes/{name}.flags", f"--data_dir={folder / 'DATA'}"]
    run("trainer.main", *flags, f"--run_dir={tmp_path}/run", *TINY)
    assert (tmp_path / "run" / "report.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recipe_of_several_commands(name, folder, tmp_path, monkeypatch):
    """The commands that --dry_run prints, one after the other."""
    options, files = SCRIPTS[name]
    monkeypatch.chdir(tmp_path)
    for link in ("DATA", "LARGE", "IMAGES"):
        os.symlink(folder / link, link)
    script = [LAUNCH / f"recipes/{name}.sh", *options, "--dry_run", "--"]
    environment = {**os.environ, "PYTHON": sys.executable}
    printed = subprocess.run(
        [*script, *OWN_FLAGS.get(name, TINY)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in printed.stdout.splitlines():
        words = shlex.split(line)
        run(*words[words.index("-m") + 1 :])
    assert [file for file in files if not os.path.exists(file)] == []
    if name == "shelke":
        page = (tmp_path / "DIR" / "cascade.md").read_text()
        assert [figure in page for figure in ("95.9%", "98.9%")] == [True, True]
