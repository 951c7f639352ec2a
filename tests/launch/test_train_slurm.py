"""launch/train_slurm.sh with an sbatch, an srun and an scontrol that act on this machine."""

from __future__ import annotations

import shlex

import pytest

from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.train_shell import TrainShell

SCRIPT = str(LAUNCH / "train_slurm.sh")
# The batch script runs in a folder of its own, as a copy: as SLURM does.
SBATCH = """
printf '%s\\n' "$@" >"$NOTES/sbatch"
for word; do [[ "$word" != --wrap=* ]] || wrap="${word#--wrap=}"; done
mkdir -p "$NOTES/spool"
cd "$NOTES/spool"
export SLURM_JOB_ID=7 SLURM_JOB_NODELIST='node[1-2]'
until
  rm -f "$NOTES/requeued"
  code=0
  bash -c "$wrap" || code=$?
  [[ ! -e "$NOTES/requeued" ]]
do export SLURM_RESTART_COUNT=$((${SLURM_RESTART_COUNT:-0} + 1)); done
exit "$code"
"""
SRUN = """
while [[ "$1" == --* ]]; do echo "$1" >>"$NOTES/srun"; shift; done
highest=0
SLURM_PROCID=1 "$@" & other=$!
SLURM_PROCID=0 "$@" || highest=$?
wait "$other" || code=$?
exit $((${code:-0} > highest ? code : highest))
"""
SCONTROL = """
if [[ "$1 $2" == "show hostnames" && "$3" == 'node[1-2]' ]]; then printf 'node1\\nnode2\\n'
elif [[ "$*" == "requeue 7" ]]; then echo >"$NOTES/requeued"
else exit 1; fi
"""


@pytest.fixture
def slurm(tmp_path):
    shell = TrainShell(tmp_path)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}.items():
        shell.stand_in(name, text)
    return shell


@pytest.fixture
def needed(tmp_path):
    return [SCRIPT, "--data_dir=/data dir", f"--run_dir={tmp_path}/run"]


def test_every_node_runs_one_worker_with_its_place(slurm, needed):
    done = slurm.train(*needed, "--gpus_per_node=4", "--", "--epochs=2", "--odd=it's $HOME")
    assert (done.returncode, done.stderr) == (0, "")
    for index in range(2):
        worker = slurm.worker(index)
        assert worker["tf_config"] == {
            "cluster": {"worker": ["node1:12345", "node2:12345"]},
            "task": {"type": "worker", "index": index},
        }
        expected = [*needed[1:], "--strategy=multi_worker", "--epochs=2", "--odd=it's $HOME"]
        assert worker["arguments"][2:] == expected
    asked = (slurm.notes / "sbatch").read_text().splitlines()
    for option in ("--nodes=2", "--gpus-per-node=4", "--signal=TERM@120", "--requeue"):
        assert option in asked
    assert not any(option.startswith("--partition") for option in asked)
    assert "--kill-on-bad-exit=0" in (slurm.notes / "srun").read_text().splitlines()


def test_a_preempted_job_requeues_itself(slurm, needed):
    done = slurm.train(*needed, behaviour="if ((attempt < 3)); then exit 75; fi")
    assert done.returncode == 0
    assert [slurm.attempts(i) for i in range(2)] == [3, 3]


def test_endless_preemption_ends(slurm, needed):
    done = slurm.train(*needed, "--max_restarts=1", behaviour="exit 75")
    assert (done.returncode, slurm.attempts(0)) == (75, 2)
    assert "preempted again" in done.stderr


def test_another_failure_ends_the_job_with_its_code(slurm, needed):
    done = slurm.train(*needed, behaviour="if [[ $index == 1 ]]; then exit 76; fi")
    assert (done.returncode, slurm.attempts(0)) == (76, 1)


def test_dry_run_submits_nothing_and_prints_what_a_shell_takes_back(slurm, needed):
    done = slurm.train(*needed, "--dry_run", "--time=1:00:00", "--", "--odd=it's $HOME")
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(slurm.notes.iterdir())
    (line,) = done.stdout.splitlines()
    assert shlex.split(line)[0] == "sbatch"
    assert slurm.train("-c", line).returncode == 0
    assert slurm.worker(1)["arguments"][-1] == "--odd=it's $HOME"


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--run_dir=run", "full path"),
        ("--data_dir=data", "full path"),
        ("--nodes=0", "from 1"),
        ("--role=other", "only this script itself"),
    ],
)
def test_a_value_that_cannot_work_is_refused(slurm, needed, argument, part):
    assert_refused(slurm.train(*needed, argument), argument.split("=")[0], part)
    assert not any(slurm.notes.iterdir())
