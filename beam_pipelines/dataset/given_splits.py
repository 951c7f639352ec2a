"""What the manifest says of splits that a user gave, and of images that leave them."""

from __future__ import annotations

from typing import Any

import numpy as np

from beam_pipelines.planning.grouping import LEAKS, Columns
from beam_pipelines.planning.plan import BuildPlan
from beam_pipelines.settings.config import BuildConfig

_LISTED = 1000  # sources.csv names all


def describe_given_splits(plan: BuildPlan, columns: Columns, config: BuildConfig) -> dict[str, Any]:
    """Images with a given split, and those that --given_leaks set aside, with the given splits."""
    dropped = np.flatnonzero(plan.outcome == LEAKS)
    listed = dropped[:_LISTED]
    names = columns.strings("filename", listed)
    return {
        "images": int((plan.published[plan.num_existing :] >= 0).sum()),
        "leaks": config.given_leaks,
        "leaking_groups": len(np.unique(plan.groups[dropped])),
        "dropped": len(dropped),
        "dropped_files": [
            {
                "file": name,
                "class": plan.class_names[plan.labels[row]],
                "group": plan.group_id(row),
                "split": plan.split_names[plan.published[row]],
            }
            for name, row in zip(names, listed.tolist(), strict=True)
        ],
    }
