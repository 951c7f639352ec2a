"""What a sampler did in each epoch: classes planned and delivered, coverage, repeats, reading.

Everything is computed from the plans, which are pure functions of the run's settings. So an audit
reads no record, a resumed run gets the same audit, and a preview needs no training. `check_trained`
compares it with the images that a run really trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords.pages.class_lists import few
from trainer.balancing.samplers import EpochPlan
from trainer.epochs.plan import EpochPlanner
from trainer.settings.config import TrainConfig

# The meters count in float32, which is exact up to this number.
_EXACT_COUNTS = 2**24


@dataclasses.dataclass(frozen=True)
class EpochAudit:
    """One epoch; arrays are int64 [classes].

    Attributes:
      epoch: counted from 1.
      planned: records that the sampler aims at, before the last, partial batch is left out.
      realised: records delivered, in whole batches.
      unique: different records among them.
      unique_so_far: different records in all epochs up to this one.
      largest_repeat: how often the most frequent record is delivered.
      records_read: records that all hosts together read, used or not.
    """

    epoch: int
    planned: np.ndarray
    realised: np.ndarray
    unique: np.ndarray
    unique_so_far: np.ndarray
    largest_repeat: int
    records_read: int

    @property
    def read_amplification(self) -> float:
        """Records read from shards for each record delivered; at least 1."""
        return self.records_read / max(int(self.realised.sum()), 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "planned_counts": self.planned.tolist(),
            "planned_shares": _shares(self.planned),
            "realised_counts": self.realised.tolist(),
            "realised_shares": _shares(self.realised),
            "unique": self.unique.tolist(),
            "unique_so_far": self.unique_so_far.tolist(),
            "largest_repeat": self.largest_repeat,
            "records_read": self.records_read,
            "records_delivered": int(self.realised.sum()),
            "read_amplification": round(self.read_amplification, 6),
        }


class SamplerAudit:
    """Audits a run's epochs one after the other."""

    def __init__(
        self,
        config: TrainConfig,
        class_names: Sequence[str],
        counts: Sequence[int],
        *,
        streaming_hosts: int = 0,
    ) -> None:
        """Begins before the first epoch.

        Args:
          counts: training records of each class.
          streaming_hosts: hosts that read the shards in every epoch; 0: the decoded split is in
            memory, and only the records that are delivered are read.
        """
        self.sampler, self.class_names = config.sampler, class_names
        self.counts = np.asarray(counts, np.int64)
        self._planner = EpochPlanner(config, class_names, self.counts.tolist())
        self._hosts = streaming_hosts
        self._seen = np.zeros(int(self.counts.sum()), bool)
        self.rows: list[EpochAudit] = []

    def measure(self, plan: EpochPlan) -> EpochAudit:
        """Audits the plan of the next epoch, without adding it."""
        times = self._times(plan)
        most = np.array([part.max(initial=0) for part in self._by_class(times)])
        read = len(plan.labels)
        if self._hosts:
            # Every host reads the whole class as many times as its most frequent record is
            # delivered: see trainer.input.shard_reading.
            read = self._hosts * int(most @ self.counts)
        return EpochAudit(
            epoch=len(self.rows) + 1,
            planned=self._planner.planned_counts(len(self.rows)),
            realised=np.bincount(plan.labels, minlength=len(self.counts)),
            unique=self._count(times > 0),
            unique_so_far=self._count(self._seen | (times > 0)),
            largest_repeat=int(most.max(initial=0)),
            records_read=read,
        )

    def add(self, plan: EpochPlan) -> EpochAudit:
        """Audits the next epoch's plan and remembers it."""
        row = self.measure(plan)
        self._seen |= self._times(plan) > 0
        self.rows.append(row)
        return row

    def catch_up(self, epochs: int) -> None:
        """Adds the plans of all epochs before number `epochs` (from 0), for a resumed run."""
        for epoch in range(len(self.rows), epochs):
            self.add(self.plan(epoch))

    def plan(self, epoch: int) -> EpochPlan:
        """The run's plan of an epoch (from 0).

        Raises:
          UserError: see `EpochPlanner`.
        """
        return self._planner.plan(epoch)

    def to_json(self) -> dict[str, Any]:
        return {
            "sampler": self.sampler,
            "class_names": list(self.class_names),
            "natural_counts": self.counts.tolist(),
            "natural_shares": _shares(self.counts),
            "streaming_hosts": self._hosts,
            "epochs": [row.to_json() for row in self.rows],
        }

    def _times(self, plan: EpochPlan) -> np.ndarray:
        """int64 [records], how often the plan delivers each record of the split."""
        starts = np.cumsum(self.counts) - self.counts
        return np.bincount(starts[plan.labels] + plan.ordinals, minlength=len(self._seen))

    def _by_class(self, values: np.ndarray) -> list[np.ndarray]:
        return np.split(values, np.cumsum(self.counts)[:-1])

    def _count(self, marked: np.ndarray) -> np.ndarray:
        return np.array([np.count_nonzero(part) for part in self._by_class(marked)], np.int64)


