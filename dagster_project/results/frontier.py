"""The frontier: where trained agents land relative to their source models, and the line through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import linregress

from dagster_project.experiment.spec import Statistics
from dagster_project.results.scores import Array, Column, Scores, combinations, interval, judges_of

JUDGINGS = ("match", "cross", "all")
AXES = {"helpfulness": "help", "safety": "safe"}


class Frontier(NamedTuple):
    """The points and the fits, as tables."""

    points: pd.DataFrame
    fits: pd.DataFrame


class Draws(NamedTuple):
    """Scores under the plain weights (first column) and under each bootstrap draw (the others)."""

    scores: Scores
    weights: Array
    means: Array

    def values(self, agent: str, judge: str, metric: str) -> Array:
        """Returns the plain mean followed by its draws; NaN throughout if there are no such scores."""
        position = self.scores.index.get(Column(agent, judge, metric))
        return np.full(self.means.shape[1], np.nan) if position is None else self.means[position]

    def shared(self, agents: Sequence[str], judge: str, metric: str) -> list[Array]:
        """Returns each agent's values over the seeds and cases for which all of them have a score.

        Where some seeds of an agent are yet to be tested, or a verdict has no score, only these can be compared.
        """
        positions = [self.scores.index.get(Column(agent, judge, metric)) for agent in agents]
        found = [position for position in positions if position is not None]
        if len(found) < len(positions):
            return [np.full(self.means.shape[1], np.nan)] * len(positions)
        cells = self.scores.values[found]
        known = ~np.isnan(cells)
        everywhere = known.all(axis=0)
        if (known == everywhere).all():
            return list(self.means[found])
        return list(Scores(np.where(everywhere, cells, np.nan), {}, self.scores.seeds).means(self.weights))


def draw(scores: Scores, statistics: Statistics) -> Draws:
    """Computes the means of every column once, plain and resampled."""
    weights = np.concatenate([scores.ones(), scores.bootstrap_weights(statistics)])
    return Draws(scores, weights, scores.means(weights))


def frontier(scores: Scores, agents: pd.DataFrame, statistics: Statistics) -> Frontier:
    """Returns every frontier point and fit, with bootstrap intervals.

    A point is a model, recipe and beta, averaged over seeds and over the (pairs' judge, judge) combinations of its
    way of judging. Fits are least squares of safety delta on helpfulness delta over the points (`model_recipe`).
    """
    draws = draw(scores, statistics)
    trained = agents[agents["recipe"].notna()]
    points, fits = [], []
    ways = combinations(JUDGINGS, judges_of(scores), sorted(trained["pairs_judge"].unique()))
    for (judging, judge), pairs in ways.items():
        clouds: list[tuple[Array, Array]] = []
        for (model, recipe, beta), group in trained.groupby(["model", "recipe", "beta"], sort=True):
            by_judge = dict(zip(group["pairs_judge"], group["agent"], strict=True))
            row: dict[str, object] = {
                "model": model,
                "recipe": recipe,
                "beta": beta,
                "judging": judging,
                "judge": judge,
                "label": group["label"].iloc[0],
            }
            cloud = []
            for axis, metric in AXES.items():
                scored = [(by_judge[on], by) for on, by in pairs if on in by_judge]
                own = _average([draws.values(agent, by, metric) for agent, by in scored])
                compared = [draws.shared([agent, str(model)], by, metric) for agent, by in scored]
                delta = _average([own_scores - source for own_scores, source in compared])
                for name, values in ((axis, own), (f"{axis}_delta", delta)):
                    low, high = interval(values[1:], statistics.confidence)
                    row |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
                cloud.append(delta)
            if not np.isnan([cloud[0][0], cloud[1][0]]).any():
                points.append(row)
                clouds.append((cloud[0], cloud[1]))
        if len(clouds) > 2:
            fits.append({"point_set": "model_recipe", "judging": judging, "judge": judge, **_fit(clouds, statistics)})
    return Frontier(pd.DataFrame(points, columns=POINT_COLUMNS), pd.DataFrame(fits, columns=FIT_COLUMNS))


POINT_COLUMNS = ["model", "recipe", "beta", "judging", "judge", "label"]
POINT_COLUMNS += [f"{axis}{kind}{bound}" for kind in ("", "_delta") for axis in AXES for bound in ("", "_low", "_high")]
FIT_COLUMNS = ["point_set", "judging", "judge", "n", "r", "r2", "slope", "intercept", "p"]
FIT_COLUMNS += ["r2_low", "r2_high", "slope_low", "slope_high"]


def _average(values: list[Array]) -> Array:
    return np.mean(values, axis=0) if values else np.full(1, np.nan)


def _fit(clouds: list[tuple[Array, Array]], statistics: Statistics) -> dict[str, float]:
    x, y = (np.array([cloud[axis] for cloud in clouds]) for axis in (0, 1))  # (points, 1 + draws)
    plain = linregress(x[:, 0], y[:, 0])
    dx, dy = x[:, 1:] - x[:, 1:].mean(axis=0), y[:, 1:] - y[:, 1:].mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = (dx * dy).sum(axis=0) / (dx**2).sum(axis=0)
        r2 = (dx * dy).sum(axis=0) ** 2 / ((dx**2).sum(axis=0) * (dy**2).sum(axis=0))
    r2_low, r2_high = interval(r2, statistics.confidence)
    slope_low, slope_high = interval(slopes, statistics.confidence)
    return {
        "n": len(clouds),
        "r": float(plain.rvalue),
        "r2": float(plain.rvalue**2),
        "slope": float(plain.slope),
        "intercept": float(plain.intercept),
        "p": float(plain.pvalue),
        "r2_low": r2_low,
        "r2_high": r2_high,
        "slope_low": slope_low,
        "slope_high": slope_high,
    }
