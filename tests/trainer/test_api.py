"""The Python API does what docs/api.md says, and what the commands do."""

import json
import os
import re
import subprocess
import sys

import pytest

import cxr_tfrecords
import trainer
from tests.helpers import write_dataset
from tests.shared import ROOT
from tests.trainer import fake_study, processes


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    done = processes.run("-c", example, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^oversample 0\.\d+ 2 epochs$", done.stdout, re.MULTILINE)
    assert re.search(r"^[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]$", done.stdout, re.MULTILINE)
    assert "--sampler=oversampel" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_script_that_loads_a_model_shows_nothing_of_tensorflow():
    script = """
from trainer import Classifier
try:
    Classifier.load("nowhere")
except Exception as error:
    print(error)"""
    variables = {name: x for name, x in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=variables | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = "nowhere does not exist: name a finished run directory\n"
    assert (done.stdout, done.stderr) == (told, "")


def test_train_returns_what_read_run_reads(tmp_path):
    data = write_dataset(tmp_path / "data")
    config = trainer.TrainConfig(
        data_dir=data.path, run_dir=str(tmp_path / "run"), epochs=1, batch_size=8
    )
    run = trainer.train(config)
    assert run.config == config
    assert run == trainer.read_run(config.run_dir) == trainer.train(config)  # finished: only read


def test_train_raises_mistakes(tmp_path):
    with pytest.raises(cxr_tfrecords.UserError, match="nowhere"):
        trainer.train(trainer.TrainConfig(data_dir=str(tmp_path / "nowhere")))
    with pytest.raises(cxr_tfrecords.UserError, match=r"python -m trainer\.main"):
        trainer.train(trainer.TrainConfig(data_dir="data", strategy="multi_worker"))


@pytest.mark.slow
def test_compare_runs_gives_what_the_command_writes(tmp_path):
    paths = sorted(fake_study.write_study(tmp_path))  # as the command sorts them
    table = tmp_path / "table.csv"
    table.write_text("file,sex\n" + "".join(f"test-{i},{'FM'[i % 2]}\n" for i in range(104)))
    content = trainer.compare_runs(
        paths, resamples=100, subgroup_csv=table, subgroup_columns=["sex"]
    )
    flags = ["--resamples=100", f"--runs={tmp_path}/runs/*", f"--study_dir={tmp_path}"]
    flags += [f"--subgroup_csv={table}", "--subgroup_column=sex"]
    done = processes.run("trainer.compare", *flags)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "comparison.json", encoding="utf-8") as file:
        written = json.load(file)
    assert content.pop("reference") == written.pop("reference") == "none"
    assert content == written
    assert content["subgroups"]["columns"]["sex"]["subgroups"].keys() == {"F", "M"}
    with pytest.raises(cxr_tfrecords.UserError, match="at least 2"):
        trainer.compare_runs(paths[:1])
    with pytest.raises(cxr_tfrecords.UserError, match="undersampel"):
        trainer.compare_runs(paths, reference="undersampel")
