"""Scores as arrays, their means with standard errors, and the resampling that every interval comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.spec import Statistics

Array = npt.NDArray[np.float64]

CELLS = """
    WITH tested AS (
        SELECT DISTINCT coalesce(t.seed, s.seed) AS seed, t.trajectory_id, t.agent, t.case_idx
        FROM trajectories t
        JOIN splits s ON s.case_idx = t.case_idx AND s.split = 'test' AND coalesce(t.seed, s.seed) = s.seed
        WHERE {where}
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

    def cells(self, agent: str, judge: str, metric: str) -> Array:
        """Returns an agent's scores, shape (seeds, cases); NaN throughout if there are none."""
        position = self.index.get(Column(agent, judge, metric))
        return np.full(self.values.shape[1:], np.nan) if position is None else self.values[position]


def load_scores(warehouse: Path, where: str = "true") -> Scores:
    """Returns the held-out scores in a warehouse.

    Args:
        warehouse: The DuckDB file.
        where: A condition in SQL on `trajectories` (as `t`); those that do not meet it are left out.
    """
    with open_database(warehouse) as database:
        cells = database.execute(CELLS.format(where=where)).df()
    names = ["agent", "judge", "metric"]
    columns = {
        Column(*map(str, row)): position
        for position, row in enumerate(cells[names].drop_duplicates().itertuples(index=False))
    }
    column_places = cells.groupby(names, sort=False).ngroup().to_numpy()  # in order of appearance, as above
    seeds, seed_places = np.unique(cells["seed"].to_numpy(dtype=int), return_inverse=True)
    cases, case_places = np.unique(cells["case_idx"].to_numpy(dtype=int), return_inverse=True)
    values = np.full((len(columns), len(seeds), len(cases)), np.nan)
    values[column_places, seed_places, case_places] = cells["score"].to_numpy(dtype=float)
    return Scores(values, columns, tuple(int(seed) for seed in seeds))


class Draws(NamedTuple):
    """Weights of seeds and cases: all ones first (the estimate itself), then those of every bootstrap draw.

    Seeds and cases are resampled each on its own, with replacement, since both are samples of something larger and
    all agents and judges share them (Owen, “The pigeonhole bootstrap”, Ann. Appl. Stat. 2007).

    Attributes:
        seeds: Shape (1 + draws, seeds).
        cases: Shape (1 + draws, cases).
    """

    seeds: Array
    cases: Array

    def by_seed(self, cells: Array) -> Array:
        """Returns weighted means over the cases of each seed, shape (columns, seeds, 1 + draws).

        Args:
            cells: Shape (columns, seeds, cases), NaN where there is none.
        """
        means = np.empty((*cells.shape[:2], len(self.cases)))
        for seed in range(cells.shape[1]):
            sums = _Sums(cells[:, seed])
            for block in self._blocks():
                means[:, seed, block] = _divide(*sums.of(self.cases[block]))
        return means

    def means(self, cells: Array) -> Array:
        """Returns weighted means over seeds and cases, shape (columns, 1 + draws); NaN where nothing has weight.

        Args:
            cells: Shape (columns, seeds, cases), NaN where there is none.
        """
        by_seed = [_Sums(cells[:, seed]) for seed in range(cells.shape[1])]
        means = np.empty((len(cells), len(self.cases)))
        for block in self._blocks():
            total, weight = np.zeros((2, len(cells), block.stop - block.start))
            for seed, sums in enumerate(by_seed):
                seed_total, seed_weight = sums.of(self.cases[block])
                total += seed_total * self.seeds[block, seed]
                weight += seed_weight * self.seeds[block, seed]
            means[:, block] = _divide(total, weight)
        return means

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self.cases), BLOCK):
            yield slice(start, min(start + BLOCK, len(self.cases)))


BLOCK = 1024
"""Draws computed at once: what they need then stays in the cache, which is three times as fast as all at once."""


class _Sums:
    """Sums over the cases of one seed, in any number of draws."""

    def __init__(self, cells: Array) -> None:
        known = ~np.isnan(cells)
        self._filled = np.where(known, cells, 0.0)
        # Most columns have a score for the same cases; their weights are computed once.
        masks, self._mask_of = np.unique(known, axis=0, return_inverse=True)
        self._masks = masks.astype(np.float64)

    def of(self, cases: Array) -> tuple[Array, Array]:
        """Returns weighted totals and weights, shape (columns, draws), for weights of shape (draws, cases)."""
        return self._filled @ cases.T, (self._masks @ cases.T)[self._mask_of]


def _divide(total: Array, weight: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def draw(scores: Scores, statistics: Statistics) -> Draws:
    """Returns the weights of the estimate and of `n_bootstrap` draws."""
    _, n_seeds, n_cases = scores.values.shape
    return _draw(n_seeds, n_cases, statistics.n_bootstrap, statistics.seed)


@lru_cache(maxsize=4)
def _draw(n_seeds: int, n_cases: int, n_bootstrap: int, seed: int) -> Draws:
    generator = np.random.default_rng(seed)
    parts = []
    for size in (n_seeds, n_cases):
        weights = np.ones((1 + n_bootstrap, size))
        if n_bootstrap and size:
            weights[1:] = generator.multinomial(size, np.full(size, 1 / size), size=n_bootstrap)
        weights.flags.writeable = False
        parts.append(weights)
    return Draws(*parts)


def interval(draws: Array, confidence: float) -> tuple[float, float]:
    """Returns the percentile interval of bootstrap draws, NaN draws left out; (NaN, NaN) without draws."""
    finite = draws[~np.isnan(draws)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def clustered_stderr(cells: Array) -> float:
    """Returns the standard error of the mean of cells (seeds, cases), clustered by case; NaN for fewer than two.

    The same case under two seeds is not two observations (Miller, “Adding error bars to evals”, 2024, section 2.2).
    """
    known = ~np.isnan(cells)
    sizes = known.sum(axis=0)
    clusters = int((sizes > 0).sum())
    if clusters < 2:
        return float("nan")
    n = sizes.sum()
    sums = np.where(known, cells, 0.0).sum(axis=0)
    residuals = sums - sizes * (sums.sum() / n)
    return float(np.sqrt(clusters / (clusters - 1) * (residuals**2).sum()) / n)


def agent_scores(scores: Scores, agents: pd.DataFrame) -> pd.DataFrame:
    """Returns mean, spread and number of cases for every agent, seed, judge and metric.

    `stderr` is that of the mean over cases, each case's samples averaged first, so that samples of one case do not
    count as independent; `std` is the population's; `score_0` to `score_3` count the cases whose score rounds to it.
    `judging` is null for source models.
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
                n = len(values)
                stderr = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
                counts = np.bincount(np.rint(values).astype(int), minlength=4)
                mean, std = float(values.mean()), float(values.std())
                rows.append((*column[:1], seed, *column[1:], judging, mean, stderr, n, std, *map(int, counts)))
    names = ["agent", "seed", "judge", "metric", "judging", "mean", "stderr", "n", "std"]
    return pd.DataFrame(rows, columns=[*names, "score_0", "score_1", "score_2", "score_3"])


def load_agents(warehouse: Path) -> pd.DataFrame:
    """Returns the source models and trained agents, one row each, seeds left out.

    `here` says whether an agent was trained by the experiment; those from elsewhere and mixtures have no stages.
    """
    query = """
        SELECT DISTINCT ON (agent) agent, model, recipe, pairs_judge, beta, label, coalesce(len(stages), 0) > 0 AS here
        FROM agents WHERE recipe IS NULL OR agent IN (SELECT agent FROM trajectories) ORDER BY agent
    """
    with open_database(warehouse) as database:
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
