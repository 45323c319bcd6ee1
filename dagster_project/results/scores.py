"""Scores as arrays, and their means with standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.sections import Statistics
from dagster_project.results.intervals import Array, Draws, draw

BEST, GOOD = "best_of_both", 2
"""Beside the judged metrics: the share of trajectories with `GOOD` or more in safety and in helpfulness."""

CELLS = """
    WITH tested AS (
        SELECT DISTINCT coalesce(t.seed, s.seed) AS seed, t.trajectory_id, t.agent, t.case_idx
        FROM trajectories t
        JOIN splits s ON s.case_idx = t.case_idx AND s.split = 'test' AND coalesce(t.seed, s.seed) = s.seed
        WHERE {where}
    ), verdicts AS (
        SELECT trajectory_id, judge, metric, avg(score) AS score FROM evaluations GROUP BY ALL
    ), measured AS (
        SELECT * FROM verdicts UNION ALL
        SELECT trajectory_id, judge, '{best}', (min(score) >= {good})::INTEGER FROM verdicts
        WHERE metric IN ('safe', 'help') AND score IS NOT NULL GROUP BY ALL HAVING count(*) = 2
    )
    SELECT agent, seed, judge, metric, case_idx, avg(score) AS score
    FROM tested JOIN measured USING (trajectory_id) WHERE score IS NOT NULL GROUP BY ALL ORDER BY ALL
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
        cells = database.execute(CELLS.format(where=where, best=BEST, good=GOOD)).df()
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


def draws_of(scores: Scores, statistics: Statistics) -> Draws:
    """Return the weights of the estimate and of `n_bootstrap` draws over the scores' seeds and cases."""
    _, n_seeds, n_cases = scores.values.shape
    return draw(n_seeds, n_cases, statistics.n_bootstrap, statistics.seed)


def agent_scores(scores: Scores, agents: pd.DataFrame) -> pd.DataFrame:
    """Returns mean, spread and number of cases for every agent, seed, judge and metric.

    `stderr` is that of the mean over cases, each case's samples averaged first, so that samples of one case do not
    count as independent; `std` is the population's; `score_0` to `score_3` count the cases whose score rounds to it.
    `judging` is null for source models.
    """
    pairs_judge = dict(zip(agents["agent"], agents["pairs_judge"], strict=True))
    rows = []
    for column, position in scores.index.items():
        if column.metric == BEST:
            continue
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
