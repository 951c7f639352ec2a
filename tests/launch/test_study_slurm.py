"""launch/study_slurm.sh with an sbatch, an srun and an scontrol that act on this machine."""

from __future__ import annotations

import shlex

import pytest

from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.study_shell import StudyShell

SCRIPT = str(LAUNCH / "study_slurm.sh")
# Runs the array's tasks one after the other, in a folder of its own; a failed one ends alone.
SBATCH = """
printf '%s\\n' "$@" >>"$NOTES/sbatch"
array=1-1
for word; do
  case "$word" in
    --wrap=*) wrap="${word#--wrap=}" ;;
    --array=*) array="${word#--array=}" ;;
    --dependency=*) [[ "$word" == *:7 ]] || exit 1 ;;
  esac
done
last="${array#*-}"
mkdir -p "$NOTES/spool"
cd "$NOTES/spool"
export SLURM_JOB_ID=7
for ((task = 1; task <= ${last%%%*}; task++)); do
  export SLURM_ARRAY_TASK_ID=$task SLURM_RESTART_COUNT=0
  until
    rm -f "$NOTES/requeued"
    bash -c "$wrap" >>"$NOTES/output" 2>&1 || echo "$task $?" >>"$NOTES/codes"
    [[ ! -e "$NOTES/requeued" ]]
  do SLURM_RESTART_COUNT=$((SLURM_RESTART_COUNT + 1)); done
done
echo '7;cluster'
"""
SRUN = 'while [[ "$1" == --* ]]; do shift; done\n"$@"\n'
SCONTROL = '[[ "$*" == "requeue 7" ]]\necho >"$NOTES/requeued"\n'


@pytest.fixture
def slurm(tmp_path):
    shell = StudyShell(tmp_path)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}.items():
        shell.stand_in(name, text)
    return shell


@pytest.fixture
def needed(tmp_path):
    return [SCRIPT, "--data_dir=/data dir", f"--study_dir={tmp_path}/study", "--parts=3"]


def test_each_task_trains_its_part_and_then_all_are_compared(slurm, needed, tmp_path):
    rest = ["--methods=none,focal", "--odd=it's $HOME"]
    done = slurm.train(*needed, "--at_once=2", "--gpus_per_node=1", "--", *rest)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"then {tmp_path}/study/comparison.html" in done.stdout
    flags = ["-m", "trainer.compare", *needed[1:3], *rest]
    parts = {f"{k}-of-3": [*flags, f"--cells={k}/3"] for k in (1, 2, 3)}
    assert slurm.parts() == {**parts, "gather": flags}
    asked = (slurm.notes / "sbatch").read_text().splitlines()
    for option in ("--array=1-3%2", "--gpus-per-node=1", "--signal=TERM@120", "--requeue"):
        assert option in asked
    assert "--dependency=afterany:7" in asked
    assert (tmp_path / "study" / "logs").is_dir()


def test_a_stopped_part_is_requeued_and_a_failed_one_ends_alone(slurm, needed):
    behaviour = (
        "[[ $part != 1-of-3 || $attempt -gt 2 ]] || exit 75; [[ $part != 2-of-3 ]] || exit 1"
    )
    assert slurm.train(*needed, behaviour=behaviour).returncode == 0
    assert [slurm.tries(f"{k}-of-3") for k in (1, 2, 3)] == [3, 1, 1]
    assert (slurm.notes / "codes").read_text() == "2 1\n"
    assert slurm.tries("gather") == 1


def test_endless_stops_end(slurm, needed):
    behaviour = "[[ $part != 1-of-3 ]] || exit 75"
    slurm.train(*needed, "--max_restarts=1", behaviour=behaviour)
    assert slurm.tries("1-of-3") == 2
    assert "stopped again after --max_restarts=1" in (slurm.notes / "output").read_text()


def test_dry_run_submits_nothing_and_prints_what_a_shell_takes_back(slurm, needed):
    done = slurm.train(*needed, "--dry_run", "--", "--odd=it's $HOME")
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(slurm.notes.iterdir())
    array, gather = done.stdout.splitlines()
    assert "--dependency=afterany:ARRAY_JOB" in shlex.split(gather)
    assert slurm.train("-c", array).returncode == 0
    assert slurm.parts()["3-of-3"][-2:] == ["--odd=it's $HOME", "--cells=3/3"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--study_dir=study"], ["--study_dir", "full path"]),
        (["--parts=0"], ["--parts", "from 1"]),
        (["--at_once=0"], ["--at_once", "from 1"]),
        (["--role=other"], ["--role", "only this script itself"]),
        (["--", "--cells=1/2"], ["--cells after --"]),
        (["--", "--runs=x"], ["--runs after --"]),
    ],
)
def test_a_value_that_cannot_work_is_refused(slurm, needed, arguments, parts):
    assert_refused(slurm.train(*needed, *arguments), *parts)
    assert not any(slurm.notes.iterdir())
