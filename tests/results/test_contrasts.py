from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Statistics

from .tiny import SPLITS, Trained, Verdict, build, compute_frontier, flat_verdicts, pick

LINE = {Recipe.safe: (3.0, 0.0), Recipe.help: (0.0, 3.0), Recipe.safe_then_help: (2.0, 1.0)}


def warehouse(tmp_path: Path, both: tuple[float, float], **changes: object) -> Path:
    """One model, source at (1, 1), and recipes (safety, helpfulness) on a falling line of slope -1; `both` beside."""
    agents = [Trained("m", recipe) for recipe in (*LINE, Recipe.both)]
    scores = {(agent.key, "a"): {**LINE, Recipe.both: both}[agent.recipe] for agent in agents}
    return build(tmp_path / "w.duckdb", agents, flat_verdicts({("m", "a"): (1.0, 1.0), **scores}))


def test_a_difference_is_that_of_the_scores(tmp_path: Path) -> None:
    table = compute_frontier(warehouse(tmp_path, (2.0, 2.0))).contrasts
    row = pick(table, judge=None, first="safe", second="safe_then_help", axis="safe")
    assert (row["estimate"], row["n"], row["beta"]) == (1.0, 1, 0.1)
    row = pick(table, judge=None, first="safe", second="help", axis="help")
    assert row["estimate"] == -3.0
    assert not len(table[table["first"] == "help_then_safe"])


def test_the_distance_is_at_a_right_angle_to_the_line_of_the_others(tmp_path: Path) -> None:
    table = compute_frontier(warehouse(tmp_path, (2.0, 2.0))).contrasts
    row = pick(table, judge=None, axis="distance")
    assert row["estimate"] == pytest.approx(0.5**0.5)  # the line is safety + helpfulness = 3
    assert (row["first"], pd.isna(row["second"])) == ("both", True)


def test_only_cases_that_both_have_count(tmp_path: Path) -> None:
    agents = [Trained("m", Recipe.safe_then_help), Trained("m", Recipe.help_then_safe)]
    first, second = (agent.key for agent in agents)
    verdicts = [Verdict("m", None, case, 1.0, metric=metric) for case in range(4) for metric in ("safe", "help")]
    for seed, cases in SPLITS.items():
        for case in cases:
            verdicts += [Verdict(first, seed, case, 2.0, metric=metric) for metric in ("safe", "help")]
    # The other agent has a score on one case only; its other cases must not count as a difference.
    verdicts += [Verdict(second, 0, 0, 1.5, metric=metric) for metric in ("safe", "help")]
    table = compute_frontier(build(tmp_path / "w.duckdb", agents, verdicts)).contrasts
    assert pick(table, judge=None, axis="safe")["estimate"] == 0.5


def test_an_interval_without_draws_is_none_and_with_draws_holds_the_estimate(tmp_path: Path) -> None:
    path = warehouse(tmp_path, (2.0, 2.0))
    assert compute_frontier(path).contrasts[["low", "high", "p"]].isna().all(axis=None)
    table = compute_frontier(path, Statistics(n_bootstrap=200)).contrasts
    assert (table["low"] <= table["estimate"] + 1e-9).all() and (table["estimate"] <= table["high"] + 1e-9).all()
    assert table["p"].between(0, 1).all()
