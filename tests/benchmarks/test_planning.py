"""The planning benchmark plans what it says: all files, copies found, none invented."""

import numpy as np

from beam_pipelines.planning.plan import plan_build
from beam_pipelines.settings.config import BuildConfig
from benchmarks import near_duplicates, planning
from cxr_tfrecords import synthetic


def test_every_made_up_file_is_planned_and_its_copies_found():
    found = planning.plan_once(3000)
    assert found.keys() == {"list_s", "plan_s"}
    labels = np.repeat(np.arange(4, dtype=np.int32), 500)
    plan = plan_build(["a", "b", "c", "d"], planning.MadeUp(labels), BuildConfig(), 0.0)
    # One file in 200 is a copy of the one before it.
    assert (plan.groups != np.arange(2000)).sum() == 10
    assert sum(len(shard.rows) for shard in plan.shards) == 2000


def test_changes_change_a_radiograph_and_keep_it_one():
    gray = synthetic.render("Normal", 3)[0]
    for name, change in near_duplicates.CHANGES.items():
        changed = change(gray)
        assert changed.dtype == np.uint8, name
        assert changed.ndim == 2, name
        assert changed.shape != gray.shape or (changed != gray).any(), name
