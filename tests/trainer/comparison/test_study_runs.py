"""Who trains which run of a study, what it says meanwhile, and how it stops. The runs are cheap:
programs that leave the files of a finished run, and wait where a test tells them to."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.shared import ROOT
from tests.trainer import fake_study, processes
from trainer.comparison import method_grid, study_cells, study_progress, study_runs
from trainer.comparison.study_cells import Study

METHODS = ("none", "oversample", "posthoc_logit_adjusted")
HELD = "tiny-none-seed0"  # the run at which `other` waits
# Arguments: the run's directory, the folder of notes. A file wait-NAME there makes the run wait
# until it is gone.
CHEAP_RUN = """
import os, signal, sys, time
run_dir, notes = sys.argv[1:]
name = os.path.basename(run_dir)
def note(text):
    with open(os.path.join(notes, text), "a") as file:
        file.write("x")
def stop(*_):
    note("stopped-" + name)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
os.makedirs(run_dir, exist_ok=True)
with open(run_dir + "/history.csv", "w") as file:
    file.write("epoch\\n1\\n")
note("started-" + name)
print("output of", name, flush=True)
while os.path.exists(os.path.join(notes, "wait-" + name)):
    time.sleep(0.02)
if os.path.exists(os.path.join(notes, "fail-" + name)):
    sys.exit(3)
for file in ("predictions_validation.csv", "predictions_test.csv", "metrics.json", "report.md"):
    open(os.path.join(run_dir, file), "w").close()
