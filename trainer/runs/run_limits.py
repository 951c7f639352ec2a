"""What the figures of one run do not say."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from cxr_tfrecords.pages.markdown import code, escaped
from trainer.runs import initial_run
from trainer.runs.balancing_notes import balancing_notes
from trainer.runs.finished_run import FinishedRun


def run_limits(run: FinishedRun, *, elsewhere: bool = False) -> Iterable[str]:
    """Sentences in Markdown.

    Args:
      elsewhere: whether the run was evaluated on another data set.
    """
    unit = run.dataset["split_unit"] or "unknown"
    proof = shlex.join(["python", "-m", "cxr_tfrecords.verify", run.dataset["path"]])
    yield (
        f"Unit of the split: {escaped(unit)}. All images of a unit are in "
        f"the same split ({code(proof)} proves it). If "
        "patients are unknown, images of one patient may be in two splits: the figures then hold "
        "for images, not for patients, and may be too good."
    )
    yield (
        f"The epoch was chosen by {run.config.monitor.replace('_', ' ')}, so the validation "
        "figures are too good. The test split was read once, at the end; choosing among runs by "
        "their test figures would make these too good as well."
    )
    support = {n: v["support"] for n, v in run.metrics["test"]["per_class"].items() if v["support"]}
    rarest = min(support, key=lambda name: support[name])
    plural = "s" * (support[rarest] > 1)
    yield (
        f"{escaped(rarest)} has {support[rarest]:,} test image{plural}: one of them is "
        f"{100 / support[rarest]:.1f} points of its recall."
    )
    yield (
        "This is one seed. Another seed gives other figures, and the interval above covers only "
        "the choice of test images: two such pages cannot show that two methods differ "
        "(`python -m trainer.compare` can)."
    )
    yield from balancing_notes(run)
    yield from initial_run.limits(run.config)
    if not elsewhere:
        yield "No other hospital, scanner or period was tested."
    yield (
        "Classes that come from different sources can be told apart by their source. This is not a "
        "medical device."
    )
