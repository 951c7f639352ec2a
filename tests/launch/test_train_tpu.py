"""launch/train_tpu.sh with a gcloud that keeps TPU VMs and a bucket as folders of this machine."""

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
# A VM is a folder with a file `state`; gs:// is $NOTES/gs. A VM that is not READY drops ssh.
GCLOUD = r"""
printf '%s\n' "> gcloud" "$@" >>"$CALLS"
local_path() { case "$1" in gs://*) echo "$NOTES/gs/${1#gs://}" ;; *) echo "$1" ;; esac; }
case "$1 $2" in "auth print-access-token") exit ;; esac
if [[ "$1 $2" == "storage ls" ]]; then
  found="$(local_path "${3%/\*\*}")"
  [[ -d "$found" ]]; exit
fi
if [[ "$1 $2" == "storage rsync" ]]; then
  shift 2
  while [[ "$1" == --* ]]; do [[ "$1" != --exclude=* ]] || resume=no; shift; done
  from="$(local_path "$1")" to="$(local_path "$2")"
  mkdir -p "$to"
  [[ -z "${resume:-}" ]] || rm -rf "$from.upload"
  cp -r "$from" "$from.upload"
  if [[ -n "${resume:-}" ]]; then
    rm -rf "$from.upload"/checkpoints/resume "$from.upload"/checkpoints/*/.unfinished
  fi
  cp -r "$from.upload/." "$to"
  rm -rf "$from.upload"
  exit
fi
if [[ "$1 $2" == "storage cp" ]]; then
  to="$(local_path "$4")"
  mkdir -p "${to%/*}"
  cp "$3" "$to"
  exit
fi
[[ "$1 $2 $3" == "compute tpus tpu-vm" ]] || exit 64
vm="$NOTES/vm"
case "$4" in
  describe) [[ -e "$vm/state" ]] && cat "$vm/state" ;;
  create) [[ ! -e "$vm" ]] || exit 1; mkdir "$vm"; echo READY >"$vm/state" ;;
  delete) rm -r "$vm" ;;
  scp)
    shift 5
    while [[ "$1" != cxr:* ]]; do cp -r "$1" "$vm/cxr-balance"; shift; done ;;
  ssh)
    for word; do [[ "$word" != --command=* ]] || command="${word#--command=}"; done
    code=0
    cd "$vm" && bash -c "$command" || code=$?
    [[ "$(cat "$vm/state")" == READY ]] || exit 255
    exit "$code" ;;
  *) exit 64 ;;
esac
"""
# Writes one more checkpoint each time it is started, on top of what it finds.
COUNTING = """
last=0
while [[ -e run/checkpoints/resume/epoch-$((last + 1)) ]]; do last=$((last + 1)); done
mkdir -p run/checkpoints/resume/.unfinished run/checkpoints/resume/epoch-$((last + 1))
echo "epoch $((last + 1))" >run/checkpoints/resume/epoch-$((last + 1))/state.index
"""


@pytest.fixture
def tpu(tmp_path):
    shell = TrainShell(tmp_path)
    # `index` comes from TF_CONFIG, which a TPU does without.
    shell.stand_in("gcloud", GCLOUD)
    return shell


def verbs(shell):
    calls = [call[1:] for call in shell.calls()]
    return [call[3] for call in calls if call[:3] == ["compute", "tpus", "tpu-vm"]]


def last_epoch(shell):
    checkpoints = shell.notes / "gs/b/runs/first/checkpoints"
    last = (checkpoints / "whole.txt").read_text().split()[-1]
    assert not (checkpoints / "resume" / ".unfinished").exists()
    assert (checkpoints / "resume" / last / "state.index").exists()
    return last.removeprefix("epoch-")


def test_a_vm_is_created_used_and_deleted_and_the_run_is_in_the_bucket(tpu):
    done = tpu.train(*NEEDED, "--spot=yes", "--", "--odd=it's $HOME", behaviour=COUNTING)
    assert (done.returncode, done.stderr) == (0, "")
    found = [verb for verb in verbs(tpu) if verb != "describe"]
    assert found == ["create", "ssh", "scp", "ssh", "ssh", "delete"]
    worker = next(path for path in tpu.notes.glob("worker-*-1"))
    assert worker.read_text().splitlines()[4:] == [
        "-m",
        "trainer.main",
        "--data_dir=gs://b/data",
        "--run_dir=run",
        "--strategy=tpu",
        "--odd=it's $HOME",
        "--tpu=local",
    ]
    assert last_epoch(tpu) == "1"
    create = next(call for call in tpu.calls() if "create" in call)
    for flag in ("--spot", "--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite"):
        assert flag in create
    assert not (tpu.notes / "vm").exists()
    installed = (tpu.notes / "other").read_text().splitlines()
    assert installed == ["python -m pip install --quiet --user .[tpu]"]


