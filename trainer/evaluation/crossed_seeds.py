"""Intervals of methods that were trained with several seeds and tested on the same images.

    study = CrossedSeeds([a, b, c], [(0, 1, 2)] * 3, groups=353)    # a: [3, 1 + resamples]
    study.mean(0).interval()             # of the first method, for other seeds and other images
    study.difference(1, 0).interval()    # the second minus the first, with a p-value

Seeds and images are crossed: the model of every seed sees every image. Radiology has the same
design, readers x cases, and its analysis is used here: Obuchowski and Rockette (1995) with the
degrees of freedom of Hillis (2007), seeds as readers and methods as modalities. How seeds differ
comes from the values of the seeds, how images differ from a bootstrap over groups.

One thing is added: the mean square of the seeds is at least what the noise of single images makes
of it, which the bootstrap knows. Two seeds that agree by chance would otherwise look exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

from trainer.evaluation.bootstrap import FIXED, RANDOM, Interval
from trainer.evaluation.shares import score_ends

# A pair's seeds differ more than those of the other methods if an F test says so at this level.
_UNEQUAL_BELOW = 0.1


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a difference of two, with the parts of its variance.

    Attributes:
      value: None if the metric is undefined for the sample.
      seed_variance: part of the variance that falls with more seeds. Noise of single images under
        single seeds is in it.
      image_variance: part that stays however many seeds there are, and falls with more images.
      noise: the part of `seed_variance` that falls with more images too.
      seeds: number of seeds of each method, the smaller if they differ.
      seed_df: degrees of freedom of `seed_variance`; 0 with one seed, where nothing is known of
        other seeds: the interval then holds for these trained models only.
      groups: image groups that decide the value.
      resamples, left_out: of the bootstrap: used, and undefined.
    """

    value: float | None
    seed_variance: float
    image_variance: float
    noise: float
    seeds: int
    seed_df: float
    groups: int
    resamples: int
    left_out: int

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.seed_variance + self.image_variance))

    @property
    def df(self) -> float:
        """Degrees of freedom (Hillis 2007, eq. 7), at most the number of groups - 1: the variance
        over images is estimated from these groups."""
        most = max(1.0, self.groups - 1.0)
        if not self.seed_df or not self.seed_variance:
            return most
        total = self.seed_variance + self.image_variance
        return float(min(most, total**2 / (self.seed_variance**2 / self.seed_df)))

    @property
    def p_value(self) -> float | None:
        """Two-sided, of the null hypothesis 0; None without a value or without any variance."""
        return self.p_beyond(0.0)

    def p_beyond(self, border: float) -> float | None:
        """Two-sided p-value of the null hypothesis that the true value is `border`."""
        if self.value is None or not self.standard_error:
            return None
        return float(2 * scipy.stats.t.sf(abs(self.value - border) / self.standard_error, self.df))

    def interval(
        self, level: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
    ) -> Interval:
        """Student's interval, cut to the metric's range, with the p-value of 0."""
        low = high = None
        if self.value is not None and self.standard_error:
            reach = scipy.stats.t.ppf((1 + level) / 2, self.df) * self.standard_error
            low, high = np.clip([self.value - reach, self.value + reach], *bounds).tolist()
        return self._with_ends(low, high, level, self.p_value)

    def share_interval(self, level: float = 0.95, rare: bool = False) -> Interval:
        """Interval of a metric from 0 to 1: Wilson's score interval (1927) of the number of
        independent images that would have the same variance (Kish 1965; Korn and Graubard 1998).

        It stays inside of 0 to 1, and 8 of 8 gives a lower end below 1, where the bootstrap sees no
        variance at all: then, and in a rare class, the number is at most that of the groups.
        """
        if self.value is None:
            return self._with_ends(None, None, level, None)
        spread = self.value * (1 - self.value)
        count = spread / self.standard_error**2 if self.standard_error and spread else np.inf
        if rare or not np.isfinite(count):
            count = min(count, self.groups)
        low, high = score_ends(self.value, count, scipy.stats.t.ppf((1 + level) / 2, self.df))
        return self._with_ends(low, high, level, None)

    def _with_ends(
        self, low: float | None, high: float | None, level: float, p_value: float | None
    ) -> Interval:
        return Interval(
            estimate=self.value,
            low=low,
            high=high,
            level=level,
            resamples=self.resamples,
            left_out=self.left_out,
            seeds=RANDOM if self.seed_df else FIXED,
            p_value=p_value,
            standard_error=self.standard_error if self.value is not None else None,
            df=self.df if self.value is not None else None,
        )


