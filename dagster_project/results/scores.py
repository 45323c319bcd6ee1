"""Scores as arrays, their means with standard errors, and the resampling that every interval comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from dagster_project.experiment.spec import Statistics

Array = npt.NDArray[np.float64]

CELLS = """
    WITH tested AS (
        SELECT DISTINCT coalesce(t.seed, s.seed) AS seed, t.trajectory_id, t.agent, t.case_idx
        FROM trajectories t
        JOIN splits s ON s.case_idx = t.case_idx AND s.split = 'test' AND coalesce(t.seed, s.seed) = s.seed
    ), verdicts AS (
        SELECT trajectory_id, judge, metric, avg(score) AS score FROM evaluations GROUP BY ALL
    )
    SELECT agent, seed, judge, metric, case_idx, avg(score) AS score
    FROM tested JOIN verdicts USING (trajectory_id) WHERE score IS NOT NULL GROUP BY ALL ORDER BY ALL
"""


class Column(NamedTuple):
    """Whose scores: an agent (or source model) by one judge on one metric."""

    agent: str
    judge: str
    metric: str


@dataclass(frozen=True)
class Scores:
    """Mean score of every column, seed and held-out case.

    Replicates and samples of a case are averaged. A source model has values for every seed: those of the seed's
    held-out cases.

    Attributes:
        values: Shape (columns, seeds, cases); NaN where there is none.
        index: Position of each column.
        seeds: The seeds, in order.
    """

    values: Array
    index: Mapping[Column, int]
    seeds: tuple[int, ...]

    def means(self, weights: Array) -> Array:
        """Returns weighted means over seeds and cases.

        Args:
            weights: Shape (draws, seeds, cases).

        Returns:
            Shape (columns, draws); NaN where a column has no value under a draw's weights.
        """
        n_columns, n_seeds, n_cases = self.values.shape
        cells = self.values.reshape(n_columns, n_seeds * n_cases)
        known = ~np.isnan(cells)
        flat = weights.reshape(len(weights), n_seeds * n_cases)
        total = np.where(known, cells, 0.0) @ flat.T
        weight = known.astype(np.float64) @ flat.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(weight > 0, total / weight, np.nan)

    def ones(self) -> Array:
        """Returns the weights of the plain mean, shape (1, seeds, cases)."""
        return np.ones((1, *self.values.shape[1:]))

    def bootstrap_weights(self, statistics: Statistics) -> Array:
        """Returns resampling weights, shape (draws, seeds, cases).

        Seeds and cases are resampled with replacement, each on its own, and a cell counts as often as its seed times
        its case was drawn (the pigeonhole bootstrap: Owen, “The pigeonhole bootstrap”, Ann. Appl. Stat. 2007). One
        draw serves every agent and judge, since they share seeds and cases.
        """
        generator = np.random.default_rng(statistics.seed)
        n_seeds, n_cases = self.values.shape[1:]
        draws = statistics.n_bootstrap
        if not self.values.size:
            return np.ones((draws, n_seeds, n_cases))
        seeds = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=draws)
        cases = generator.multinomial(n_cases, np.full(n_cases, 1 / n_cases), size=draws)
        return (seeds[:, :, None] * cases[:, None, :]).astype(np.float64)


def load_scores(warehouse: Path) -> Scores:
    """Returns the held-out scores in a warehouse."""
    with duckdb.connect(str(warehouse), read_only=True) as database:
        cells = database.execute(CELLS).df()
    columns = {
        Column(*row): position
        for position, row in enumerate(cells[["agent", "judge", "metric"]].drop_duplicates().itertuples(index=False))
    }
    seeds = tuple(int(seed) for seed in sorted(cells["seed"].unique()))
    cases = {int(case): position for position, case in enumerate(sorted(cells["case_idx"].unique()))}
    values = np.full((len(columns), len(seeds), len(cases)), np.nan)
    for row in cells.itertuples(index=False):
        column = columns[Column(str(row.agent), str(row.judge), str(row.metric))]
        values[column, seeds.index(int(row.seed)), cases[int(row.case_idx)]] = row.score
    return Scores(values, columns, seeds)


def interval(draws: Array, confidence: float) -> tuple[float, float]:
    """Returns the percentile interval of bootstrap draws, NaN draws left out; (NaN, NaN) without draws."""
    finite = draws[~np.isnan(draws)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def agent_scores(scores: Scores, agents: pd.DataFrame) -> pd.DataFrame:
    """Returns mean, standard error and number of cases for every agent, seed, judge and metric.

    The standard error is that of the mean over cases, each case's samples averaged first, so that samples of one
    case do not count as independent. `judging` is null for source models.
    """
    pairs_judge = dict(zip(agents["agent"], agents["pairs_judge"], strict=True))
    rows = []
    for column, position in scores.index.items():
        trained_on = pairs_judge.get(column.agent)
        trained = isinstance(trained_on, str)
        judging = ("match" if trained_on == column.judge else "cross") if trained else None
        for place, seed in enumerate(scores.seeds):
            values = scores.values[position, place]
            values = values[~np.isnan(values)]
            if len(values):
                stderr = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
                rows.append(
                    (
                        column.agent,
                        seed,
                        column.judge,
                        column.metric,
                        judging,
                        float(values.mean()),
                        stderr,
                        len(values),
                    )
                )
    names = ["agent", "seed", "judge", "metric", "judging", "mean", "stderr", "n"]
    return pd.DataFrame(rows, columns=names)


def load_agents(warehouse: Path) -> pd.DataFrame:
    """Returns the source models and trained agents, one row each, seeds left out."""
    query = """
        SELECT DISTINCT ON (agent) agent, model, recipe, pairs_judge, beta, label FROM agents
        WHERE recipe IS NULL OR agent IN (SELECT agent FROM trajectories) ORDER BY agent
    """
    with duckdb.connect(str(warehouse), read_only=True) as database:
        table: pd.DataFrame = database.execute(query).df()
        return table


def judges_of(scores: Scores) -> list[str]:
    """Returns the judges, in order of name."""
    return sorted({column.judge for column in scores.index})


def combinations(
    judgings: Sequence[str], judges: Sequence[str], pairs_judges: Sequence[str]
) -> dict[tuple[str, str | None], list[tuple[str, str]]]:
    """Returns, for every way of judging, the (pairs' judge, judge) combinations that are averaged in it.

    Keys are (judging, judge), judge None for the average over judges. `match`: an agent is scored by the judge of its
    pairs; `cross`: by another; `all`: both, only where both exist.
    """
    grid = [(trained, judge) for trained in pairs_judges for judge in judges]
    matching = {
        "match": [pair for pair in grid if pair[0] == pair[1]],
        "cross": [pair for pair in grid if pair[0] != pair[1]],
    }
    matching["all"] = grid if matching["match"] and matching["cross"] else []
    found: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
    for judging in judgings:
        for judge in (None, *judges):
            chosen = [pair for pair in matching[judging] if judge in (None, pair[1])]
            if chosen:
                found[judging, judge] = chosen
    return found
