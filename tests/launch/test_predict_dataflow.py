"""launch/predict_dataflow.sh, run by bash with stand-ins for the programs that it starts."""

from __future__ import annotations

import re
import shlex

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from tests.launch.shell import LAUNCH, Shell, assert_refused

SCRIPT = "predict_dataflow.sh"
OWN = ["--model=runs/a,runs/b", "--input=gs://bucket/in", "--output=gs://bucket/out.csv"]
JOB = ["--project=proj-1", "--region=europe-west4", "--temp_location=gs://tmp/t"]
JOB += ["--sdk_container_image=registry.example/cxr-balance:1"]
ADDED = ["--sdk_location=container", "--experiments=no_use_multiple_sdk_containers"]


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def test_the_prediction_gets_the_job_and_what_stands_after_two_dashes(shell):
    rest = ["--deploy_prior=A=0.5,B=0.5", "--worker_threads=16"]
    done = shell.script(SCRIPT, *OWN, *JOB, "--", *rest)
    assert done.returncode == 0, done.stderr
    expected = ["--runner=DataflowRunner", *OWN, *JOB, *ADDED, *rest]
    assert shell.calls()[-1] == ["python3", "-m", "beam_pipelines.predict", *expected]
    printed = shell.script(SCRIPT, "--dry_run", *OWN, *JOB, "--", *rest)
    assert shlex.split(printed.stdout)[2:] == ["python3", "-m", "beam_pipelines.predict", *expected]
    assert shell.calls() == []


def test_beam_knows_every_option():
    command = ["--runner=DataflowRunner", *JOB, "--max_num_workers=9", *ADDED]
    options = PipelineOptions(command)
    known = options.get_all_options(drop_default=True)
    assert len(known) == len(command)
    assert options.get_all_options(drop_default=True, retain_unknown_options=True) == known


def test_help_tells_the_command_the_price_and_every_option(shell):
    shown = shell.script(SCRIPT, "--help").stdout
    assert f"launch/{SCRIPT} --model" in shown
    assert "USD" in shown
    text = (LAUNCH / SCRIPT).read_text().replace("\\\n", " ")
    for name in re.search(r'read_options "(.+?)"', text).group(1).split():
        assert f"--{name}" in shown


@pytest.mark.parametrize("option", [*OWN, *JOB])
def test_a_missing_option_is_named(shell, option):
    given = [one for one in (*OWN, *JOB) if one != option]
    assert_refused(shell.script(SCRIPT, *given), f"missing option {option.split('=')[0]};")


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--output=out.csv", "do not see this machine's disk"),
        ("--temp_location=gs://bucket", "must be gs://BUCKET/FOLDER"),
        ("--deploy_prior=A=1", "those of the prediction go after --"),
    ],
)
def test_a_value_that_cannot_work_is_refused(shell, argument, part):
    assert_refused(shell.script(SCRIPT, *OWN, *JOB, argument), part)


def test_a_login_that_is_missing_is_told(shell):
    done = shell.script(SCRIPT, *OWN, *JOB, fails="default print-access")
    assert_refused(done, "gcloud auth application-default login")
