"""Progress in a log: short work says nothing, long work a line at a time."""

import sys

import pytest

from cxr_tfrecords.console.progress import ProgressLines, each, progress
from cxr_tfrecords.errors import UserError


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass where the test says so."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_long_work_says_a_line_at_each_interval_and_at_its_end(clock, capsys):
    with ProgressLines(2000, "Inspect", initial=1000, seconds=30) as lines:
        for seconds, done in ((10, 100), (25, 100), (40, 300), (20, 0)):
            clock[0] += seconds
            lines.update(done)
        lines.update(500)
    assert capsys.readouterr().err.splitlines() == [
        "Inspect: 1200 of 2000 (60%) in 00:35, 02:20 left",
        "Inspect: 1500 of 2000 (75%) in 01:15, 01:15 left",
        "Inspect: 2000 of 2000 (100%) in 01:35, 00:00 left",
    ]


def test_short_work_says_nothing_in_a_log(clock, capsys):
    assert list(each(["a", "b"], "page", " images")) == ["a", "b"]
    with progress(None, "Synthesize", " images") as bar:
        bar.total = 5
        clock[0] += 29
        bar.update(5)
        assert bar.n == 5
    assert capsys.readouterr().err == ""


def test_work_that_failed_does_not_say_that_it_ended(clock, capsys):
    def fail():
        with ProgressLines(10, "Verify", seconds=30) as lines:
            clock[0] += 30
            lines.update(1)
            raise UserError("a damaged shard")

    with pytest.raises(UserError, match="damaged"):
        fail()
    assert capsys.readouterr().err.splitlines() == ["Verify: 1 of 10 (10%) in 00:30, 04:30 left"]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(3, "Verify", " images") as bar:
        bar.update(3)
    assert "Verify: 100%|" in capsys.readouterr().err