def check_trained(audit: EpochAudit, confusion: np.ndarray) -> None:
    """Compares the classes that an epoch trained on with its plan.

    Args:
      confusion: int64 [classes, classes], true by predicted, of all steps of the epoch.

    Raises:
      RuntimeError: they differ. That is a bug: the run would not be what its settings say.
    """
    trained = confusion.sum(axis=1)
    if trained.max(initial=0) >= _EXACT_COUNTS:
        return
    if not np.array_equal(trained, audit.realised):
        raise RuntimeError(
            f"epoch {audit.epoch} trained on {trained.tolist()} images of the classes, but its "
            f"plan holds {audit.realised.tolist()}: please report this error with the command"
        )


def describe_epoch(content: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """One line on an epoch: shares, coverage, repeats, reading.

    Args:
      content: as `SamplerAudit.to_json` gives it; its `epochs` are not used.
      row: one of its `epochs`.
    """
    shares = few(
        f"{name} {realised:.1%} (plan {planned:.1%})"
        for name, realised, planned in zip(
            content["class_names"], row["realised_shares"], row["planned_shares"], strict=True
        )
    )
    times = row["largest_repeat"]
    return (
        f"epoch {row['epoch']} shares {shares}; {sum(row['unique_so_far']):,} of "
        f"{sum(content['natural_counts']):,} images seen, one image at most "
        f"{times} time{'s' if times != 1 else ''}, "
        f"{row['read_amplification']:.2f} records read for each one delivered"
    )


def describe_run(content: Mapping[str, Any], *, checked: bool = True) -> str:
    """A summary of a whole run's audit, in Markdown.

    Args:
      checked: whether `check_trained` compared the plans with the images trained on.
    """
    rows = content["epochs"]
    first, last = rows[0], rows[-1]
    lines = ["Sampler audit (`sampler_audit.json`):", "", f"- {describe_epoch(content, first)}"]
    if len(rows) > 1:
        lines.append(f"- {describe_epoch(content, last)}")
    seen = few(
        f"{name} {unique:,} of {natural:,}"
        for name, unique, natural in zip(
            content["class_names"], last["unique_so_far"], content["natural_counts"], strict=True
        )
    )
    lines.append(f"- different images in all epochs ({len(rows)}): {seen}")
    if checked:
        lines.append(
            "- in every epoch the classes trained on were those of the plan, image for image "
            "(the training confusion matrix's row sums)"
        )
    return "\n".join(lines)


def total_planned(content: Mapping[str, Any]) -> np.ndarray:
    """int64 [classes], planned records over all epochs of an audit's content."""
    return np.sum([row["planned_counts"] for row in content["epochs"]], axis=0)


def _shares(counts: np.ndarray) -> list[float]:
    return [round(float(share), 6) for share in counts / max(int(counts.sum()), 1)]
