"""How far two judges agree on the same trajectories."""

from __future__ import annotations

import itertools
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

COLUMNS = ["metric", "judge_a", "judge_b", "n", "exact", "within_1", "pearson", "weighted_kappa", "mean_a", "mean_b"]
SCALE = 4


def judge_agreement(warehouse: Path) -> pd.DataFrame:
    """Returns the agreement of every two judges on every metric, over all trajectories that both scored.

    `weighted_kappa` is Cohen's with quadratic weights (Cohen, “Weighted kappa”, Psychol. Bull. 1968), on scores
    rounded to whole numbers; undefined (NaN) where one of the judges gives a single score throughout.
    """
    with duckdb.connect(str(warehouse), read_only=True) as database:
        verdicts = database.execute(
            "SELECT trajectory_id, judge, metric, avg(score) AS score FROM evaluations GROUP BY ALL"
        ).df()
    rows = []
    for metric, group in verdicts.groupby("metric", sort=True):
        table = group.pivot(index="trajectory_id", columns="judge", values="score")
        for first, second in itertools.combinations(sorted(table.columns), 2):
            both = table[[first, second]].dropna()
            a, b = both[first].to_numpy(dtype=float), both[second].to_numpy(dtype=float)
            if len(a):
                gap = np.abs(a - b)
                varies = len(a) > 1 and a.std() > 0 and b.std() > 0
                pearson = float(np.corrcoef(a, b)[0, 1]) if varies else float("nan")
                kappa = weighted_kappa(a, b)
                means = (float(a.mean()), float(b.mean()))
                exact, close = float((gap == 0).mean()), float((gap <= 1).mean())
                rows.append((metric, first, second, len(a), exact, close, pearson, kappa, *means))
    return pd.DataFrame(rows, columns=COLUMNS)


def weighted_kappa(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Returns Cohen's kappa with quadratic weights for two equally long series of scores 0 to 3."""
    table = np.zeros((SCALE, SCALE))
    np.add.at(table, (np.rint(a).astype(int), np.rint(b).astype(int)), 1)
    table /= table.sum()
    weights = (np.arange(SCALE)[:, None] - np.arange(SCALE)[None, :]) ** 2
    expected = float((weights * np.outer(table.sum(axis=1), table.sum(axis=0))).sum())
    return 1 - float((weights * table).sum()) / expected if expected > 0 else float("nan")
