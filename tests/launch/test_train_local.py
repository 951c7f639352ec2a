"""launch/train_local.sh: processes that live and die together, and a real training of two."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.helpers import write_dataset
from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.train_shell import TrainShell, replace
from tests.shared import ROOT

SCRIPT = str(LAUNCH / "train_local.sh")
NEEDED = [SCRIPT, "--data_dir=data dir", "--run_dir=run"]


@pytest.fixture
def shell(tmp_path):
    return TrainShell(tmp_path)


def test_a_stand_in_takes_the_place_of_a_link_and_leaves_the_program_alone(tmp_path):
    (tmp_path / "program").write_text("real")
    (tmp_path / "link").symlink_to(tmp_path / "program")
    replace(tmp_path / "link", "stand-in")
    assert (tmp_path / "program").read_text() == "real"
    assert (tmp_path / "link").read_text() == "stand-in"


def test_each_worker_knows_the_cluster_its_place_and_its_flags(shell):
    done = shell.train(*NEEDED, "--workers=3", "--", "--epochs=2", "--group=a b")
    assert (done.returncode, done.stderr) == (0, "")
    workers = [shell.worker(i) for i in range(3)]
    clusters = [w["tf_config"]["cluster"] for w in workers]
    assert clusters == [clusters[0]] * 3
    assert len(set(clusters[0]["worker"])) == 3
    assert all(address.startswith("127.0.0.1:") for address in clusters[0]["worker"])
    for index, worker in enumerate(workers):
        assert worker["tf_config"]["task"] == {"type": "worker", "index": index}
        assert worker["arguments"] == [
            "-m",
            "trainer.main",
            "--data_dir=data dir",
            "--run_dir=run",
            "--strategy=multi_worker",
            "--epochs=2",
            "--group=a b",
        ]
        assert (worker["gpus"], worker["folder"]) == ("-1", str(shell.folder))
        assert worker["pythonpath"] == str(ROOT)


def test_the_first_workers_output_is_shown_and_all_is_kept(shell):
    done = shell.train(*NEEDED)
    assert done.stdout == "worker 0 says hello\n"
    for index in range(2):
        log = shell.folder / "run" / "logs" / f"worker-{index}.log"
        assert log.read_text() == f"worker {index} says hello\n"


def test_gpus_are_shared_out(shell):
    shell.train(*NEEDED, "--gpus_per_worker=2")
    assert [shell.worker(i)["gpus"] for i in range(2)] == ["0,1", "2,3"]


@pytest.mark.skipif(not shutil.which("taskset"), reason="needs taskset (util-linux)")
def test_workers_get_cores_of_their_own(shell):
    shell.stand_in("taskset", 'echo "$*" >>"$NOTES/cores"\nshift 2\nexec "$@"\n')
    shell.stand_in("getconf", "echo 8\n")
    assert shell.train(*NEEDED).returncode == 0
    cores = (shell.notes / "cores").read_text().splitlines()
    assert sorted(line.split()[1] for line in cores) == ["0-3", "4-7"]


def test_a_failing_worker_ends_the_others_and_its_code_is_passed_on(shell):
    behaviour = 'if [[ $index == 1 ]]; then echo "no such thing" >&2; exit 2; fi; pause 60'
    done = shell.train(*NEEDED, behaviour=behaviour)
    assert done.returncode == 2
    assert "error: worker 1 ended with exit code 2; its log is run/logs/worker-1.log" in done.stderr
    assert "no such thing" in done.stderr  # the end of the log that is not on the screen
    assert shell.attempts(0) == 1


def test_the_chiefs_failure_is_the_scripts(shell):
    done = shell.train(*NEEDED, behaviour="if [[ $index == 0 ]]; then exit 9; fi; pause 60")
    assert done.returncode == 9


@pytest.mark.slow
def test_a_worker_that_does_not_end_is_killed(shell):
    behaviour = "if [[ $index == 0 ]]; then exit 1; fi; trap '' TERM; while :; do pause 1; done"
    done = shell.train(*NEEDED, behaviour=behaviour)
    assert done.returncode == 1


def test_preempted_workers_are_started_again_on_new_ports(shell):
    done = shell.train(*NEEDED, behaviour="if ((attempt < 3)); then exit 75; fi")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("starting again from the last checkpoint") == 2
    assert [shell.attempts(i) for i in range(2)] == [3, 3]
    assert shell.worker(0, 3)["arguments"] == shell.worker(0)["arguments"]


def test_one_preempted_worker_lets_the_others_save_first(shell):
    behaviour = """
if ((attempt == 1 && index == 1)); then exit 75; fi
if ((attempt == 1)); then trap 'echo hurried >"$NOTES/hurried"; exit 1' TERM; pause 1; exit 75; fi
"""
    done = shell.train(*NEEDED, behaviour=behaviour)
    assert done.returncode == 0
    assert not (shell.notes / "hurried").exists()


def test_endless_preemption_ends(shell):
    done = shell.train(*NEEDED, "--max_restarts=1", behaviour="exit 75")
    assert done.returncode == 75
    assert "preempted again after --max_restarts=1" in done.stderr
    assert shell.attempts(0) == 2


def test_a_signal_goes_to_the_workers_and_nothing_starts_again(shell):
    behaviour = "trap 'echo saved >\"$NOTES/saved-$index\"; exit 75' TERM; pause 60"
    done = shell.train(*NEEDED, behaviour=behaviour, interrupt_after="worker-1-1")
    assert done.returncode == 75
    assert sorted(path.name for path in shell.notes.glob("saved-*")) == ["saved-0", "saved-1"]
    assert shell.attempts(0) == 1


def test_dry_run_starts_nothing_and_prints_what_a_shell_takes_back(shell):
    arguments = [*NEEDED, "--dry_run", "--", "--epochs=1", "--odd=it's $HOME"]
    done = shell.train(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert shell.attempts(0) == 0
    assert not (shell.folder / "run").exists()
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert shlex.split(lines[1])[-1] == "--odd=it's $HOME"
    assert shell.train("-c", lines[1]).returncode == 0
    assert shell.worker(1)["arguments"][-1] == "--odd=it's $HOME"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--run_dir=r"], ["missing option --data_dir"]),
        (["--data_dir=d"], ["missing option --run_dir"]),
        ([*NEEDED[1:], "--epochs=3"], ["unknown option --epochs", "trainer.main go after --"]),
        ([*NEEDED[1:], "--workers=0"], ["--workers=0", "from 1"]),
        ([*NEEDED[1:], "--workers=two"], ["--workers=two"]),
        ([*NEEDED[1:], "--max_restarts=-1"], ["--max_restarts=-1"]),
        ([*NEEDED[1:], "--", "--strategy=cpu"], ["--strategy", "this script sets it"]),
    ],
)
def test_mistakes_are_one_line(shell, arguments, parts):
    assert_refused(shell.train(SCRIPT, *arguments), *parts)
    assert shell.attempts(0) == 0


@pytest.mark.slow
def test_two_real_workers_train_one_model(tmp_path):
    """The launcher as a user starts it: the table on the screen, one finished run directory."""
    write_dataset(tmp_path / "data")
    arguments = [f"--data_dir={tmp_path}/data", f"--run_dir={tmp_path}/run", "--workers=2"]
    done = subprocess.run(
        [SCRIPT, *arguments, "--", "--batch_size=8", "--epochs=1"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on 2 devices of several workers" in done.stdout
    assert "balanced accuracy" in done.stdout
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sum(c["support"] for c in metrics["test"]["per_class"].values()) == 17
    assert "all epochs done" in (tmp_path / "run" / "logs" / "worker-1.log").read_text()
