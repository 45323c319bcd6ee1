"""The line through the points, on any set of them, plain and resampled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from dagster_project.results.scores import BLOCK, Array, interval

BAND_STEPS = 25


class Cloud(NamedTuple):
    """Points to fit: x and y of shape (points, 1 + draws), the estimate first; weights the same, or none."""

    x: Array
    y: Array
    weights: Array | None = None


class Line(NamedTuple):
    """Least squares of y on x in every draw, each of shape (1 + draws,)."""

    slope: Array
    intercept: Array
    r2: Array


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
    """Fits every draw as if the points were measured without error; NaN where no spread in x or y is left.

    Errors of measurement add to the points' variances and covariance, so a line through them is looser and flatter
    than the true one (Spearman 1904). Resampling adds about as much again, which tells how much it is: the estimate
    loses that once, every draw twice (the bootstrap's correction of a bias, exact for moments).
    """
    found = _moments(cloud)
    times = np.where(np.arange(len(found.xx)) == 0, 1, 2)

    def less(values: Array) -> Array:
        drawn = values[1:][~np.isnan(values[1:])]
        return values - times * (drawn.mean() - values[0]) if len(drawn) else np.full_like(values, np.nan)

    line = _line(found._replace(xx=less(found.xx), yy=less(found.yy), xy=less(found.xy)))
    return line._replace(r2=np.minimum(line.r2, 1.0))


def _line(found: Moments) -> Line:
    xx, yy = (np.where(values > 0, values, np.nan) for values in (found.xx, found.yy))
    slope = found.xy / xx
    return Line(slope, found.mean_y - slope * found.mean_x, found.xy**2 / (xx * yy))


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


FIT_COLUMNS = ["n", "r", "r2", "slope", "intercept", "p", "r2_low", "r2_high", "slope_low", "slope_high"]
FIT_COLUMNS += ["slope_se", "intercept_se", "r2_uncentred"]
_DISATTENUATED = [f"{name}_disattenuated{bound}" for name in ("r2", "slope") for bound in ("", "_low", "_high")]
FIT_COLUMNS += _DISATTENUATED


def fit_row(cloud: Cloud, confidence: float) -> dict[str, float]:
    """Returns estimates, their classical standard errors and p, and bootstrap intervals of R² and slope.

    The classical numbers treat the points as independent, which points that share cases, judges and source models
    are not; the intervals do not. Those of `r2` and `slope` are of the line as measured; the true line behind points
    measured with error is the disattenuated one.
    """
    if np.ptp(cloud.x[:, 0]) == 0:  # one above the other: there is no line
        return {"n": len(cloud.x), **dict.fromkeys(FIT_COLUMNS[1:], float("nan"))}
    plain = stats.linregress(cloud.x[:, 0], cloud.y[:, 0])
    line = fit_line(cloud)
    bounds = (*r2_interval(line, confidence), *interval(line.slope[1:], confidence))
    true = fit_disattenuated(cloud)
    disattenuated = [(values[0], *interval(values[1:], confidence)) for values in (true.r2, true.slope)]
    return {
        "n": len(cloud.x),
        "r": float(plain.rvalue),
        "r2": float(plain.rvalue**2),
        "slope": float(plain.slope),
        "intercept": float(plain.intercept),
        "p": float(plain.pvalue),
        **dict(zip(("r2_low", "r2_high", "slope_low", "slope_high"), bounds, strict=True)),
        "slope_se": float(plain.stderr),
        "intercept_se": float(plain.intercept_stderr),
        "r2_uncentred": float("nan"),
        **dict(zip(_DISATTENUATED, map(float, itertools.chain(*disattenuated)), strict=True)),
    }


def r2_interval(line: Line, confidence: float) -> tuple[float, float]:
    """Returns an interval of R² without the resampling's bias.

    Resampling adds noise to every point on top of the noise that is in the estimate, and noise only loosens a line:
    percentiles of R² lean low and can leave out their own estimate. On Fisher's z of the correlation the bias is near
    a shift; the draws are shifted back to have the estimate as their mean.
    """
    r = np.sign(line.slope) * np.sqrt(np.clip(line.r2, 0, 1 - 1e-12))
    z = np.arctanh(r)
    drawn = z[1:][~np.isnan(z[1:])]
    if not len(drawn) or np.isnan(z[0]):
        return float("nan"), float("nan")
    low, high = interval(drawn - drawn.mean() + z[0], confidence)
    bounds = np.tanh([low, high])
    smallest = 0.0 if bounds[0] * bounds[1] < 0 else float((bounds**2).min())
    return smallest, float((bounds**2).max())


def origin_row(cloud: Cloud, confidence: float) -> dict[str, float]:
    """Returns the fit through the origin: no change in helpfulness, no change in safety.

    `r2` is measured against the mean, as for the other fits, and can be negative; `r2_uncentred` against zero.
    """
    x, y = cloud.x, cloud.y
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (x * y).sum(axis=0) / (x**2).sum(axis=0)
        residual = ((y - slope * x) ** 2).sum(axis=0)
        r2 = 1 - residual / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    bounds = (*interval(r2[1:], confidence), *interval(slope[1:], confidence))
    missing = float("nan")
    return {
        "n": len(x),
        "r": missing,
        "r2": float(r2[0]),
        "slope": float(slope[0]),
        "intercept": 0.0,
        "p": missing,
        **dict(zip(("r2_low", "r2_high", "slope_low", "slope_high"), bounds, strict=True)),
        "slope_se": float(np.sqrt(residual[0] / (len(x) - 1) / (x[:, 0] ** 2).sum())),
        "intercept_se": missing,
        "r2_uncentred": float(1 - residual[0] / (y[:, 0] ** 2).sum()),
        **dict.fromkeys(_DISATTENUATED, missing),
    }


def band(cloud: Cloud, confidence: float) -> list[tuple[float, float, float, float]]:
    """Returns (x, y, low, high) along the line: the bootstrap's interval of the line's height at every x."""
    line = fit_line(cloud)
    if np.isnan(line.slope[0]):
        return []
    tail = (1 - confidence) / 2
    rows = []
    for x in np.linspace(cloud.x[:, 0].min(), cloud.x[:, 0].max(), BAND_STEPS):
        heights = line.intercept + line.slope * x
        drawn = heights[1:][~np.isnan(heights[1:])]
        low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (np.nan, np.nan)
        rows.append((float(x), float(heights[0]), float(low), float(high)))
    return rows
