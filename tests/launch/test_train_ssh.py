"""launch/train_ssh.sh with an ssh and an rsync that use folders of this machine as hosts."""

from __future__ import annotations

import pytest

from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.train_shell import TrainShell
from tests.shared import ROOT

SCRIPT = str(LAUNCH / "train_ssh.sh")
# Each host is a folder, its home; the command runs there as ssh would run it.
SSH = """
while [[ "$1" == -o ]]; do echo "$2" >>"$NOTES/ssh-options"; shift 2; done
(($# == 2)) || { echo "ssh: $# words after the options" >&2; exit 64; }
[[ "$1" != "$LOST" ]] || exit 255
mkdir -p "$NOTES/hosts/$1"
cd "$NOTES/hosts/$1" || exit
exec bash -c "$2"
"""
RSYNC = """
files=()
while [[ "$1" == --* ]]; do shift; done
while (($# > 1)); do files+=("$1"); shift; done
target="$NOTES/hosts/${1%%:*}/${1#*:}"
mkdir -p "$target"
cp -r "${files[@]}" "$target"
"""
# `python3.11 -m venv .venv` there gives the trainer's stand-in.
VENV = """
mkdir -p .venv/bin
cp "$STAND_IN_PYTHON" .venv/bin/python
echo "venv in $PWD" >>"$NOTES/venvs"
"""


class Hosts(TrainShell):
    def __init__(self, folder):
        super().__init__(folder)
        self.stand_in("ssh", SSH)
        self.stand_in("rsync", RSYNC)
        self.stand_in("python3.11", VENV)
        self.lost = ""

    def environment(self, behaviour):
        found = {"STAND_IN_PYTHON": str(self.bin / "python3"), "LOST": self.lost}
        return {**super().environment(behaviour), **found}


@pytest.fixture
def hosts(tmp_path):
    return Hosts(tmp_path)


@pytest.fixture
def needed(tmp_path):
    shared = tmp_path / "the share"
    return [SCRIPT, "--hosts=ann@one,two", "--data_dir=/d a", f"--run_dir={shared}/run"]


def test_code_is_copied_installed_and_run_on_every_host(hosts, needed):
    done = hosts.train(*needed, "--extra=cpu", "--", "--epochs=2", "--odd=it's $HOME")
    assert (done.returncode, done.stderr) == (0, "")
    assert "worker 0 says hello" in done.stdout
    assert "worker 1" not in done.stdout
    addresses = ["one:12345", "two:12345"]
    for index, name in enumerate(("ann@one", "two")):
        folder = hosts.notes / "hosts" / name / "cxr-balance"
        for part in ("trainer/main.py", "cxr_tfrecords/__init__.py", "constraints.txt"):
            assert (folder / part).read_text() == (ROOT / part).read_text()
        worker = hosts.worker(index)
        assert worker["folder"] == str(folder)
        assert worker["tf_config"] == {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        assert worker["arguments"] == [
            "-m",
            "trainer.main",
            *needed[2:],
            "--strategy=multi_worker",
            "--epochs=2",
            "--odd=it's $HOME",
        ]
        log = hosts.folder / "runs" / "ssh-logs" / f"worker-{index}.log"
        assert log.read_text() == f"worker {index} says hello\n"
    assert "BatchMode=yes" in (hosts.notes / "ssh-options").read_text().split()
    installed = (hosts.notes / "other").read_text().splitlines()
    assert (
        installed
        == ["python -m pip install --quiet --constraint constraints.txt --editable .[cpu]"] * 2
    )


def test_a_second_start_keeps_the_environment(hosts, needed):
    for _ in range(2):
        assert hosts.train(*needed).returncode == 0
    assert len((hosts.notes / "venvs").read_text().splitlines()) == 2  # one a host


def test_a_failure_ends_the_trainer_on_the_other_host(hosts, needed):
    behaviour = """
if [[ $index == 1 ]]; then until [[ -e "$NOTES/worker-0-1" ]]; do sleep 0.1; done; exit 4; fi
trap 'echo >"$NOTES/ended"; exit 143' TERM
pause 60
"""
    done = hosts.train(*needed, behaviour=behaviour)
    assert done.returncode == 4
    assert "worker 1 ended with exit code 4" in done.stderr
    assert (hosts.notes / "ended").exists()


def test_preemption_starts_all_again(hosts, needed):
    done = hosts.train(*needed, behaviour="if ((attempt == 1)); then exit 75; fi")
    assert done.returncode == 0
    assert [hosts.attempts(i) for i in range(2)] == [2, 2]


def test_a_folder_that_is_not_shared_is_found_before_the_start(hosts, needed):
    hosts.stand_in("cat", 'if [[ "$1" == */shared ]]; then exit 1; fi\n')
    assert_refused(hosts.train(*needed), "--run_dir=", "two does not see", "use a shared disk")
    assert hosts.attempts(0) == 0


def test_a_host_that_cannot_be_reached_is_named(hosts, needed):
    hosts.lost = "two"
    assert_refused(hosts.train(*needed), "--hosts", "two")
    assert hosts.attempts(0) == 0


def test_dry_run_prints_every_command_and_starts_nothing(hosts, needed):
    done = hosts.train(*needed, "--dry_run", "--", "--odd=it's $HOME")
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(hosts.notes.iterdir())
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["rsync", "ssh", "rsync", "ssh", "ssh", "ssh", "ssh", "ssh"]
    assert hosts.train("-c", done.stdout).returncode == 0
    for index in range(2):
        assert hosts.worker(index)["arguments"][-1] == "--odd=it's $HOME"


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--hosts=one,one", "different names"),
        ("--hosts=a@one,b@one", "different names"),
        ("--hosts=one,,two", "different names"),
        ("--run_dir=run", "full path"),
        ("--data_dir=data", "full path"),
        ("--extra=tpu", "cpu or gpu"),
        ("--port=80", "from 1024"),
    ],
)
def test_a_value_that_cannot_work_is_refused(hosts, needed, argument, part):
    assert_refused(hosts.train(*needed, argument), argument.split("=")[0], part)
    assert not any(hosts.notes.iterdir())