def test_a_preempted_vm_is_replaced_and_the_run_goes_on(tpu):
    behaviour = COUNTING + 'if ((attempt == 1)); then echo PREEMPTED >"$NOTES/vm/state"; exit 9; fi'
    done = tpu.train(*NEEDED, behaviour=behaviour)
    assert done.returncode == 0
    assert "preempted (the VM is PREEMPTED)" in done.stdout
    assert [verb for verb in verbs(tpu) if verb in ("create", "delete")] == [
        "create",
        "delete",
        "create",
        "delete",
    ]
    # The second VM, with an empty disk, counted on from the first one's checkpoint.
    assert last_epoch(tpu) == "2"


def test_code_75_starts_again_on_the_same_vm(tpu):
    done = tpu.train(*NEEDED, behaviour=COUNTING + "if ((attempt == 1)); then exit 75; fi")
    assert done.returncode == 0
    assert verbs(tpu).count("create") == 1
    assert last_epoch(tpu) == "2"


def test_a_checkpoint_whose_copy_was_cut_off_is_not_resumed_from(tpu):
    checkpoints = tpu.notes / "gs/b/runs/first/checkpoints"
    for name in ("epoch-1", "epoch-2"):
        (checkpoints / "resume" / name).mkdir(parents=True)
    (checkpoints / "resume/epoch-1/state.index").write_text("whole")
    (checkpoints / "whole.txt").write_text("epoch-1\n")
    assert tpu.train(*NEEDED, behaviour=COUNTING).returncode == 0
    # The second epoch was done again, on top of the first.
    assert last_epoch(tpu) == "2"


def test_another_failure_ends_with_its_code_and_deletes_the_vm(tpu):
    done = tpu.train(*NEEDED, behaviour="exit 2")
    assert done.returncode == 2
    assert verbs(tpu)[-1] == "delete"
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
    assert set(verbs(tpu)) == {"describe"}


def test_checkpoints_are_copied_while_training_goes_on(tpu):
    behaviour = (
        COUNTING
        + """
until [[ -e "$NOTES/gs/b/runs/first/checkpoints/whole.txt" ]]; do sleep 0.1; done
"""
    )
    done = tpu.train(*NEEDED, "--save_seconds=1", behaviour=behaviour)
    assert done.returncode == 0


def test_a_signal_reaches_the_trainer_and_what_it_saves_is_copied(tpu):
    run = tpu.folder / "run"
    behaviour = "trap 'echo kept >run/kept; exit 75' TERM; pause 60"
    host = [str(LAUNCH / "tpu_host.sh"), "gs://b/runs/first", "run", "300"]
    done = tpu.train(
        *host, "python3", "-m", "trainer.main", behaviour=behaviour, interrupt_after="worker--1"
    )
    assert done.returncode == 75, done.stderr
    assert (run / "kept").read_text() == "kept\n"
    assert (tpu.notes / "gs/b/runs/first/kept").exists()


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


def test_dry_run_prints_the_commands_of_a_whole_run(tpu):
    done = tpu.train(*NEEDED, "--dry_run", "--", "--odd=it's $HOME")
    assert (done.returncode, done.stderr, tpu.calls()) == (0, "", [])
    assert tpu.train("-c", done.stdout).returncode == 0
    printed = tpu.calls()
    shutil.rmtree(tpu.notes / "gs")
    (tpu.folder / "calls").unlink()
    assert tpu.train(*NEEDED, "--", "--odd=it's $HOME").returncode == 0
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
        ("--save_seconds=0", "from 1"),
    ],
)
def test_a_value_that_cannot_work_is_refused(tpu, argument, part):
    assert_refused(tpu.train(*NEEDED, argument), part)
    assert tpu.calls() == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Google Cloud SDK")
@pytest.mark.parametrize("options", [["--spot=yes"], ["--keep=yes"]])
def test_gcloud_itself_knows_every_command_and_flag(tpu, options):
    """The SDK's own parser, offline: nothing is sent."""
    printed = tpu.train(*NEEDED, *options, "--dry_run").stdout.splitlines()
    others = [
        "gcloud compute tpus tpu-vm describe cxr --zone=z --project=p --format='value(state)'",
        "gcloud storage rsync --recursive --exclude='checkpoints/resume/|x' run gs://b/r",
        "gcloud storage cp run.list gs://b/r/checkpoints/whole.txt",
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
