"""What each rule of pairing does to the number of pairs, one rule changed at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.sections import Pairing
from dagster_project.experiment.spec import Experiment
from dagster_project.preferences.pairs import Candidates, consistent, select_pairs

COLUMNS = ["judge", "metric", "option", "value", "pairs", "cases", "share", "candidates"]
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"exclude_self_observed": True},
    {"exclude_runaways": True},
    {"exclude_failed": True},
    {"exclude_twins": True},
    {"balance": True},
    {"per_case": 20},
    {"min_gap": 1},
    {"min_chosen": 3},
    {"combine": "mean"},
    {"either": "all"},
)
"""Of the experiment's own rules, which come first."""
ONLY_OF = {"combine": TrainedMetric.both, "either": TrainedMetric.either}
"""Which metric's pairs a rule is about, where it is not about all."""
QUERY = """
    SELECT e.trajectory_id, e.agent, e.case_idx, t.self_observed, t.stop_reason, t.failed,
        median(score) FILTER (metric = 'safe') AS safe, median(score) FILTER (metric = 'help') AS help,
        list(score) FILTER (metric = 'safe') AS safe_scores, list(score) FILTER (metric = 'help') AS help_scores
    FROM evaluations e JOIN trajectories t USING (trajectory_id)
    WHERE e.seed IS NULL AND judge = $judge AND score IS NOT NULL GROUP BY ALL ORDER BY e.case_idx, e.trajectory_id
"""


def pair_options(database: duckdb.DuckDBPyConnection, experiment: Experiment) -> pd.DataFrame:
    """Returns the pairs over all cases under the experiment's rules (`option` is `none`) and under each change.

    `share` is of the pairs under the experiment's own rules; a change that is one already is left out.
    """
    rows: list[tuple[Any, ...]] = []
    known = database.execute("SELECT DISTINCT judge, metric FROM preference_pairs ORDER BY ALL").fetchall()
    for judge, name in known:
        metric = TrainedMetric(name)
        table = database.execute(QUERY, {"judge": judge}).df()
        own = 0
        for option, value, pairing in _changes(experiment.pairs, metric):
            selected = select_pairs(_candidates(table, metric, pairing), metric, pairing, 0).counts
            own = selected["pairs"] if option == "none" else own
            share = selected["pairs"] / own if own else float("nan")
            counts = selected["pairs"], selected["cases"], share, selected.get("candidates", 0)
            rows.append((judge, name, option, value, *counts))
    return pd.DataFrame(rows, columns=COLUMNS)


def _changes(own: Pairing, metric: TrainedMetric) -> Iterator[tuple[str, str, Pairing]]:
    for change in CHANGES:
        for option, value in change.items():
            if getattr(own, option) != value and ONLY_OF.get(option, metric) is metric:
                yield option, str(value), own.model_copy(update=change)
        if not change:
            yield "none", "", own


def _candidates(table: pd.DataFrame, metric: TrainedMetric, pairing: Pairing) -> Candidates:
    names = [part.value for part in metric.judged]
    scored = table.dropna(subset=names)
    usable = [
        not pairing.leaves_out(row["self_observed"], row["stop_reason"], unfinished=row["failed"])
        and all(consistent(row[f"{name}_scores"], pairing.consistency) for name in names)
        for row in scored.to_dict("records")
    ]
    kept = scored[np.array(usable, dtype=np.bool_)]
    return Candidates(
        kept["trajectory_id"].tolist(),
        kept["agent"].tolist(),
        kept["case_idx"].to_numpy(dtype=np.int64),
        kept[names].to_numpy(dtype=np.float64),
    )
