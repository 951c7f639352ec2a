"""What balancing a whole data set before it is split would do to its test split.

Nothing here trains or changes a data set: it shows why samplers change the training split alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.epochs.plan import EpochPlanner
from trainer.settings.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Copies:
    """The copies of a class's images when they are split at random, each for itself.

    Attributes:
      images: different images; copies: of each; tested: copies that lie in the test split.
    """

    images: int
    copies: int
    tested: int

    @property
    def expected_share(self) -> float:
        """The expected share of the test copies with another copy outside of the test split: 1 less
        the chance that all other copies of an image are drawn for the test split too."""
        total = self.images * self.copies
        return 1.0 - float(
            np.prod([(self.tested - j) / (total - j) for j in range(1, self.copies)])
        )

    def simulate(self, rng: np.random.Generator) -> int:
        """The number of test copies with another copy outside, in one random split."""
        image = np.repeat(np.arange(self.images), self.copies)
        in_test = np.bincount(rng.permutation(image)[: self.tested], minlength=self.images)
        return int(in_test[in_test < self.copies].sum())


def describe(
    class_names: Sequence[str], counts: Sequence[int], test_share: float, seed: int = 0
) -> str:
    """Tables of oversampling and undersampling all images before a stratified split.

    Args:
      counts: all images of each class.
      test_share: of the images, in the test split; seed: of the simulated split.

    Raises:
      UserError: a class is empty.
    """
    planned = {
        sampler: EpochPlanner(TrainConfig("", sampler=sampler), class_names, counts).planned_counts(
            0
        )
        for sampler in ("oversample", "undersample")
    }
    natural, rng = np.asarray(counts), np.random.default_rng(seed)
    columns = {
        "natural": _with_shares(natural),
        "test, undersampled": _with_shares(_tested(planned["undersample"], test_share)),
    }
    tested = _tested(planned["oversample"], test_share)
    classes = [
        Copies(n, int(all_copies) // n, int(t))
        for n, all_copies, t in zip(counts, planned["oversample"], tested, strict=True)
    ]
    expected = np.array([one.expected_share * one.tested for one in classes])
    simulated = np.array([one.simulate(rng) for one in classes])
    columns |= {
        "test, oversampled": _with_shares(tested),
        "copies of an image": [*(str(one.copies) for one in classes), ""],
        "copy outside test": _shares_of(expected, tested),
        "simulated once": _shares_of(simulated, tested),
    }
    names = [*class_names, "all"]
    title = f"before a split, test {test_share:.0%}"
    first = max(map(len, [*names, title]))
    lines = [f"{title:{first}}" + "".join(f"{column:>20}" for column in columns)]
    for name, *cells in zip(names, *columns.values(), strict=True):
        lines.append(f"{name:{first}}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(
        [
            *lines,
            f"Oversampled before the split, {expected.sum() / tested.sum():.1%} of the test images "
            "would have a copy in training or validation.",
            "Class shares of both test splits are those of the balancing and not the natural ones.",
        ]
    )


def _tested(images: np.ndarray, share: float) -> np.ndarray:
    """int64 [classes]: images in the test split."""
    return np.rint(images * share).astype(np.int64)


def _with_shares(counts: np.ndarray) -> list[str]:
    cells = [f"{count:,} {count / counts.sum():6.1%}" for count in counts]
    return [*cells, f"{counts.sum():,} {1:6.1%}"]


def _shares_of(parts: np.ndarray, counts: np.ndarray) -> list[str]:
    shares = np.append(parts, parts.sum()) / np.maximum(np.append(counts, counts.sum()), 1)
    return [f"{share:.1%}" for share in shares]
