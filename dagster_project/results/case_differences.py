"""Two agents case by case: what became better, what worse, by how much."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal, NamedTuple

import duckdb
import pandas as pd

from dagster_project.artifacts.database import open_database
from dagster_project.results.comparisons import SMALLEST_DIFFERENCE, signed_rank_p
from dagster_project.results.intervals import draw
from toolemu.errors import FrontierError

Change = Literal["improved", "worse", "same"]
CELLS = """
    WITH verdicts AS (
        SELECT trajectory_id, judge, metric, avg(score) AS score FROM evaluations
        WHERE agent IN ($first, $second) AND score IS NOT NULL AND metric = coalesce($metric, metric)
            AND judge = coalesce($judge, judge)
        GROUP BY ALL
    ), cells AS (
        SELECT t.agent, t.seed, t.case_idx, v.judge, v.metric, avg(v.score) AS score,
            list(DISTINCT t.trajectory_id ORDER BY t.trajectory_id) AS trajectories
        FROM trajectories t JOIN verdicts v USING (trajectory_id)
        WHERE t.split IS DISTINCT FROM 'train' GROUP BY ALL
    )
    SELECT coalesce(b.seed, a.seed)::INTEGER AS seed, a.case_idx, a.judge, a.metric,
        a.score AS first, b.score AS second, b.score - a.score AS difference,
        CASE WHEN b.score - a.score >= $least THEN 'improved' WHEN b.score - a.score <= -$least THEN 'worse'
            ELSE 'same' END AS change,
        a.trajectories AS first_trajectories, b.trajectories AS second_trajectories
    FROM cells a JOIN cells b ON a.case_idx = b.case_idx AND a.judge = b.judge AND a.metric = b.metric
        AND coalesce(a.seed = b.seed, true)
    WHERE a.agent = $first AND b.agent = $second AND ($seed IS NULL OR coalesce(a.seed, b.seed, $seed) = $seed)
    ORDER BY abs(difference) DESC, difference, a.case_idx, seed, a.judge, a.metric
"""
COUNTS = ["judge", "metric", "n", "cases", "seeds", "first", "second", "difference", "low", "high", "stderr"]
COUNTS += ["improved", "worse", "same", "p", "p_cases", "generalises_to"]
N_DRAWS, CONFIDENCE = 10_000, 0.95
"""Of the intervals; the same draws for all."""


class Sides(NamedTuple):
    """Who is compared, and what of it; None stands for all."""

    first: str
    second: str
    judge: str | None = None
    metric: str | None = None
    seed: int | None = None


def case_differences(warehouse: Path, sides: Sides) -> pd.DataFrame:
    """Returns a row for every seed, case, judge and metric that both agents were scored on, biggest changes first.

    Samples and replicates of a case are averaged; an agent's training cases are left out. Two trained agents meet on
    the same seed's held-out cases; a source model, which has no seed, meets a trained agent wherever that was tested.
    `change` is of `second` against `first`: at least one point of score, or `same`. `first_trajectories` and
    `second_trajectories` hold their ids.

    Raises:
        FrontierError: An agent, judge, metric or seed that is not there, or nothing that both were scored on.
    """
    with open_database(warehouse) as database:
        _check(database, sides)
        asked = {**sides._asdict(), "least": SMALLEST_DIFFERENCE}
        table: pd.DataFrame = database.execute(CELLS, asked).df()
    if table.empty:
        raise FrontierError(
            f"{sides.first} and {sides.second} were never scored on the same case by the same judge"
            f"{'' if sides.seed is None else f' under seed {sides.seed}'}: there is nothing to compare."
        )
    return table


def difference_counts(differences: pd.DataFrame) -> pd.DataFrame:
    """Return, for each judge and metric, means, their difference with its interval, and how many cases improved.

    Interval, `stderr` and `p` are of the one error model of `intervals`; `generalises_to` says what they hold for: with
    one seed, other cases alone, and both agents as they are. `p_cases` is Wilcoxon's signed-rank test on the cases'
    mean differences, which takes the agents as they are with any number of seeds.
    """
    rows = []
    for (judge, metric), group in differences.groupby(["judge", "metric"], sort=True):
        cells = group.assign(seed=group["seed"].fillna(-1))
        grid = cells.pivot_table(index="seed", columns="case_idx", values="difference").to_numpy(dtype=float)
        draws = draw(*grid.shape, N_DRAWS, 0)
        found = draws.summary(draws.means(grid[None])[0], CONFIDENCE)
        by_case = cells.groupby("case_idx")["difference"].mean().to_numpy(dtype=float)
        first, second = (float(group[name].mean()) for name in ("first", "second"))
        changes = (int((group["change"] == change).sum()) for change in ("improved", "worse", "same"))
        counts = len(group), len(by_case), len(grid)
        numbers = found.estimate, found.low, found.high, found.stderr
        tests = found.p, signed_rank_p(by_case), draws.scope
        rows.append((judge, metric, *counts, first, second, *numbers, *changes, *tests))
    return pd.DataFrame(rows, columns=COUNTS)


def _check(database: duckdb.DuckDBPyConnection, sides: Sides) -> None:
    """Raises an error that names what there is instead of something asked for that is not."""
    if sides.first == sides.second:
        raise FrontierError(f"{sides.first} against itself: name two agents.")
    asked = [("agent", sides.first), ("agent", sides.second), ("judge", sides.judge), ("metric", sides.metric)]
    for column, value in [*asked, ("seed", sides.seed)]:
        table = "trajectories" if column in ("agent", "seed") else "evaluations"
        query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY 1"
        known = [str(row[0]) for row in database.execute(query).fetchall()]
        if value is not None and str(value) not in known:
            close = difflib.get_close_matches(str(value), known, n=3, cutoff=0.4) or known[:10]
            raise FrontierError(f"{column} {value}: there is none in these runs. Near it: {', '.join(close)}.")
