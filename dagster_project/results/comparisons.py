"""Trained agents against their source models, case by case: how many became better or worse, and is it chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dagster_project.experiment.spec import Statistics
from dagster_project.results.points import AXES, Points, make_points
from dagster_project.results.scores import Array, Scores, clustered_stderr

SMALLEST_DIFFERENCE = 1.0
"""Of scores, to count as better or worse."""
COLUMNS = ["model", "recipe", "beta", "judging", "judge", "metric", "cases", "difference", "stderr"]
COLUMNS += ["better", "worse", "same", "p", "p_holm"]


def comparisons(scores: Scores, agents: pd.DataFrame, statistics: Statistics) -> pd.DataFrame:
    """Returns a paired comparison for every frontier point and metric.

    `better`, `worse` and `same` count (seed, case, judge) cells whose scores differ by at least one point. `p` is
    Wilcoxon's signed-rank test on the cases' mean differences, so that a case counts once however many seeds and
    judges saw it; `p_holm` is corrected for all comparisons of one way of judging and judge (Holm 1979).
    """
    points = make_points(scores, agents, statistics.model_copy(update={"n_bootstrap": 0}))
    rows = []
    for way in points.ways:
        block = [
            _row(points, values, positions, way, axis)
            for values, positions in points.groups(way, ("model", "recipe", "beta"))
            for axis in range(len(AXES))
        ]
        corrected = holm([p for *_, p in block])
        rows += [(*row, p) for row, p in zip(block, corrected, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(
    points: Points, values: tuple[object, ...], positions: list[int], way: tuple[str, str | None], axis: int
) -> tuple[Any, ...]:
    cells = points.delta_cells[positions, axis]  # (keys, seeds, cases)
    flat = cells.reshape(-1, cells.shape[2])
    known = ~np.isnan(flat)
    counted = known.any(axis=0)
    sums = np.where(known, flat, 0).sum(axis=0)[counted]
    by_case: Array = sums / known.sum(axis=0)[counted]
    differences = flat[known]
    better = int((differences >= SMALLEST_DIFFERENCE).sum())
    worse = int((differences <= -SMALLEST_DIFFERENCE).sum())
    p = float(stats.wilcoxon(by_case).pvalue) if np.any(by_case) else 1.0
    numbers = (len(by_case), float(differences.mean()) if len(differences) else float("nan"), clustered_stderr(flat))
    return (*values, *way, AXES[axis], *numbers, better, worse, len(differences) - better - worse, p)


def holm(values: list[float]) -> list[float]:
    """Returns p-values corrected for their number by Holm's step-down procedure."""
    order = np.argsort(values)
    corrected = np.empty(len(values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return [float(value) for value in corrected]
