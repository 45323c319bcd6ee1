"""Warehouses written by hand, so that every result can be computed on paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import pandas as pd

from dagster_project.experiment.agents import Recipe, agent_key
from dagster_project.experiment.sections import Statistics
from dagster_project.results.frontier import Frontier, frontier
from dagster_project.results.persistence import Persistence, persistence
from dagster_project.results.scores import load_agents, load_scores
from dagster_project.results.warehouse import SCHEMA

SPLITS = {0: (0, 1), 1: (2, 3)}
"""The test cases of each seed; there are cases 0 to 3."""
PLAIN = Statistics(n_bootstrap=0)


class Verdict(NamedTuple):
    agent: str
    seed: int | None
    case: int
    score: float | None
    judge: str = "a"
    metric: str = "safe"
    sample: int = 0
    replicate: int = 0

    @property
    def trajectory(self) -> str:
        return f"{self.agent}/{self.seed}/{self.case}/{self.sample}"


class Trained(NamedTuple):
    model: str
    recipe: Recipe
    judge: str = "a"
    beta: float = 0.1
    here: bool = True

    @property
    def key(self) -> str:
        return agent_key(self.model, self.recipe.value, self.judge, self.beta)

    @property
    def stages(self) -> list[dict[str, object]]:
        metrics = self.recipe.metrics if self.here else ()
        return [{"metric": metric.value, "judge": self.judge, "beta": self.beta, "epochs": 1.0} for metric in metrics]


def build(
    path: Path,
    trained: Iterable[Trained],
    verdicts: Iterable[Verdict],
    models: Iterable[str] = ("m",),
    splits: Mapping[int, Iterable[int]] = SPLITS,
) -> Path:
    """Writes a warehouse with these agents and verdicts, and a trajectory for every verdict's."""
    verdicts = list(verdicts)
    cases = {case for test in splits.values() for case in test}
    with duckdb.connect(str(path)) as database:

        def insert(table: str, rows: Iterable[tuple[object, ...]]) -> None:
            for row in rows:
                database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", list(row))

        database.execute(SCHEMA.read_text(encoding="utf-8"))
        insert("splits", [(s, c, "test" if c in set(test) else "train") for s, test in splits.items() for c in cases])
        insert("agents", [(model, model, None, None, None, None, None, "source", None, None) for model in models])
        insert(
            "agents",
            [
                (t.key, t.model, t.recipe.value, t.stages, t.judge, t.beta, s, t.recipe.label, t.recipe.variant, None)
                for t in trained
                for s in splits
            ],
        )
        where = {verdict.trajectory: verdict for verdict in verdicts}
        insert(
            "trajectories",
            [
                (
                    *(name, v.agent, v.seed, v.case, v.sample, None, "", "final_answer", 1, 0, 10, "", 0, 100, 1, 0),
                    *(False, False),
                )
                for name, v in where.items()
            ],
        )
        insert(
            "evaluations",
            [
                (
                    v.trajectory,
                    v.agent,
                    v.seed,
                    v.case,
                    v.judge,
                    v.metric,
                    v.replicate,
                    v.score,
                    "",
                    "rules",
                    "",
                    None,
                    "",
                )
                for v in verdicts
            ],
        )
    return path


Flat = Mapping[tuple[str, str], tuple[float, float]]
"""(agent, judge) to (safety, helpfulness), the same in every case."""


def flat_verdicts(scores: Flat, seeds: Iterable[int] = SPLITS) -> list[Verdict]:
    """Returns verdicts of agents that do the same in every case; source models act on all, trained ones on test."""
    found = []
    for (agent, judge), (safe, help_) in scores.items():
        places = [(None, case) for case in range(4)]
        if ":" in agent:
            places = [(seed, case) for seed in seeds for case in SPLITS[seed]]  # type: ignore[misc]
        for seed, case in places:
            found.append(Verdict(agent, seed, case, safe, judge, "safe"))
            found.append(Verdict(agent, seed, case, help_, judge, "help"))
    return found


def compute_frontier(path: Path, statistics: Statistics = PLAIN) -> Frontier:
    return frontier(load_scores(path), load_agents(path), statistics)


def compute_persistence(path: Path, statistics: Statistics = PLAIN) -> Persistence:
    return persistence(load_scores(path), load_agents(path), statistics)


def pick(table: pd.DataFrame, **fields: object) -> dict[str, object]:
    """Returns the one row with these values; None finds a null."""
    for name, value in fields.items():
        table = table[table[name].isna()] if value is None else table[table[name] == value]
    (row,) = table.to_dict("records")
    return {str(name): value for name, value in row.items()}
