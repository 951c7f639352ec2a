"""What a comparison says of its runs without resampling."""

import os
import types

import pytest

from trainer.comparison.entry_details import newest_run


@pytest.mark.parametrize(
    ("modified", "date"), [(0, "1970-01-01"), (1.8e9, "2027-01-15"), (1e13, "9999-12-31")]
)
def test_the_newest_run_has_a_date_whatever_the_clock_said(monkeypatch, modified, date):
    monkeypatch.setattr(os.path, "getmtime", lambda path: modified)
    entry = types.SimpleNamespace(runs=[types.SimpleNamespace(path="run")])
    assert newest_run([entry]) == date
