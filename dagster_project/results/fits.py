"""The line through the points, on any set of them, plain and resampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from dagster_project.results.intervals import BLOCK, Array, Draws

BAND_STEPS = 25


class Cloud(NamedTuple):
    """Points to fit: x and y of shape (points, 1 + draws), the estimate first; weights the same, or none."""

    x: Array
    y: Array
    weights: Array | None = None


class Line(NamedTuple):
    """Least squares of y on x in every draw, each of shape (1 + draws,); `residual` is the variance around the line."""

    slope: Array
    intercept: Array
    r2: Array
    residual: Array


class Moments(NamedTuple):
    """Means, variances and covariance of a cloud in every draw, each of shape (1 + draws,)."""

    mean_x: Array
    mean_y: Array
    xx: Array
    yy: Array
    xy: Array


def fit_line(cloud: Cloud) -> Line:
    """Fits every draw; a draw whose points have no spread in x gives NaN."""
    return _line(_moments(cloud))


def fit_disattenuated(cloud: Cloud) -> Line:
    """Return the fit of every draw as if points were measured without error; NaN where no spread in x or y is left.

    R² may come out above 1: the points then scatter less than their errors of measurement alone would have them.

    Errors of measurement add to the points' variances and covariance, so a line through them is looser and flatter
    than the true one (Spearman 1904). Resampling adds about as much again, which tells how much it is: the estimate
    loses that once, every draw twice (the bootstrap's correction of a bias, exact for moments).
    """
    found = _moments(cloud)
    times = np.where(np.arange(len(found.xx)) == 0, 1, 2)

    def less(values: Array) -> Array:
        drawn = values[1:][~np.isnan(values[1:])]
        return values - times * (drawn.mean() - values[0]) if len(drawn) else np.full_like(values, np.nan)

    return _line(found._replace(xx=less(found.xx), yy=less(found.yy), xy=less(found.xy)))


def _line(found: Moments) -> Line:
    xx, yy = (np.where(values > 0, values, np.nan) for values in (found.xx, found.yy))
    slope = found.xy / xx
    return Line(slope, found.mean_y - slope * found.mean_x, found.xy**2 / (xx * yy), found.yy - found.xy**2 / xx)


def _moments(cloud: Cloud) -> Moments:
    blocks = [_block_moments(*parts) for parts in _blocks(cloud)]
    return Moments(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _blocks(cloud: Cloud) -> Iterator[tuple[Array, Array, Array]]:
    for start in range(0, cloud.x.shape[1], BLOCK):
        x, y = cloud.x[:, start : start + BLOCK], cloud.y[:, start : start + BLOCK]
        yield x, y, np.ones_like(x) if cloud.weights is None else cloud.weights[:, start : start + BLOCK]


def _block_moments(x: Array, y: Array, weights: Array) -> Moments:
    weights = np.where(np.isnan(x) | np.isnan(y), 0.0, weights)
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=0)
        mean_x, mean_y = (weights * x).sum(axis=0) / total, (weights * y).sum(axis=0) / total
        dx, dy = x - mean_x, y - mean_y
        spreads = ((weights * a * b).sum(axis=0) / total for a, b in ((dx, dx), (dy, dy), (dx, dy)))
        return Moments(mean_x, mean_y, *spreads)


_BOUNDS = ("", "_low", "_high")
_BOUNDED = ("r2", "slope", "intercept", "scatter")
_TRUE = [f"{name}_disattenuated{bound}" for name in _BOUNDED[:3] for bound in _BOUNDS]
FIT_COLUMNS = ["n", "r", *(f"{name}{bound}" for name in _BOUNDED for bound in _BOUNDS), "slope_p"]
FIT_COLUMNS += ["slope_se", "intercept_se", "paper_p", "r2_uncentred", *_TRUE, "r2_disattenuated_clipped"]
FIT_COLUMNS += ["cells", "cases", "generalises_to"]


def fit_row(cloud: Cloud, draws: Draws, confidence: float, lost: int = 2) -> dict[str, float | str | bool]:
    """Return estimates and intervals of R², slope, intercept and scatter (points of y), and the classical fit.

    `slope_se`, `intercept_se` and `paper_p` take the points as independent, which points that share cases, judges and
    source models are not; the intervals and `slope_p` do not. Those of `r2`, `slope`, `intercept` and `scatter` are of
    the line as measured; the true line behind points measured with error is the disattenuated one. Where the points
    scatter less than their errors of measurement allow, `r2_disattenuated` would be above 1: it is NaN, as is an upper
    bound above 1, and `r2_disattenuated_clipped` says so.

    Args:
        cloud: The points.
        draws: What they were drawn by.
        confidence: Of the intervals.
        lost: Degrees of freedom that the fit takes from the points.
    """
    row: dict[str, float | str | bool] = dict.fromkeys(FIT_COLUMNS, float("nan"))
    row |= {"n": len(cloud.x), "generalises_to": draws.scope, "r2_disattenuated_clipped": False}
    if np.ptp(cloud.x[:, 0]) == 0:  # one above the other: there is no line
        return row
    plain = stats.linregress(cloud.x[:, 0], cloud.y[:, 0])
    line, n = fit_line(cloud), len(cloud.x)
    scatter = np.sqrt(np.maximum(line.residual, 0) * n / (n - lost)) if n > lost else np.full_like(line.slope, np.nan)
    row |= {
        "r": float(plain.rvalue),
        "paper_p": float(plain.pvalue),
        "slope_p": draws.summary(line.slope, confidence).p,
    }
    row |= {"slope_se": float(plain.stderr), "intercept_se": float(plain.intercept_stderr)}
    row |= _bounded("r2", float(plain.rvalue**2), r2_interval(line, draws, confidence))
    row |= _bounded("slope", float(plain.slope), draws.interval(line.slope, confidence))
    row |= _bounded("intercept", float(plain.intercept), draws.interval(line.intercept, confidence))
    row |= _bounded("scatter", float(scatter[0]), scatter_interval(scatter, draws, confidence))
    true = fit_disattenuated(cloud)
    for name in ("slope", "intercept"):
        values = getattr(true, name)
        row |= _bounded(f"{name}_disattenuated", float(values[0]), draws.interval(values, confidence))
    # R² cannot exceed 1: draws beyond count as 1, and a number that is 1 only for that is none.
    bounds = draws.interval(np.minimum(true.r2, 1.0), confidence)
    estimate, high = (float("nan") if value >= 1 else float(value) for value in (true.r2[0], bounds[1]))
    row |= _bounded("r2_disattenuated", estimate, (bounds[0], high))
    return row | {"r2_disattenuated_clipped": bool(true.r2[0] >= 1 or bounds[1] >= 1)}


def _bounded(name: str, estimate: float, bounds: tuple[float, float]) -> dict[str, float | str | bool]:
    return {name: estimate, f"{name}_low": bounds[0], f"{name}_high": bounds[1]}


def _recentred(values: Array) -> Array:
    """Return the draws shifted to have the estimate as their mean."""
    drawn = values[1:][~np.isnan(values[1:])]
    shifted = values.copy()
    shifted[1:] += values[0] - drawn.mean() if len(drawn) else float("nan")
    return shifted


def r2_interval(line: Line, draws: Draws, confidence: float) -> tuple[float, float]:
    """Return an interval of R² without the resampling's bias.

    Resampling adds noise to every point on top of the noise that is in the estimate, and noise only loosens a line:
    percentiles of R² lean low and can leave out their own estimate. On Fisher's z of the correlation the bias is near
    a shift; the draws are shifted back to have the estimate as their mean.
    """
    r = np.sign(line.slope) * np.sqrt(np.clip(line.r2, 0, 1 - 1e-12))
    low, high = draws.interval(_recentred(np.arctanh(r)), confidence)
    bounds = np.tanh([low, high])
    if np.isnan(bounds).any():
        return float("nan"), float("nan")
    smallest = 0.0 if bounds[0] * bounds[1] < 0 else float((bounds**2).min())
    return smallest, float((bounds**2).max())


def scatter_interval(scatter: Array, draws: Draws, confidence: float) -> tuple[float, float]:
    """Return an interval of the residual standard deviation without the resampling's bias, a shift of its logarithm."""
    with np.errstate(divide="ignore"):
        logs = np.where(scatter > 0, np.log(scatter), np.nan)
    low, high = np.exp(draws.interval(_recentred(logs), confidence))
    return float(low), float(high)


def origin_row(cloud: Cloud, draws: Draws, confidence: float) -> dict[str, float | str | bool]:
    """Return the fit through the origin: no change in helpfulness, no change in safety.

    `r2` is measured against the mean, as for the other fits, and can be negative; `r2_uncentred` against zero.
    """
    x, y = cloud.x, cloud.y
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (x * y).sum(axis=0) / (x**2).sum(axis=0)
        residual = ((y - slope * x) ** 2).sum(axis=0)
        r2 = 1 - residual / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    row: dict[str, float | str | bool] = dict.fromkeys(FIT_COLUMNS, float("nan"))
    row |= {"n": len(x), "generalises_to": draws.scope, "r2_disattenuated_clipped": False, "intercept": 0.0}
    row |= _bounded("r2", float(r2[0]), draws.interval(r2, confidence))
    row |= _bounded("slope", float(slope[0]), draws.interval(slope, confidence))
    row["slope_p"] = draws.summary(slope, confidence).p
    row["slope_se"] = float(np.sqrt(residual[0] / (len(x) - 1) / (x[:, 0] ** 2).sum()))
    return row | {"r2_uncentred": float(1 - residual[0] / (y[:, 0] ** 2).sum())}


def band(cloud: Cloud, draws: Draws, confidence: float) -> list[tuple[float, float, float, float]]:
    """Return (x, y, low, high) along the line: the interval of the line's height at every x."""
    line = fit_line(cloud)
    if np.isnan(line.slope[0]):
        return []
    rows = []
    for x in np.linspace(cloud.x[:, 0].min(), cloud.x[:, 0].max(), BAND_STEPS):
        heights = line.intercept + line.slope * x
        rows.append((float(x), float(heights[0]), *draws.interval(heights, confidence)))
    return rows