class CrossedSeeds:
    """One metric of several methods, for intervals of means and of differences.

    Args:
      values: of each method, float64 [seeds, 1 + resamples]: entry 0 of a row is of the sample, the
        others of the same resamples of groups for all methods. NaN where undefined.
      seeds: of each method, the seeds of its rows.
      groups: number of image groups that decide the metric: of a mean over classes, those of the
        smallest class; the degrees of freedom are at most one less.
    """

    def __init__(
        self, values: Sequence[np.ndarray], seeds: Sequence[Sequence[int]], groups: int
    ) -> None:
        self._estimates = [np.asarray(rows, np.float64)[:, 0] for rows in values]
        self._seeds = [tuple(one) for one in seeds]
        self._groups = groups
        resampled = [np.asarray(rows, np.float64)[:, 1:] for rows in values]
        self._total = resampled[0].shape[1]
        usable = [_usable(e, r) for e, r in zip(self._estimates, resampled, strict=True)]
        # A method without this metric (precision of a class that it never predicts) must not take
        # the resamples of the others along.
        self._members = [i for i, is_usable in enumerate(usable) if is_usable]
        self._covariance: dict[tuple[int, int], np.ndarray] = {}
        if self._members:
            rows = np.concatenate([resampled[i] for i in self._members])
            defined = ~np.isnan(rows).any(axis=0)
            self._resamples = int(defined.sum())
            self._fill_covariance(rows[:, defined])
        if not self._covariance:
            self._members, self._resamples = [], 0

    def _fill_covariance(self, rows: np.ndarray) -> None:
        if rows.shape[1] < max(2, self._total / 2):
            return
        # Drawing groups with replacement gives (groups - 1) / groups of the variance.
        whole = np.atleast_2d(np.cov(rows)) * self._groups / max(1, self._groups - 1)
        ends = np.cumsum([len(self._seeds[i]) for i in self._members])
        slices = [
            slice(e - len(self._seeds[i]), e) for i, e in zip(self._members, ends, strict=True)
        ]
        for i, at in zip(self._members, slices, strict=True):
            for k, beside in zip(self._members, slices, strict=True):
                self._covariance[i, k] = whole[at, beside]

    def mean(self, i: int) -> Estimate:
        """The mean over seeds of method `i` (Hillis 2007, sec. 5: from its own seeds alone)."""
        if i not in self._members:
            return self._undefined(_mean_value(self._estimates[i]), i)
        count, covariance = len(self._seeds[i]), self._covariance[i, i]
        value = float(self._estimates[i].mean())
        if count == 1:
            return self._estimate(value, 0.0, float(covariance[0, 0]), 0.0, 1, 0)
        square = float(self._estimates[i].var(ddof=1))
        between = _off_diagonal(covariance)
        noise = max(0.0, float(np.diag(covariance).mean()) - between)
        square = max(square, noise)
        return self._estimate(
            value, square / count, max(between, 0.0), noise / count, count, count - 1
        )

    def difference(self, i: int, k: int) -> Estimate:
        """Method `i` minus method `k`.

        With the same seeds, seeds cancel as images do, and the mean square of method x seed comes
        from all methods that have these seeds: its degrees of freedom are what makes few seeds
        enough. It comes from these two methods alone where their seeds differ much more than those
        of the others (F test). Where the two have different seeds, each brings its own variance
        (Satterthwaite 1946). Where one of them has a single seed, the difference is one of trained
        models.
        """
        if i not in self._members or k not in self._members:
            values = [_mean_value(self._estimates[m]) for m in (i, k)]
            known = None if None in values else values[0] - values[1]  # type: ignore[operator]
            return self._undefined(known, i)
        if min(len(self._seeds[i]), len(self._seeds[k])) == 1:
            return self._difference_of_models(i, k)
        if self._seeds[i] != self._seeds[k]:
            return self._unpaired_difference(i, k)
        return self._paired_difference(i, k)

    def _paired_difference(self, i: int, k: int) -> Estimate:
        count = len(self._seeds[i])
        alike = [m for m in self._members if self._seeds[m] == self._seeds[i]]
        pair = [i, k]
        square, df = self._mean_square(pair if self._is_unequal(pair, alike) else alike)
        own, other = self._covariance[i, i], self._covariance[k, k]
        cross = self._covariance[i, k]
        within = (_off_diagonal(own) + _off_diagonal(other)) / 2
        images = max(0.0, within - _off_diagonal(cross))
        single = (np.diag(own).mean() + np.diag(other).mean()) / 2 - np.diag(cross).mean()
        value = float(self._estimates[i].mean() - self._estimates[k].mean())
        noise = max(0.0, float(single) - images)
        square = max(square, noise)
        return self._estimate(value, 2 * square / count, 2 * images, 2 * noise / count, count, df)

    def _unpaired_difference(self, i: int, k: int) -> Estimate:
        a, b = self.mean(i), self.mean(k)
        seeds = a.seed_variance + b.seed_variance
        squares = [e.seed_variance**2 / e.seed_df for e in (a, b)]
        images = a.image_variance + b.image_variance - 2 * float(self._covariance[i, k].mean())
        df = seeds**2 / sum(squares) if seeds else float(a.seed_df + b.seed_df)
        value = float(self._estimates[i].mean() - self._estimates[k].mean())
        count = min(a.seeds, b.seeds)
        return self._estimate(value, seeds, max(0.0, images), a.noise + b.noise, count, df)

    def _difference_of_models(self, i: int, k: int) -> Estimate:
        both = [self._covariance[m, n].mean() for m, n in ((i, i), (k, k), (i, k))]
        variance = max(0.0, float(both[0] + both[1] - 2 * both[2]))
        value = float(self._estimates[i].mean() - self._estimates[k].mean())
        return self._estimate(value, 0.0, variance, 0.0, 1, 0)

    def _mean_square(self, members: Sequence[int]) -> tuple[float, int]:
        """Mean square of method x seed, and its degrees of freedom."""
        table = np.stack([self._estimates[m] for m in members])
        rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        df = (table.shape[0] - 1) * (table.shape[1] - 1)
        return float((rest**2).sum() / df), df

    def _is_unequal(self, pair: Sequence[int], alike: Sequence[int]) -> bool:
        others = [m for m in alike if m not in pair]
        if len(others) < 2:
            return False
        (square, df), (rest, rest_df) = self._mean_square(pair), self._mean_square(others)
        if rest == 0:
            return square > 0
        return bool(scipy.stats.f.sf(square / rest, df, rest_df) < _UNEQUAL_BELOW)

    def _estimate(
        self, value: float, seeds: float, images: float, noise: float, count: int, df: float
    ) -> Estimate:
        left_out = self._total - self._resamples
        return Estimate(
            value, seeds, images, noise, count, df, self._groups, self._resamples, left_out
        )

    def _undefined(self, value: float | None, i: int) -> Estimate:
        """Of a metric without an interval: too few resamples in which it is defined."""
        count = len(self._seeds[i])
        return Estimate(value, 0.0, 0.0, 0.0, count, 0, self._groups, 0, self._total)


def _usable(estimates: np.ndarray, resampled: np.ndarray) -> bool:
    defined = ~np.isnan(resampled).any(axis=0)
    return not np.isnan(estimates).any() and 2 * int(defined.sum()) >= max(4, resampled.shape[1])


def _mean_value(estimates: np.ndarray) -> float | None:
    return None if np.isnan(estimates).any() else float(estimates.mean())


def _off_diagonal(matrix: np.ndarray) -> float:
    """Mean of the entries of two different seeds."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
