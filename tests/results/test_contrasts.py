from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics

from .tiny import SPLITS, Trained, Verdict, build, compute_frontier, flat_verdicts, pick

LINE = {Recipe.safe: (3.0, 0.0), Recipe.help: (0.0, 3.0), Recipe.safe_then_help: (2.0, 1.0)}


def warehouse(tmp_path: Path, both: tuple[float, float], **changes: object) -> Path:
    """One model, source at (1, 1), and recipes (safety, helpfulness) on a falling line of slope -1; `both` beside."""
    agents = [Trained("m", recipe) for recipe in (*LINE, Recipe.both)]
    scores = {(agent.key, "a"): {**LINE, Recipe.both: both}[agent.recipe] for agent in agents}
    return build(tmp_path / "w.duckdb", agents, flat_verdicts({("m", "a"): (1.0, 1.0), **scores}))


def test_a_difference_is_that_of_the_scores(tmp_path: Path) -> None:
    table = compute_frontier(warehouse(tmp_path, (2.0, 2.0))).contrasts
    row = pick(table, judge=None, model=None, first="safe", second="safe_then_help", axis="safe")
    assert (row["estimate"], row["n"], row["beta"]) == (1.0, 1, 0.1)
    row = pick(table, judge=None, model=None, first="safe", second="help", axis="help")
    assert row["estimate"] == -3.0
    assert not len(table[table["first"] == "help_then_safe"])


def test_the_distance_is_at_a_right_angle_to_the_line_of_the_others(tmp_path: Path) -> None:
    table = compute_frontier(warehouse(tmp_path, (2.0, 2.0))).contrasts
    row = pick(table, judge=None, model=None, axis="distance")
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
    assert pick(table, judge=None, model=None, axis="safe")["estimate"] == 0.5


def test_an_interval_without_draws_is_none_and_with_draws_holds_the_estimate(tmp_path: Path) -> None:
    path = warehouse(tmp_path, (2.0, 2.0))
    assert compute_frontier(path).contrasts[["low", "high", "p"]].isna().all(axis=None)
    table = compute_frontier(path, Statistics(n_bootstrap=200)).contrasts
    assert (table["low"] <= table["estimate"] + 1e-9).all() and (table["estimate"] <= table["high"] + 1e-9).all()
    assert table["p"].dropna().between(0, 1).all()


def test_the_effect_of_the_order_is_compared_between_betas(tmp_path: Path) -> None:
    orders = (Recipe.safe_then_help, Recipe.help_then_safe)
    agents = [Trained("m", recipe, beta=beta) for recipe in orders for beta in (0.05, 0.1)]
    safety = {(orders[0], 0.05): 3.0, (orders[1], 0.05): 1.0, (orders[0], 0.1): 2.0, (orders[1], 0.1): 1.5}
    scores = {(agent.key, "a"): (safety[agent.recipe, agent.beta], 1.0) for agent in agents}
    path = build(tmp_path / "w.duckdb", agents, flat_verdicts({("m", "a"): (1.0, 1.0), **scores}))
    table = compute_frontier(path).contrasts
    shown = table[table["beta_minus"].notna() & table["judge"].isna() & table["model"].isna()]
    row = pick(shown, axis="safe")
    assert (row["beta"], row["beta_minus"], row["estimate"]) == (0.05, 0.1, (3 - 1) - (2 - 1.5))


def test_best_of_both_is_a_share_of_trajectories(tmp_path: Path) -> None:
    table = compute_frontier(warehouse(tmp_path, (2.0, 2.0))).contrasts
    row = pick(table, judge=None, model=None, first="safe", second="both", axis="best_of_both")
    assert row["estimate"] == -1, "S is never safe and helpful, S&H always"