"""


def make_study(folder, data, methods=METHODS, seeds=(0,)):
    methods = [method_grid.parse_method(name) for name in methods]
    common = [f"--data_dir={data.path}", "--batch_size=8", "--epochs=4"]
    cells = method_grid.make_grid(methods, seeds, ["tiny"])
    return CheapStudy(str(folder / "study"), {None: data}, common, cells)


class CheapStudy(Study):
    def command(self, cell):
        return [sys.executable, "-c", CHEAP_RUN, self.run_dir(cell), os.path.dirname(self.folder)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), image_size=24)


@pytest.fixture
def study(tmp_path, data):
    return make_study(tmp_path, data)


def main(argv):
    """What `start_other` runs: the study in the folder `argv[1]`."""
    study = make_study(pathlib.Path(argv[1]), dataset_dir.load(argv[2]))
    study_runs.run_study(study, study.cells, jobs=1)


@pytest.fixture
def other(tmp_path, data):
    """Another process that trains the same study; its `communicate` waits for its end."""
    code = f"from {__name__} import main; from cxr_tfrecords.errors import run_main; "
    command = [sys.executable, "-c", code + "run_main(main, arguments=True)", tmp_path, data.path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    (tmp_path / f"wait-{HELD}").touch()
    process = subprocess.Popen(list(map(str, command)), env=environment, **pipes)
    wait_for(tmp_path / f"started-{HELD}")
    yield process
    process.terminate()  # if the test has failed: it stops its run, too
    process.wait(30)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def times_started(folder):
    return {p.name: p.stat().st_size for p in folder.glob("started-*")}


def test_two_processes_never_train_one_run(other, study, tmp_path, capsys):
    outcome = study_runs.run_study(study, study.cells, jobs=1)
    base_and_what_starts_from_it = [HELD, "tiny-posthoc_logit_adjusted-seed0"]
    assert outcome == study_runs.Outcome([], base_and_what_starts_from_it)
    printed = capsys.readouterr().out
    assert f"{HELD}: passed over, another process trains it" in printed
    assert os.path.getsize(study.log(study.cells[0]))  # of the other process, and left alone
    (tmp_path / f"wait-{HELD}").unlink()
    out, err = other.communicate(timeout=60)
    assert (other.returncode, err) == (0, "")
    assert "tiny-oversample-seed0: another process has finished it" in out
    assert all(map(study.is_finished, study.cells))
    assert times_started(tmp_path) == {f"started-{cell.name}": 1 for cell in study.cells}


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted: run the same command again to go on\n"),
        (signal.SIGTERM, 75, "SIGTERM, finished runs are kept: run the same command again to"),
    ],
)
def test_a_signal_stops_the_run_and_keeps_what_is_finished(
    other, study, tmp_path, number, code, line
):
    (tmp_path / "wait-tiny-oversample-seed0").touch()
    (tmp_path / f"wait-{HELD}").unlink()
    wait_for(tmp_path / "started-tiny-oversample-seed0")
    other.send_signal(number)
    _, err = other.communicate(timeout=60)
    assert other.returncode == code
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert (tmp_path / "stopped-tiny-oversample-seed0").exists()
    assert study.is_finished(study.cells[0])


def test_jobs_run_at_the_same_time(study, tmp_path):
    holds = [tmp_path / f"wait-{cell.name}" for cell in study.cells[:2]]
    for hold in holds:
        hold.touch()
    release = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
    release += "[os.unlink(path) for path in sys.argv[2:]]"
    started = tmp_path / f"started-{study.cells[1].name}"
    releasing = subprocess.Popen([sys.executable, "-c", release, started, *holds])
    outcome = study_runs.run_study(study, study.cells, jobs=2)
    assert releasing.wait(10) == 0
    assert outcome == study_runs.Outcome([], [])


def test_a_failed_run_is_named_with_the_end_of_its_output(study, tmp_path, capsys):
    (tmp_path / "fail-tiny-oversample-seed0").touch()
    assert study_runs.run_study(study, study.cells, jobs=1).failed == ["tiny-oversample-seed0"]
    printed = capsys.readouterr().out
    assert "seed0: failed with exit code 3\n  output of tiny-oversample-seed0" in printed
    assert study.is_finished(study.cells[2])


def test_lines_name_the_run_its_epoch_its_log_and_the_time_left(study, capsys, monkeypatch):
    monkeypatch.setattr(study_progress, "_INTERVAL", 0.0)
    study_runs.run_study(study, study.cells, jobs=1)
    printed = capsys.readouterr().out
    log = re.escape(study.log(study.cells[1]))
    assert re.search(
        rf"^run 2 of 3: tiny-oversample-seed0, epoch \d of 4, log {log}", printed, re.M
    )
    assert re.search(r"^tiny-none-seed0: \d+ s; about \d+ s left$", printed, re.M)
    assert re.search(r"^tiny-oversample-seed0: \d+ s$", printed, re.M)


def test_lines_about_running_runs_come_once_a_minute(study, capsys, monkeypatch):
    progress = study_progress.StudyProgress(study, study.cells, jobs=1)
    progress.start(study.cells[0])
    clock = iter([100.0, 100.0, 159.0, 161.0, 161.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    for _ in range(3):
        progress.show(study.cells[:1])
    assert capsys.readouterr().out.count("run 1 of 3") == 2


def test_the_time_left_follows_updates_and_epochs(study):
    none, oversample, _ = study.cells
    progress = study_progress.StudyProgress(study, study.cells, jobs=1)
    progress.start(none)
    assert progress.seconds_left([none]) is None
    progress.end(none, 20.0)
    # 44 images: 5 steps of 8. Oversampled 24 + 24 + 20 + 20: 11 steps.
    assert progress.seconds_left() == pytest.approx(44.0)
    os.makedirs(study.run_dir(oversample))
    pathlib.Path(study.run_dir(oversample), "history.csv").write_text("epoch\n1\n2\n3\n")
    assert progress.seconds_left([oversample]) == pytest.approx(11.0)
    progress.end(oversample, 40.0)
    assert progress.seconds_left() == 0  # a decoupled run takes little, none has ended


def test_the_time_left_counts_decoupled_runs_once_one_has_ended(tmp_path, data):
    study = make_study(tmp_path, data, methods=("none", "tau_norm", "crt"))
    progress = study_progress.StudyProgress(study, study.cells, jobs=1)
    for cell, seconds in zip(study.cells[:2], (20.0, 3.0), strict=True):
        progress.start(cell)
        progress.end(cell, seconds)
    assert progress.seconds_left() == 3.0


def test_a_step_that_takes_long_prints_dots_and_then_its_time(capsys, monkeypatch):
    monkeypatch.setattr(study_progress, "_DOT_SECONDS", 0.01)
    with study_progress.announced("drawing the page"):
        time.sleep(0.1)
    assert re.fullmatch(r"drawing the page \.+\(0 s\)\n", capsys.readouterr().out)


def test_lines_printed_in_such_a_step_come_after_its_dots(capsys, monkeypatch):
    monkeypatch.setattr(study_progress, "_DOT_SECONDS", 0.01)
    with study_progress.announced("comparing"):
        print("warning: a")
        time.sleep(0.1)
        print("warning: b", file=sys.stderr)
    printed = capsys.readouterr()
    assert re.fullmatch(r"comparing \.+\(0 s\)\nwarning: a\n", printed.out)
    assert printed.err == "warning: b\n"


def test_parts_hold_each_run_once_and_what_starts_from_a_run_with_it(tmp_path, data):
    study = make_study(tmp_path, data, seeds=(0, 1, 2))
    parts = [study.part(number, 4) for number in (1, 2, 3, 4)]
    assert sorted(c.name for p in parts for c in p) == sorted(c.name for c in study.cells)
    for part in parts:
        assert {study.base(cell) for cell in part} <= set(part)
    assert study.part(1, 1) == study.cells
    for text in ("3/2", "0/2", "2"):
        with pytest.raises(UserError, match=f"^--cells={text} must look like 2/5"):
            study_cells.parse_part(text)


def test_a_study_that_another_process_compares_is_left_alone(tmp_path):
    fake_study.write_study(tmp_path, seeds=(0,))
    with locks.held(str(tmp_path), "--study_dir"):
        flags = [f"--runs={tmp_path}/runs/*", f"--study_dir={tmp_path}", "--resamples=100"]
        refused = processes.run("trainer.compare", *flags)
    assert refused.returncode == 75
    assert f"process {os.getpid()} on " in refused.stderr
    assert sorted(os.listdir(tmp_path)) == ["runs"]


def test_a_disk_without_locks_is_refused(study, monkeypatch):
    def no_locks(path):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(study_runs.locks, "take", no_locks)
    with pytest.raises(UserError, match="name a --study_dir on a disk that has file locks"):
        study_runs.run_study(study, study.cells, jobs=1)
