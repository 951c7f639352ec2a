"""Runs in an object store, against fsspec's store in memory; a real server: tests/trainer."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil

import fsspec
import pytest

from cxr_tfrecords.concurrency import store_locks
from cxr_tfrecords.errors import TemporaryError, UserError
from tests.trainer import fake_run
from trainer.runs import remote_run, run_files, same_run
from trainer.runs.finished_run import read_run

ADDRESS = "memory://store/runs/first"
KEPT = [*(run_files.predictions_path("", s) for s in run_files.SPLITS), "metrics.json"]


class DyingError(BaseException):
    """The process is killed."""


class DyingStore:
    """The store, for a process that is killed after `left` operations on objects."""

    def __init__(self, fs, left):
        self._fs, self.left = fs, left

    def __getattr__(self, name):
        return getattr(self._fs, name)

    def _spend(self):
        self.left -= 1
        if self.left < 0:
            raise DyingError

    def put(self, sources, targets):
        for source, target in sorted(zip(sources, targets, strict=True), reverse=True):
            self._spend()
            self._fs.put([source], [target])

    def rm_file(self, path):
        self._spend()
        self._fs.rm_file(path)


@pytest.fixture
def store(monkeypatch):
    fs = fsspec.filesystem("memory")
    monkeypatch.setattr(store_locks, "BEAT", 0.02)
    monkeypatch.setattr(store_locks, "LEASE", 0.2)
    yield fs
    fs.store.clear()
    remote_run._read.clear()


def opened(address=ADDRESS):
    return remote_run.opened(address, lambda folder: True)


def write(folder, *names, text="x"):
    for name in names:
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_checkpoint(folder, kind, epoch, text="x"):
    """As `Checkpoints` does: best/epoch-N, or resume/epoch-N, whose best epoch is N too."""
    parts = (f"checkpoints/{kind}/epoch-{epoch}/state.{part}" for part in ("index", "data-0"))
    write(folder, *parts, text=text)


def names_in(folder):
    paths = (path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in paths)


def test_a_run_is_copied_to_its_address_and_back(store):
    with opened() as folder:
        write(folder, "config.json", "tensorboard/events", "history.csv.tmp-7", ".lock")
        write(folder, "checkpoints/resume/.unfinished/state.index")
        write_checkpoint(folder, "resume", 1)
        remote_run.upload(folder)
        assert store.cat_file("/store/runs/first/config.json") == b"x"
    assert not os.path.exists(folder)
    with opened() as folder:
        assert names_in(folder) == [
            "checkpoints/resume/epoch-1/state.data-0",
            "checkpoints/resume/epoch-1/state.index",
            "config.json",
            "tensorboard/events",
        ]
        assert remote_run.address_of(folder) == ADDRESS
        os.remove(pathlib.Path(folder, "tensorboard/events"))
    assert sorted(map(os.path.basename, store.find("/store"))) == [
        "config.json",
        "state.data-0",
        "state.index",
    ]


def test_what_has_not_changed_is_not_copied_again(store, monkeypatch):
    with opened() as folder:
        write(folder, "config.json", "history.csv")
    with opened() as folder:
        copy = remote_run._copies[folder]
        dying = DyingStore(store, 1)
        monkeypatch.setattr(copy, "_fs", dying)
        write(folder, "history.csv", text="more")
        remote_run.upload(folder)
        assert dying.left == 0


def replace_by_a_longer_run(folder):
    os.remove(pathlib.Path(folder, "report.md"))
    write(folder, "config.json", *KEPT, text="new")
    for kind in ("best", "resume"):
        shutil.rmtree(pathlib.Path(folder, f"checkpoints/{kind}/epoch-1"))
        write_checkpoint(folder, kind, 2, "new")  # was damaged, and is trained again
        write_checkpoint(folder, kind, 3, "new")
    write(folder, "report.md", text="new")


def is_killed_while_it_copies(store, monkeypatch, left):
    """False if it had nothing more to copy."""
    with contextlib.suppress(DyingError), opened() as folder:
        replace_by_a_longer_run(folder)
        dying = DyingStore(store, left)
        monkeypatch.setattr(remote_run._copies[folder], "_fs", dying)
        remote_run.upload(folder)
        raise DyingError  # after the copy
    return dying.left < 0


def test_wherever_a_copy_ends_what_is_there_can_be_resumed(store, monkeypatch):
    """Killed after each single object of a copy, which replaces a finished run by a longer one."""
    results = [*KEPT, "config.json", "history.csv", "model.keras", "report.md"]
    for left in range(100):
        store.store.clear()
        with opened() as folder:
            write(folder, *results)
            for kind in ("best", "resume"):
                write_checkpoint(folder, kind, 1)
                write_checkpoint(folder, kind, 2)
        killed = is_killed_while_it_copies(store, monkeypatch, left)
        with opened() as folder:
            resumable = run_files.list_checkpoints(f"{folder}/checkpoints/resume")
            assert resumable
            for epoch, _ in resumable:
                for kind in ("best", "resume"):
                    parts = pathlib.Path(folder, f"checkpoints/{kind}/epoch-{epoch}").iterdir()
                    texts = [part.read_text() for part in parts]
                    assert texts in (["x", "x"], ["new", "new"]), (left, epoch, kind)
            if run_files.is_finished(folder):
                contents = {pathlib.Path(folder, name).read_text() for name in KEPT}
                assert len(contents) == 1, left
        if not killed:
            break
    assert 10 < left < 99


def test_what_a_killed_process_left_incomplete_is_removed(store):
    store.pipe_file("/store/runs/first/config.json", b"x")
    store.pipe_file("/store/runs/first/checkpoints/resume/epoch-1/state.data-0", b"x")
    with opened() as folder:
        assert names_in(folder) == ["config.json"]
        remote_run.upload(folder)
    assert store.find("/store") == ["/store/runs/first/config.json"]


def test_a_second_process_is_kept_out_and_a_killed_one_is_replaced(store, capsys):
    with opened(), pytest.raises(TemporaryError) as refused, opened():
        pass
    assert re.fullmatch(
        rf"process \d+ on .+ is writing to --run_dir={ADDRESS}, wait for its end .*",
        str(refused.value),
    )
    store.pipe_file("/store/runs/first/.lock-3", b"process 7 on gone\n")
    with opened() as folder:
        assert [name for name in store.find("/store") if ".lock" in name] == [
            "/store/runs/first/.lock-4"
        ]
        assert "process 7 on gone: waiting" in capsys.readouterr().out
        # It was suspended, and another one has taken over: nothing of this one is copied.
        store.pipe_file("/store/runs/first/.lock-5", b"process 8 on other\n")
        write(folder, "config.json")
        with pytest.raises(TemporaryError, match=f"has taken over --run_dir={ADDRESS}"):
            remote_run.upload(folder)
        store.rm_file("/store/runs/first/.lock-5")
    assert not [name for name in store.find("/store") if ".lock" in name]


def test_a_failure_is_not_hidden_by_one_of_its_last_copy(store):
    def fail():
        store.pipe_file("/store/runs/first/.lock-5", b"process 8 on other\n")
        raise UserError("the reason")

    with pytest.raises(UserError, match="the reason"), opened():
        fail()


def test_of_two_that_take_over_one_succeeds(store):
    first, second = (store_locks._Lock(ADDRESS, "x") for _ in range(2))
    assert first._create(1)
    assert not second._create(1)


def test_a_process_that_only_reads_takes_no_lock_and_writes_nothing(store):
    store.pipe_file("/store/runs/first/config.json", b"x")
    with opened() as folder, remote_run.opened(ADDRESS, lambda folder: False) as other:
        write(folder, "history.csv")
        remote_run.upload(folder)
        write(other, "mine")
        remote_run.upload(other)
        assert "history.csv" not in names_in(other)
        remote_run.refresh(other)
        assert names_in(other) == ["config.json", "history.csv"]


def test_the_model_that_a_run_starts_from_is_hashed_at_its_address_too(store):
    assert same_run.hash_initial_model(ADDRESS) == same_run.hash_initial_model("") == ""
    store.pipe_file("/store/runs/first/model.keras", b"weights")
    assert same_run.hash_initial_model(ADDRESS) == hashlib.sha256(b"weights").hexdigest()


def test_a_finished_run_is_read_from_its_address(store, tmp_path):
    fake_run.write_run(tmp_path / "run")
    with pytest.raises(UserError, match=rf"^{ADDRESS}/config\.json: "):
        read_run(ADDRESS)
    store.put(str(tmp_path / "run") + "/", "/store/runs/first", recursive=True)
    store.pipe_file("/store/runs/first/checkpoints/resume/epoch-1/state.index", b"x")
    run = read_run(ADDRESS)
    assert run.metrics == read_run(str(tmp_path / "run")).metrics
    assert len(run.predictions("test").labels) == sum(fake_run.COUNTS["test"])
    assert not os.path.exists(os.path.join(run.path, "checkpoints"))
    assert remote_run.address_of(run.path) == ADDRESS
    assert json.loads(pathlib.Path(run.path, "config.json").read_text())["config"]
