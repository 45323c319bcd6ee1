"""The one error model of all results: draws over seeds and cases, and the intervals and p-values made from them.

An interval generalises to other cases and to other trainings (seeds) of the same source models by the same judges; with
one seed, to other cases alone. Source models and judges are not resampled: there are too few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Array = npt.NDArray[np.float64]

BLOCK = 1024
"""Draws computed at once: what they need then stays in the cache, which is three times as fast as all at once."""
BOTH, CASES_ONLY = "cases and seeds", "cases"
"""What a p-value or an interval generalises to, as tables say it."""


class Summary(NamedTuple):
    """A number with its uncertainty: standard error, degrees of freedom, and the two-sided p-value against 0."""

    estimate: float
    low: float
    high: float
    stderr: float
    df: float
    p: float


@dataclass(frozen=True, eq=False)
class Draws:
    """Weights of seeds and cases: all ones first (the estimate itself), then those of every draw.

    A drawn mean is the mean with cases weighted, plus each seed's share in the mean times its weight minus 1, so that
    the variance over draws is the sum of the variances between seeds and between cases. (Products of the two weights,
    as in Owen's pigeonhole bootstrap, count the noise of single cells three times.) Case weights are multinomial. Seed
    weights are normal with the sample variance's n - 1 in the denominator, since with three seeds a multinomial draw
    would lose a third of the variance between seeds.

    Attributes:
        seeds: Shape (1 + draws, seeds).
        cases: Shape (1 + draws, cases).
    """

    seeds: Array
    cases: Array

    @property
    def scope(self) -> str:
        """What intervals from these draws generalise to."""
        return BOTH if self.seeds.shape[1] > 1 else CASES_ONLY

    def by_seed(self, cells: Array) -> Array:
        """Return weighted means over the cases of each seed, shape (columns, seeds, 1 + draws).

        Args:
            cells: Shape (columns, seeds, cases), NaN where there is none.
        """
        known = ~np.isnan(cells)
        filled = np.where(known, cells, 0.0)
        means = np.empty((*cells.shape[:2], len(self.cases)))
        for block in self._blocks():
            weights = self.cases[block].T
            means[:, :, block] = _divide(filled @ weights, known @ weights)
        return means

    def means(self, cells: Array) -> Array:
        """Return weighted means over seeds and cases, shape (columns, 1 + draws); NaN where nothing has weight.

        Args:
            cells: Shape (columns, seeds, cases), NaN where there is none.
        """
        known = ~np.isnan(cells)
        filled = np.where(known, cells, 0.0)
        # Most columns have a score for the same cells; their weights are computed once.
        masks, mask_of = np.unique(known.sum(axis=1), axis=0, return_inverse=True)
        sizes, of_case = masks.astype(np.float64), filled.sum(axis=1)
        n = known.sum(axis=(1, 2))
        estimate = _divide(filled.sum(axis=(1, 2)), n)
        of_seed = _divide(filled.sum(axis=2) - estimate[:, None] * known.sum(axis=2), n[:, None])
        means = np.empty((len(cells), len(self.cases)))
        for block in self._blocks():
            weights = self.cases[block].T
            by_case = _divide(of_case @ weights, (sizes @ weights)[mask_of.reshape(-1)])
            means[:, block] = by_case + of_seed @ (self.seeds[block] - 1).T
        return means

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self.cases), BLOCK):
            yield slice(start, min(start + BLOCK, len(self.cases)))

    @cached_property
    def _spread(self) -> tuple[Array, Array]:
        return _spread(self.seeds[1:])

    def freedom(self, drawn: Array) -> float:
        """Return Satterthwaite's degrees of freedom of a statistic, made conservative for few seeds.

        The part of the draws' variance that follows the seeds has ν = seeds - 1 of them, the rest cases - 1
        (Satterthwaite, Biometrics Bulletin 1946). With few seeds that part is often estimated too small. Then the
        standard error is too small, and the plain formula gives too many degrees of freedom besides: with three seeds
        95% intervals hold 92% of the time. Here the seeds' part enters the formula (ν + 2) / ν times, which gives 94
        to 96% whatever the seeds' true part is (`tests/results/test_intervals.py` counts it).

        Args:
            drawn: The statistic in every draw, without the estimate; NaN where it has none.
        """
        known = ~np.isnan(drawn)
        values = drawn[known]
        n_seeds, n_cases = self.seeds.shape[1], self.cases.shape[1]
        total = float(values.var()) if len(values) else 0.0
        if total <= 0 or n_seeds < 2:
            return float(max(n_cases - 1, 1))
        spread, inverse = self._spread if known.all() else _spread(self.seeds[1:][known])
        moments = (values @ spread - values.mean() * spread.sum(axis=0)) / len(values)
        seeds = float(moments @ inverse @ moments)
        seeds = min(max(seeds, 0.0), total)
        return degrees_of_freedom(seeds, total - seeds, n_seeds, n_cases)

    def interval(self, values: Array, confidence: float) -> tuple[float, float]:
        """Return the draws' percentiles, widened from normal to Student's t; (NaN, NaN) without draws.

        With few seeds the variance between them is itself uncertain: the distance of each percentile from the estimate
        is stretched by the ratio of Student's quantile, with the degrees of freedom of `freedom`, to the normal one.

        Args:
            values: Shape (1 + draws,), the estimate first; NaN draws are left out.
            confidence: Of the interval, between 0 and 1.
        """
        low, high = percentiles(values[1:], confidence)
        if np.isnan(low) or np.isnan(values[0]):
            return float("nan"), float("nan")
        return self._widened(values, low, high, confidence, self.freedom(values[1:]))

    def _widened(self, values: Array, low: float, high: float, confidence: float, df: float) -> tuple[float, float]:
        wider = quantile(confidence, df) / quantile(confidence, np.inf)
        # Draws need not have the estimate among them where the statistic is curved.
        centre = min(max(float(values[0]), low), high)
        return centre - wider * (centre - low), centre + wider * (high - centre)

    def summary(self, values: Array, confidence: float) -> Summary:
        """Return estimate, interval, standard error, degrees of freedom and two-sided p against 0 (Student's t).

        Args:
            values: Shape (1 + draws,), the estimate first; NaN draws are left out.
            confidence: Of the interval, between 0 and 1.
        """
        drawn = values[1:][~np.isnan(values[1:])]
        if len(drawn) < 2 or np.isnan(values[0]):
            return Summary(float(values[0]), *(float("nan"),) * 5)
        stderr, df = float(drawn.std(ddof=1)), self.freedom(values[1:])
        p = float(2 * special.stdtr(df, -abs(values[0]) / stderr)) if stderr > 0 else float("nan")
        bounds = self._widened(values, *percentiles(drawn, confidence), confidence, df)
        return Summary(float(values[0]), *bounds, stderr, df, p)


def degrees_of_freedom(of_seeds: float, of_cases: float, n_seeds: int, n_cases: int) -> float:
    """Return the degrees of freedom of a sum of two variances, of two seeds and more; see `Draws.freedom`."""
    few = n_seeds - 1
    raised = of_seeds * (few + 2) / few
    return (raised + of_cases) ** 2 / (raised**2 / few + of_cases**2 / max(n_cases - 1, 1))


def _spread(seeds: Array) -> tuple[Array, Array]:
    """Return seed weights minus their means, and the inverse of their covariance, which has one direction less."""
    spread = seeds - seeds.mean(axis=0)
    return spread, np.linalg.pinv(spread.T @ spread / len(seeds))


def draw(n_seeds: int, n_cases: int, n_bootstrap: int, seed: int) -> Draws:
    """Return the weights of the estimate and of `n_bootstrap` draws, the same for the same arguments."""
    return _draw(n_seeds, n_cases, n_bootstrap, seed)


@lru_cache(maxsize=4)
def _draw(n_seeds: int, n_cases: int, n_bootstrap: int, seed: int) -> Draws:
    generator = np.random.default_rng(seed)
    seeds, cases = np.ones((1 + n_bootstrap, n_seeds)), np.ones((1 + n_bootstrap, n_cases))
    if n_bootstrap and n_seeds > 1:
        normal = generator.standard_normal((n_bootstrap, n_seeds))
        seeds[1:] += (normal - normal.mean(axis=1, keepdims=True)) * np.sqrt(n_seeds / (n_seeds - 1))
    if n_bootstrap and n_cases:
        cases[1:] = generator.multinomial(n_cases, np.full(n_cases, 1 / n_cases), size=n_bootstrap)
    for weights in (seeds, cases):
        weights.flags.writeable = False
    return Draws(seeds, cases)


def percentiles(drawn: Array, confidence: float) -> tuple[float, float]:
    """Return the central percentiles of draws, NaN draws left out; (NaN, NaN) without draws."""
    finite = drawn[~np.isnan(drawn)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=4096)
def quantile(confidence: float, df: float) -> float:
    """Return Student's two-sided quantile; the normal one for infinite degrees of freedom."""
    tail = (1 + confidence) / 2
    return float(special.ndtri(tail) if np.isinf(df) else special.stdtrit(df, tail))


def surely_positive(found: Summary, confidence: float) -> bool:
    """Return whether a number is above 0 by its interval and by its p-value; skewed draws may set them apart.

    A number without any spread has no p-value; its interval decides.
    """
    return found.low > 0 and not found.p >= 1 - confidence


def fieller(numerator: Array, denominator: Array, draws: Draws, confidence: float) -> tuple[float, float]:
    """Return the interval of a ratio of two averages (Fieller, J. R. Stat. Soc. B 1954).

    It holds every ratio r for which numerator - r · denominator may be 0, by Student's quantile with the degrees of
    freedom of that difference. (NaN, NaN) where the denominator is not clearly above 0: the interval has no end then.

    Args:
        numerator: Shape (1 + draws,), the estimate first.
        denominator: The same.
        draws: What they were drawn by.
        confidence: Of the interval, between 0 and 1.
    """
    top, bottom = float(numerator[0]), float(denominator[0])
    if np.isnan(top) or not surely_positive(draws.summary(denominator, confidence), confidence):
        return float("nan"), float("nan")

    def beyond(ratio: float) -> float:
        """Return how far the difference is from 0, in parts of what it may be; 0 at a bound of the interval."""
        difference = numerator[1:] - ratio * denominator[1:]
        error = float(np.nanstd(difference, ddof=1))
        return abs(top - ratio * bottom) - quantile(confidence, draws.freedom(difference)) * error

    estimate = top / bottom
    error = float(np.nanstd(numerator[1:] - estimate * denominator[1:], ddof=1)) / bottom
    return _root(beyond, estimate, -error), _root(beyond, estimate, error)


FARTHEST = 40
"""How often the step is doubled in search of a bound."""


def _root(beyond: Callable[[float], float], estimate: float, step: float) -> float:
    """Return where a function that is negative at the estimate is 0, in the direction of the step; else infinity."""
    if step == 0:
        return estimate
    for _ in range(FARTHEST):
        if beyond(estimate + step) > 0:
            return float(optimize.brentq(beyond, estimate, estimate + step, xtol=1e-6))
        step *= 2
    return float(np.copysign(np.inf, step))


def ratio_difference(one: tuple[Array, Array], other: tuple[Array, Array], draws: Draws, confidence: float) -> Summary:
    """Return the first ratio minus the second, of positive denominators, with interval and p.

    The interval is of the draws whose denominators are positive, too. `p` is of the products' difference
    (numerator · other denominator - other numerator · denominator), which has the same sign and is stable where a
    denominator is small. `stderr` and `df` are NaN: a ratio need not have a variance.

    Args:
        one: Numerator and denominator, shape (1 + draws,) each.
        other: The same.
        draws: What they were drawn by.
        confidence: Of the interval, between 0 and 1.
    """
    (top, bottom), (other_top, other_bottom) = one, other
    defined = (bottom > 0) & (other_bottom > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.where(defined, top / bottom - other_top / other_bottom, np.nan)
    p = draws.summary(top * other_bottom - other_top * bottom, confidence).p
    missing = float("nan")
    return Summary(float(difference[0]), *draws.interval(difference, confidence), missing, missing, p)


def _divide(total: Array, weight: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan)
