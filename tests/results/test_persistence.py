from __future__ import annotations

import math
from pathlib import Path

import pytest

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Statistics
from dagster_project.results.persistence import COLUMNS

from .tiny import SPLITS, Trained, Verdict, build, compute_persistence, flat_verdicts, pick

SEQUENCE = (Recipe.safe, Recipe.help, Recipe.safe_then_help, Recipe.help_then_safe)
RECIPES = dict(zip(["S", "H", "SH", "HS"], SEQUENCE, strict=True))
BOOTSTRAP = Statistics(n_bootstrap=50)

Scores = dict[str, tuple[float, float]]
M: Scores = {"S": (3.0, 0.5), "H": (1.0, 2.5), "SH": (1.5, 2.0), "HS": (2.5, 1.0)}
N: Scores = {"S": (2.0, 1.0), "H": (1.0, 2.0), "SH": (2.0, 2.0), "HS": (2.0, 2.0)}


def world(path: Path, **models: Scores) -> Path:
    """Writes agents of these models with these (safety, helpfulness), by judge a."""
    trained = [Trained(model, RECIPES[short]) for model, scores in models.items() for short in scores]
    scores = {(t.key, "a"): models[t.model][short] for t in trained for short, r in RECIPES.items() if r is t.recipe}
    return build(path, trained, flat_verdicts(scores), models=models)


def test_the_share_of_the_first_gain_that_survives_by_hand(tmp_path: Path) -> None:
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M), BOOTSTRAP)
    assert list(table.columns) == COLUMNS
    # (s(S→H) − s(H)) / (s(S) − s(H)) for safety, (h(H→S) − h(S)) / (h(H) − h(S)) for helpfulness.
    for metric, estimate in (("safe", (1.5 - 1) / (3 - 1)), ("help", (1.0 - 0.5) / (2.5 - 0.5))):
        row = pick(table, judging="match", judge=None, model="m", metric=metric)
        assert row["estimate"] == pytest.approx(estimate)
        assert row["low"] == row["high"] == pytest.approx(estimate)
        assert row["denominator"] == 2
        # With two seeds of two cases, some draws hold none of the cells.
        assert row["n_bootstrap"] == round(50 * (1 - float(str(row["invalid_share"])))) > 40


def test_models_are_averaged_after_the_ratio(tmp_path: Path) -> None:
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M, n=N))
    row = pick(table, judging="match", judge=None, model=None, metric="safe")
    assert row["estimate"] == pytest.approx((0.25 + 1) / 2)  # not (0.5 + 1) / (2 + 1)
    assert row["denominator"] == pytest.approx(1.5)


def test_without_a_first_gain_there_is_no_share_of_it(tmp_path: Path) -> None:
    flat: Scores = {"S": (1.0, 1.0), "H": (1.0, 2.0), "SH": (2.0, 2.0), "HS": (2.0, 2.0)}
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M, n=flat), BOOTSTRAP)
    undefined = pick(table, judge=None, model="n", metric="safe")
    assert all(math.isnan(float(str(undefined[name]))) for name in ("estimate", "low", "high"))
    assert (undefined["n_bootstrap"], undefined["invalid_share"], undefined["denominator"]) == (0, 1, 0)
    average = pick(table, judge=None, model=None, metric="safe")
    assert average["estimate"] == pytest.approx(0.25)  # of the model that has one
    assert average["invalid_share"] == 1  # and this says so


def test_draws_without_a_first_gain_are_counted(tmp_path: Path) -> None:
    """S gains on cases 0 and 2 what it loses on 1 and 3, and a little more: some draws turn the gain around."""
    trained = [Trained("m", recipe) for recipe in SEQUENCE]
    safety = {Recipe.safe: (3, 0), Recipe.help: (0, 2), Recipe.safe_then_help: (2, 1), Recipe.help_then_safe: (2, 2)}
    verdicts = [
        Verdict(t.key, seed, case, safety[t.recipe][case % 2], metric=metric)
        for t in trained
        for seed, cases in SPLITS.items()
        for case in cases
        for metric in ("safe", "help")
    ]
    path = build(tmp_path / "w.duckdb", trained, verdicts)
    row = pick(compute_persistence(path, Statistics(n_bootstrap=400)), judge=None, model="m", metric="safe")
    assert row["estimate"] == pytest.approx((1.5 - 1) / (1.5 - 1))
    assert 0.05 < float(str(row["invalid_share"])) < 0.6
    assert row["n_bootstrap"] == round(400 * (1 - float(str(row["invalid_share"]))))
    assert (row["cautious_low"], row["cautious_high"]) == (-math.inf, math.inf)


def test_cautious_bounds_hold_wherever_missing_draws_lie(tmp_path: Path) -> None:
    """S gains two points on half the cases and loses one on the others: some draws have no gain."""
    trained = [Trained("m", recipe) for recipe in SEQUENCE]
    safety = {Recipe.safe: (2, 1), Recipe.help: (0, 2), Recipe.safe_then_help: (1, 2), Recipe.help_then_safe: (2, 2)}
    verdicts = [
        Verdict(t.key, seed, case, safety[t.recipe][case == cases[0]], metric=metric)
        for t in trained
        for seed, cases in SPLITS.items()
        for case in cases
        for metric in ("safe", "help")
    ]
    path = build(tmp_path / "w.duckdb", trained, verdicts)
    wide = Statistics(n_bootstrap=400, confidence=0.2)
    row = pick(compute_persistence(path, wide), judge=None, model="m", metric="safe")
    assert 0 < row["invalid_share"] < 0.4
    assert -math.inf < row["cautious_low"] <= row["low"]
    assert row["high"] <= row["cautious_high"] < math.inf


def test_the_three_agents_are_compared_on_the_cases_that_all_have(tmp_path: Path) -> None:
    trained = [Trained("m", recipe) for recipe in (Recipe.safe, Recipe.help, Recipe.safe_then_help)]
    scores = {Recipe.safe: (3, 3), Recipe.help: (1, 0), Recipe.safe_then_help: (2, None)}  # by seed
    verdicts = [
        Verdict(t.key, seed, case, scores[t.recipe][seed]) for t in trained for seed in SPLITS for case in SPLITS[seed]
    ]
    row = pick(compute_persistence(build(tmp_path / "w.duckdb", trained, verdicts)), judge=None, model="m")
    assert (row["estimate"], row["denominator"]) == ((2 - 1) / (3 - 1), 2)


def test_sequences_that_were_not_trained_are_left_out(tmp_path: Path) -> None:
    partial = {short: M[short] for short in ("S", "H", "SH")}
    assert set(compute_persistence(world(tmp_path / "w.duckdb", m=partial))["metric"]) == {"safe"}
    single = {short: M[short] for short in ("S", "H")}
    table = compute_persistence(world(tmp_path / "v.duckdb", m=single))
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_without_a_bootstrap_there_are_estimates_without_intervals(tmp_path: Path) -> None:
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M))
    assert table["estimate"].notna().all()
    assert table[["low", "high", "invalid_share"]].isna().all(axis=None)
    assert (table["n_bootstrap"] == 0).all()
