"""The lock of a folder in an object store, against servers on this machine."""

import pytest

from cxr_tfrecords.concurrency import store_locks
from cxr_tfrecords.errors import TemporaryError

pytestmark = pytest.mark.slow


def test_who_finds_no_lock_but_is_slower_does_not_get_it(store):
    """Only the store can tell: both have seen an empty folder."""
    scheme, fs = store
    folder = f"{scheme}://bucket/run"
    slower = store_locks._Lock(folder, "--run_dir")
    with store_locks.held(folder, "--run_dir") as check:
        assert not slower._create(1)
        check()
    assert fs.find("bucket/run") == []


def test_a_holder_that_is_alive_keeps_the_lock_and_a_dead_one_loses_it(store, monkeypatch):
    monkeypatch.setattr(store_locks, "BEAT", 0.1)
    monkeypatch.setattr(store_locks, "LEASE", 1.0)
    folder = f"{store[0]}://bucket/run"
    with (
        store_locks.held(folder, "--run_dir"),
        pytest.raises(TemporaryError, match="is writing to --run_dir"),
        store_locks.held(folder, "--run_dir"),
    ):
        pass
    dead = store_locks._Lock(folder, "--run_dir")
    dead.take()
    with (
        store_locks.held(folder, "--run_dir"),
        pytest.raises(TemporaryError, match="another process has taken over"),
    ):
        dead.check()
