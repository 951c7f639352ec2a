"""launch/train_tpu.sh with a gcloud that keeps a TPU VM as a folder of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.train_shell import TrainShell
from tests.shared import ROOT

SCRIPT = str(LAUNCH / "train_tpu.sh")
NEEDED = [
    SCRIPT,
    "--tpu_name=cxr",
    "--project=p",
    "--zone=z",
    "--data_dir=gs://b/data",
    "--run_dir=gs://b/runs/first",
]
# Both APIs: the options, and the start of the commands about a VM.
APIS = {
    "cloud_tpu": ([], ["gcloud", "compute", "tpus", "tpu-vm"]),
    "compute": (["--machine_type=ct6e-standard-4t"], ["gcloud", "compute", "instances"]),
}
both_apis = pytest.mark.parametrize("api", APIS)
# A VM is a folder with a file `state`. A VM that does not run drops ssh.
GCLOUD = r"""
printf '%s\n' "> gcloud" "$@" >>"$CALLS"
case "$1 $2" in "auth print-access-token") exit ;; esac
case "$1 $2 $3" in
  "compute tpus tpu-vm") verb="$4" runs=READY ;;
  "compute instances "*) verb="$3" runs=RUNNING ;;
  "compute ssh "* | "compute scp "*) verb="$2" runs=RUNNING ;;
  *) exit 64 ;;
