"""Few points in place of many images, for weighted sums of a smooth function of their scores.

A bootstrap fits the same curve to thousands of weight vectors. What it needs of the images are sums
of w * f(score), with f as smooth as a logistic curve. Between few points of a short range such an f
is a polynomial, up to rounding errors: the images of the range can be replaced by the points, and
the weights of the points are found once, by a product of matrices.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Of a range in which a slope times the score changes by 2: by Chebyshev interpolation of this many
# points a logistic curve, whose nearest pole is pi away, is off by 1e-11 at most.
_POINTS = 14


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of positives and negatives, and how much each counts in many resamples.

    Attributes:
      positive: bool [n].
      values: float64 [n].
      weights: float64 [b, n]; those of condensed scores may be negative.
    """

    positive: np.ndarray
    values: np.ndarray
    weights: np.ndarray

    def rows(self, rows: np.ndarray) -> Scores:
        """The resamples `rows`, bool or integers [b]."""
        return dataclasses.replace(self, weights=self.weights[rows])

    def condensed(self, steepest: float) -> Scores:
        """Fewer scores with the same sums of w * f(a + b * value), for |b| up to `steepest`.

        f may be a logistic curve, or such a curve times a low power of the value. Scores that are
        in order, rising or falling, become fewest.
        """
        width = 2 / steepest
        first = self.values.min()
        cells = np.floor((self.values - first) / width)
        starts = np.flatnonzero(np.r_[True, cells[1:] != cells[:-1]])
        positive, values, weights = [], [], []
        for start, end in zip(starts, [*starts[1:], len(cells)], strict=True):
            here = self.weights[:, start:end]
            scores, truth = self.values[start:end], self.positive[start:end]
            middle = first + (cells[start] + 0.5) * width
            for side in (True, False):
                members = np.flatnonzero(truth == side)
                if len(members) <= _POINTS:
                    values.append(scores[members])
                    weights.append(here[:, members])
                else:
                    values.append(middle + _NODES * width / 2)
                    shares = np.zeros((len(scores), _POINTS))
                    shares[members] = _shares((scores[members] - middle) / (width / 2))
                    weights.append(here @ shares)
                positive.append(np.full(len(values[-1]), side))
        return Scores(
            np.concatenate(positive), np.concatenate(values), np.concatenate(weights, axis=1)
        )


_ANGLES = (np.arange(_POINTS) + 0.5) * np.pi / _POINTS
_NODES = np.cos(_ANGLES)  # Chebyshev's, in -1..1
_DEGREES = np.arange(_POINTS)[:, np.newaxis]
# Of a polynomial: from its values at the nodes to its coefficients in Chebyshev's polynomials.
_COEFFICIENTS = np.where(_DEGREES == 0, 1, 2) / _POINTS * np.cos(_DEGREES * _ANGLES)


def _shares(positions: np.ndarray) -> np.ndarray:
    """float64 [n, points]: how much of the weight at each position goes to each node.

    Args:
      positions: float64 [n], in -1..1.
    """
    angles = np.arccos(np.clip(positions, -1, 1))
    return np.cos(angles[:, np.newaxis] * _DEGREES[:, 0]) @ _COEFFICIENTS
