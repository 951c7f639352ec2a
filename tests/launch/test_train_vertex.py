"""launch/train_vertex.sh with a gcloud that plays the jobs."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import pytest

from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.train_shell import TrainShell

yaml = pytest.importorskip("yaml", reason="needs pyyaml: pip install -e '.[dev]'")
SCRIPT = str(LAUNCH / "train_vertex.sh")
NEEDED = [
    SCRIPT,
    "--job_name=first",
    "--project=p",
    "--region=r",
    "--image=registry.example/cxr:1",
    "--data_dir=gs://b/data dir",
    "--run_dir=gs://b/runs/first",
    "--poll_seconds=1",
]
ODD = ['--odd=it\'s & "x" \\ $HOME $(id)', "--weights=: #"]
# $BEHAVIOUR sets state and reason for job number $attempt. A job runs for one look.
GCLOUD = r"""
printf '%s\n' "> gcloud" "$@" >>"$CALLS"
case "$1 $2 $3" in
  "auth print-access-token ") exit ;;
  "ai custom-jobs create")
    echo >>"$NOTES/created"
    for word; do [[ "$word" != --config=* ]] || cp "${word#*=}" "$NOTES/config"; done
    rm -f "$NOTES/seen"
    echo "projects/1/locations/r/customJobs/$(wc -l <"$NOTES/created")" ;;
  "ai custom-jobs describe")
    attempt="${4##*/}" state=JOB_STATE_SUCCEEDED reason=""
    eval "$BEHAVIOUR"
    if [[ "$*" == *error.message* ]]; then echo "$reason"
    elif [[ -e "$NOTES/seen" ]]; then echo "$state"
    else echo >"$NOTES/seen"; echo JOB_STATE_RUNNING; fi ;;
  *) exit 64 ;;
esac
"""


def failing(status, until):
    message = f"The replica workerpool0-0 exited with a non-zero status of {status}. Termination"
    return f"if ((attempt < {until})); then state=JOB_STATE_FAILED; reason='{message}'; fi"


@pytest.fixture
def vertex(tmp_path):
    shell = TrainShell(tmp_path)
    (shell.bin / "mktemp").symlink_to(shutil.which("mktemp"))
    shell.stand_in("gcloud", GCLOUD)
    shell.stand_in("sleep", f"exec {shutil.which('sleep')} 0.02\n")  # of --poll_seconds
    return shell


def created(shell):
    path = shell.notes / "created"
    return len(path.read_text()) if path.exists() else 0


def test_the_job_has_a_chief_and_workers_with_their_flags(vertex):
    done = vertex.train(*NEEDED, "--workers=3", "--spot=yes", "--", *ODD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "results: gs://b/runs/first" in done.stdout
    content = yaml.safe_load((vertex.notes / "config").read_text())
    assert [pool["replicaCount"] for pool in content["workerPoolSpecs"]] == [1, 2]
    for pool in content["workerPoolSpecs"]:
        assert pool["machineSpec"] == {
            "machineType": "g2-standard-12",
            "acceleratorType": "NVIDIA_L4",
            "acceleratorCount": 1,
        }
        assert pool["containerSpec"] == {
            "imageUri": "registry.example/cxr:1",
            "command": ["python", "-m", "trainer.main"],
            "args": [
                "--data_dir=gs://b/data dir",
                "--run_dir=/gcs/b/runs/first",
                "--strategy=multi_worker",
                *ODD,
            ],
        }
    assert content["scheduling"] == {"restartJobOnWorkerRestart": True, "strategy": "SPOT"}


def test_one_machine_needs_no_cluster(vertex):
    assert vertex.train(*NEEDED).returncode == 0
    content = yaml.safe_load((vertex.notes / "config").read_text())
    (pool,) = content["workerPoolSpecs"]
    assert "--strategy=mirrored" in pool["containerSpec"]["args"]
    assert "strategy" not in content["scheduling"]


def test_code_75_starts_the_job_anew(vertex):
    done = vertex.train(*NEEDED, behaviour=failing(75, 3))
    assert done.returncode == 0
    assert created(vertex) == 3


@pytest.mark.parametrize("status", [2, 7, 175, 755])
def test_another_failure_ends_with_vertexs_reason(vertex, status):
    done = vertex.train(*NEEDED, behaviour=failing(status, 9))
    assert done.returncode == 1
    assert f"status of {status}" in done.stderr
    assert created(vertex) == 1


@pytest.mark.slow
def test_endless_preemption_ends(vertex):
    done = vertex.train(*NEEDED, "--max_restarts=1", behaviour=failing(75, 9))
    assert done.returncode == 75
    assert created(vertex) == 2


def test_dry_run_prints_the_configuration_and_the_command(vertex):
    done = vertex.train(*NEEDED, "--dry_run", "--", *ODD)
    assert (done.returncode, done.stderr, vertex.calls()) == (0, "", [])
    *text, command = done.stdout.splitlines()
    assert shlex.split(command)[:4] == ["gcloud", "ai", "custom-jobs", "create"]
    assert vertex.train(*NEEDED, "--", *ODD).returncode == 0
    assert (vertex.notes / "config").read_text().splitlines() == text


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--run_dir=run", "gs://BUCKET/FOLDER"),
        ("--data_dir=gs://b", "gs://BUCKET/FOLDER"),
        ("--image=a: b", "is not a name"),
        ("--spot=maybe", "yes or no"),
        ("--workers=0", "from 1"),
    ],
)
def test_a_value_that_cannot_work_is_refused(vertex, argument, part):
    assert_refused(vertex.train(*NEEDED, argument), argument.split("=")[0], part)
    assert vertex.calls() == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Google Cloud SDK")
def test_gcloud_itself_knows_every_flag(vertex):
    """The SDK's own parser, offline: nothing is sent."""
    create = vertex.train(*NEEDED, "--dry_run").stdout.splitlines()[-1]
    config = vertex.folder / "config.yaml"
    config.write_text("workerPoolSpecs: []\n")
    job = "projects/1/locations/r/customJobs/1"
    for command in (
        create.replace("FILE_WITH_THE_ABOVE", str(config)),
        f"gcloud ai custom-jobs describe {job} --project=p --region=r --format='value(state)'",
        f"gcloud ai custom-jobs stream-logs {job} --region=r",
    ):
        done = subprocess.run(
            ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        (answer,) = json.loads(done.stdout)
        assert answer["success"], answer["error_message"]