esac
vm="$NOTES/vm"
case "$verb" in
  describe) [[ -e "$vm/state" ]] && cat "$vm/state" ;;
  create) [[ ! -e "$vm" ]] || exit 1; mkdir "$vm"; echo "$runs" >"$vm/state" ;;
  delete) rm -r "$vm" ;;
  scp)
    while [[ "$1" != /* ]]; do shift; done
    while [[ "$1" != cxr:* ]]; do cp -r "$1" "$vm/cxr-balance"; shift; done ;;
  ssh)
    for word; do [[ "$word" != --command=* ]] || command="${word#--command=}"; done
    code=0
    cd "$vm" && bash -c "$command" || code=$?
    [[ "$(cat "$vm/state")" == "$runs" ]] || exit 255
    exit "$code" ;;
  *) exit 64 ;;
esac
"""
# Writes one more checkpoint into the bucket each time it is started, on top of what it finds.
COUNTING = """
run="$NOTES/gs/b/runs/first"
last=0
while [[ -e "$run/epoch-$((last + 1))" ]]; do last=$((last + 1)); done
mkdir -p "$run/epoch-$((last + 1))"
"""


@pytest.fixture
def tpu(tmp_path):
    shell = TrainShell(tmp_path)
    # `index` comes from TF_CONFIG, which a TPU does without.
    shell.stand_in("gcloud", GCLOUD)
    return shell


def verbs(shell):
    words = ("create", "delete", "ssh", "scp", "describe")
    return [next((word for word in call if word in words), "") for call in shell.calls()]


def num_epochs(shell):
    return len(list((shell.notes / "gs/b/runs/first").iterdir()))


@both_apis
def test_a_vm_is_created_used_and_deleted_and_the_run_is_in_the_bucket(tpu, api):
    flags, start = APIS[api]
    options = [*flags, "--spot=yes", "--", "--odd=it's $HOME"]
    done = tpu.train(*NEEDED, *options, behaviour=COUNTING)
    assert (done.returncode, done.stderr) == (0, "")
    of_compute = ["ssh"] * bool(flags)  # which looks whether pip is there
    found = [verb for verb in verbs(tpu) if verb not in ("", "describe")]
    assert found == ["create", "ssh", *of_compute, "scp", "ssh", "ssh", "delete"]
    worker = next(path for path in tpu.notes.glob("worker-*-1"))
    assert worker.read_text().splitlines()[4:] == [
        "-m",
        "trainer.main",
        "--data_dir=gs://b/data",
        "--run_dir=gs://b/runs/first",
        "--strategy=tpu",
        "--odd=it's $HOME",
        "--tpu=local",
    ]
    assert num_epochs(tpu) == 1
    create = next(call for call in tpu.calls() if "create" in call)
    assert create[: len(start)] == start
    expected = {
        "cloud_tpu": [
            "--spot",
            "--accelerator-type=v5litepod-8",
            "--version=v2-alpha-tpuv5-lite",
        ],
        "compute": [
            "--provisioning-model=SPOT",
            "--machine-type=ct6e-standard-4t",
            "--image-family=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e",
        ],
    }
    assert set(expected[api]) < set(create)
    assert not (tpu.notes / "vm").exists()
    installed = (tpu.notes / "other").read_text().splitlines()
    assert installed[-1] == "python -m pip install --quiet --user .[tpu] gcsfs"


@both_apis
def test_a_preempted_vm_is_replaced_and_the_run_goes_on(tpu, api):
    behaviour = (
        COUNTING + 'if ((attempt == 1)); then echo TERMINATED >"$NOTES/vm/state"; exit 9; fi'
    )
    done = tpu.train(*NEEDED, *APIS[api][0], behaviour=behaviour)
    assert done.returncode == 0
    assert "preempted (the VM is TERMINATED)" in done.stdout
    assert [verb for verb in verbs(tpu) if verb in ("create", "delete")] == [
        "create",
        "delete",
        "create",
        "delete",
    ]
    # The second VM, with an empty disk, counted on from the first one's checkpoint.
    assert num_epochs(tpu) == 2


def test_code_75_starts_again_on_the_same_vm(tpu):
    done = tpu.train(*NEEDED, behaviour=COUNTING + "if ((attempt == 1)); then exit 75; fi")
    assert done.returncode == 0
    assert verbs(tpu).count("create") == 1
    assert num_epochs(tpu) == 2


def test_another_failure_ends_with_its_code_and_deletes_the_vm(tpu):
    done = tpu.train(*NEEDED, behaviour="exit 2")
    assert done.returncode == 2
    assert [verb for verb in verbs(tpu) if verb][-1] == "delete"
    assert not (tpu.notes / "vm").exists()


def test_keep_leaves_the_vm(tpu):
    assert tpu.train(*NEEDED, "--keep=yes").returncode == 0
    assert (tpu.notes / "vm").exists()


def test_endless_preemption_ends(tpu):
    done = tpu.train(*NEEDED, "--max_restarts=1", behaviour="exit 75")
    assert done.returncode == 75
    assert "preempted again after --max_restarts=1" in done.stderr
    assert not (tpu.notes / "vm").exists()


def test_a_vm_of_that_name_is_not_touched(tpu):
    (tpu.notes / "vm").mkdir()
    (tpu.notes / "vm" / "state").write_text("READY\n")
    assert_refused(tpu.train(*NEEDED), "--tpu_name=cxr", "is there already")
    assert set(verbs(tpu)) <= {"", "describe"}


def test_a_trainer_of_a_lost_connection_is_ended_before_the_next_one_starts(tpu):
    behaviour = """
if ((attempt == 1)); then trap 'echo saved >"$NOTES/saved"; exit 75' TERM; pause 60; fi
[[ -e "$NOTES/saved" ]]
"""
    host = [str(LAUNCH / "tpu_host.sh"), "python3", "-m", "trainer.main"]
    first = tpu.start(*host, behaviour=behaviour)
    try:
        tpu.wait_for("worker--1")
        second = tpu.start(*host, behaviour=behaviour)
        assert first.wait(30) == 75  # which also removes it from the table of processes
        second.communicate(timeout=30)
        assert second.returncode == 0
    finally:
        first.kill()
        first.communicate()


def test_a_slice_is_installed_on_all_vms_and_led_by_the_first(tpu):
    pod = ["--accelerator_type=v4-32", "--runtime_version=tpu-vm-tf-2.20.0-pod-pjrt"]
    done = tpu.train(*NEEDED, *pod, "--dry_run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "--worker=all" in lines[3]
    assert "google-api-python-client" in lines[3]
    assert "--worker=0" in lines[4]
    assert "env TPU_LOAD_LIBRARY=0 python3 -m trainer.main" in lines[4]
    assert "--tpu=cxr" in lines[4]


@both_apis
def test_dry_run_prints_the_commands_of_a_whole_run(tpu, api):
    flags, _ = APIS[api]
    done = tpu.train(*NEEDED, *flags, "--dry_run", "--", "--odd=it's $HOME")
    assert (done.returncode, done.stderr, tpu.calls()) == (0, "", [])
    assert tpu.train("-c", done.stdout).returncode == 0
    printed = tpu.calls()
    (tpu.folder / "calls").unlink()
    assert tpu.train(*NEEDED, *flags, "--", "--odd=it's $HOME").returncode == 0
    own = [c for c in tpu.calls() if "describe" not in c and c[1] != "auth"]
    assert own == printed


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--run_dir=run", "gs://BUCKET/FOLDER"),
        ("--data_dir=gs://bucket", "gs://BUCKET/FOLDER"),
        ("--spot=maybe", "yes or no"),
        ("--accelerator_type=v5litepod", "v5litepod-8"),
        ("--accelerator_type=v5litepod-16", "slice of several VMs"),
        ("--machine_type=tpu7x-standard-4t", "v2 to v6e only"),
        ("--machine_type=n2-standard-4", "must be ct6e-standard-1t"),
        ("--image_family=x", "needs --machine_type"),
    ],
)
def test_a_value_that_cannot_work_is_refused(tpu, argument, part):
    assert_refused(tpu.train(*NEEDED, argument), part)
    assert tpu.calls() == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Google Cloud SDK")
@pytest.mark.parametrize(
    "options", [["--spot=yes"], ["--keep=yes"], [*APIS["compute"][0], "--spot=yes"]]
)
def test_gcloud_itself_knows_every_command_and_flag(tpu, options):
    """The SDK's own parser, offline: nothing is sent."""
    printed = tpu.train(*NEEDED, *options, "--dry_run").stdout.splitlines()
    others = [
        "gcloud compute tpus tpu-vm describe cxr --zone=z --project=p --format='value(state)'",
        "gcloud compute instances describe cxr --zone=z --project=p --format='value(status)'",
    ]
    for command in [*printed, *others]:
        done = subprocess.run(
            ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=120,
        )
        (answer,) = json.loads(done.stdout)
        assert answer["success"], answer["error_message"]
