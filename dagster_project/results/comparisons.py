"""Trained agents against their source models: how many cases became better or worse, and whether that is chance."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dagster_project.experiment.sections import Statistics
from dagster_project.results.intervals import Array
from dagster_project.results.points import AXES, Points, make_points
from dagster_project.results.scores import Scores

SMALLEST_DIFFERENCE = 1.0
"""Of scores, to count as better or worse."""
EXACT = 13
"""Most differences whose signs are all gone through; scipy's limit, too."""
COLUMNS = ["model", "recipe", "beta", "judging", "judge", "metric", "cases", "cells", "difference", "low", "high"]
COLUMNS += ["stderr", "df", "p", "better", "worse", "same", "p_cases", "generalises_to", "p_holm"]


def comparisons(scores: Scores, agents: pd.DataFrame, statistics: Statistics) -> pd.DataFrame:
    """Return a paired comparison with the source model for every frontier point and metric.

    `difference` is the mean of the agents' own differences, as in `frontier_points`; its interval, `stderr` and `p` are
    of the one error model of `intervals`, and generalise to other cases and other trainings. `p_holm` is `p` corrected
    for all comparisons of one way of judging and judge (Holm 1979). `better`, `worse` and `same` count (agent, seed,
    case) cells whose scores differ by at least one point. `p_cases` is Wilcoxon's signed-rank test on the cases' mean
    differences, so that a case counts once: it takes the trained agents as they are and generalises to cases alone.
    """
    points = make_points(scores, agents, statistics)
    rows = []
    for way in points.ways:
        block = [
            (*values, *way, AXES[axis], *_row(points, positions, axis, statistics.confidence))
            for values, positions in points.groups(way, ("model", "recipe", "beta"))
            for axis in range(len(AXES))
        ]
        place = COLUMNS.index("p")
        corrected = holm([1.0 if np.isnan(row[place]) else row[place] for row in block])
        rows += [(*row, p) for row, p in zip(block, corrected, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(points: Points, positions: list[int], axis: int, confidence: float) -> tuple[Any, ...]:
    cells = points.delta_cells[positions, axis]  # (keys, seeds, cases)
    flat = cells.reshape(-1, cells.shape[2])
    known = ~np.isnan(flat)
    counted = known.any(axis=0)
    by_case: Array = np.where(known, flat, 0).sum(axis=0)[counted] / known.sum(axis=0)[counted]
    differences = flat[known]
    better = int((differences >= SMALLEST_DIFFERENCE).sum())
    worse = int((differences <= -SMALLEST_DIFFERENCE).sum())
    found = points.draws.summary(points.delta[positions, axis].mean(axis=0), confidence)
    counts = better, worse, len(differences) - better - worse
    return len(by_case), len(differences), *found, *counts, signed_rank_p(by_case), points.draws.scope


def signed_rank_p(differences: Array) -> float:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test (Biometrics Bulletin 1945), zeros left out.

    The same as scipy's, whose own way through all signs of few tied differences takes a fifth of a second a test.
    """
    if not np.any(differences):
        return 1.0
    if len(differences) > EXACT:
        return float(stats.wilcoxon(differences).pvalue)
    moved = differences[differences != 0]
    ranks = stats.rankdata(np.abs(moved))
    sums = _signs(len(moved)) @ ranks  # exact: ranks are whole or half
    observed = ranks[moved > 0].sum()
    return float(min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean())))


@lru_cache(maxsize=EXACT)
def _signs(n: int) -> Array:
    """Returns every choice of which of `n` differences are positive, shape (2 ** n, n)."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)


def holm(values: list[float]) -> list[float]:
    """Returns p-values corrected for their number by Holm's step-down procedure."""
    order = np.argsort(values)
    corrected = np.empty(len(values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return [float(value) for value in corrected]
