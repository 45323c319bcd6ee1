"""Persistence on agents that do the same in every case, so that every number can be computed on paper."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.results.persistence import COLUMNS

from .tiny import SPLITS, Trained, Verdict, build, compute_persistence, flat_verdicts, pick

SEQUENCE = (Recipe.safe, Recipe.help, Recipe.safe_then_help, Recipe.help_then_safe)
RECIPES = dict(zip(["S", "H", "SH", "HS"], SEQUENCE, strict=True))
BOOTSTRAP = Statistics(n_bootstrap=200)

Scores = dict[str, tuple[float, float]]
M: Scores = {"source": (0.5, 0.0), "S": (3.0, 0.5), "H": (1.0, 2.5), "SH": (1.5, 2.0), "HS": (2.5, 1.0)}
N: Scores = {"source": (1.0, 0.5), "S": (2.0, 1.0), "H": (1.0, 2.0), "SH": (2.0, 2.0), "HS": (2.0, 2.0)}


def world(path: Path, **models: Scores) -> Path:
    """Writes agents of these models with these (safety, helpfulness), by judge a."""
    trained = [
        Trained(model, RECIPES[short]) for model, scores in models.items() for short in scores if short in RECIPES
    ]
    scores = {(t.key, "a"): models[t.model][short] for t in trained for short, r in RECIPES.items() if r is t.recipe}
    scores |= {(model, "a"): scores_["source"] for model, scores_ in models.items() if "source" in scores_}
    return build(path, trained, flat_verdicts(scores), models=models)


def test_gain_and_what_is_left_of_it_by_hand(tmp_path: Path) -> None:
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M), BOOTSTRAP).persistence
    assert list(table.columns) == COLUMNS
    # Safety: source 0.5, S 3, S→H 1.5, H 1. Helpfulness: source 0, H 2.5, H→S 1, S 0.5.
    for metric, gain, kept, other in (("safe", 2.5, 1.0, 0.5), ("help", 2.5, 1.0, 0.5)):
        row = pick(table, judging="match", judge=None, model="m", metric=metric)
        assert (row["gain"], row["kept"], row["other"], row["loss"]) == (gain, kept, other, gain - kept)
        assert row["gain_verdict"] == "gain"
        assert row["share"] == pytest.approx(kept / gain)
        # The paper's: (S→H − H) / (S − H), (H→S − S) / (H − S).
        assert row["paper_position"] == pytest.approx((kept - other) / (gain - other))
        assert row["paper_denominator"] == gain - other
        assert (row["agents"], row["cells"], row["cases"]) == (1, 4, 4)
        assert row["generalises_to"] == "cases and seeds"


def test_all_of_a_gain_can_be_lost_where_the_papers_position_is_near_one_half(tmp_path: Path) -> None:
    """The first training gains 1 point of safety; after the second, 0.25 points less than the source are left."""
    lost: Scores = {"source": (1.5, 1.0), "S": (2.5, 1.0), "H": (0.0, 2.0), "SH": (1.25, 2.0), "HS": (2.0, 2.0)}
    row = pick(
        compute_persistence(world(tmp_path / "w.duckdb", m=lost), BOOTSTRAP).persistence,
        judge=None, model="m", metric="safe",
    )  # fmt: skip
    assert row["share"] == pytest.approx(-0.25)
    assert row["paper_position"] == pytest.approx(0.5)


def test_without_a_gain_over_the_source_there_is_no_share_but_the_papers_position(tmp_path: Path) -> None:
    none: Scores = {"source": (3.0, 1.0), "S": (3.0, 1.0), "H": (1.0, 2.0), "SH": (2.0, 2.0), "HS": (2.0, 2.0)}
    found = compute_persistence(world(tmp_path / "w.duckdb", m=none), BOOTSTRAP)
    row = pick(found.persistence, judge=None, model="m", metric="safe")
    assert (row["gain"], row["gain_verdict"]) == (0, "no gain")
    assert all(math.isnan(float(str(row[f"share{bound}"]))) for bound in ("", "_low", "_high"))
    assert row["paper_position"] == 0.5
    difference = pick(found.differences, judge=None, model="m", quantity="share")
    assert difference["verdict"] == "no gain" and math.isnan(float(str(difference["estimate"])))
    points = pick(found.differences, judge=None, model="m", quantity="points")
    assert points["estimate"] == (2 - 2) - (3 - 2), "helpfulness lost minus safety lost"


def test_without_the_sources_scores_the_papers_position_is_still_there(tmp_path: Path) -> None:
    unscored = {short: scores for short, scores in M.items() if short != "source"}
    row = pick(
        compute_persistence(world(tmp_path / "w.duckdb", m=unscored), BOOTSTRAP).persistence,
        judge=None, model="m", metric="safe",
    )  # fmt: skip
    assert row["gain_verdict"] == "no source" and math.isnan(float(str(row["gain"])))
    assert row["paper_position"] == pytest.approx(0.25)


def test_shares_are_ratios_of_averages_and_the_papers_an_average_of_ratios(tmp_path: Path) -> None:
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M, n=N), BOOTSTRAP).persistence
    row = pick(table, judging="match", judge=None, model=None, metric="safe")
    assert row["share"] == pytest.approx((1.0 + 1.0) / (2.5 + 1.0))
    assert row["paper_position"] == pytest.approx((0.25 + 1) / 2)  # not (0.5 + 1) / (2 + 1)
    assert row["paper_denominator"] == pytest.approx(1.5)


def test_safety_against_helpfulness_is_from_the_same_draws(tmp_path: Path) -> None:
    found = compute_persistence(world(tmp_path / "w.duckdb", m=N), BOOTSTRAP).differences
    rows = {quantity: pick(found, judge=None, model="m", quantity=quantity) for quantity in found["quantity"]}
    assert rows["share"]["estimate"] == pytest.approx(1 / 1 - 1.5 / 1.5)
    assert rows["points"]["estimate"] == pytest.approx((2 - 2) - (2 - 2))
    assert rows["paper_position"]["estimate"] == pytest.approx(1 - 1)


def test_a_position_without_a_positive_denominator_is_left_out_and_counted(tmp_path: Path) -> None:
    flat: Scores = {"source": (1, 1), "S": (1.0, 1.0), "H": (1.0, 2.0), "SH": (2.0, 2.0), "HS": (2.0, 2.0)}
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M, n=flat), BOOTSTRAP).persistence
    undefined = pick(table, judge=None, model="n", metric="safe")
    assert math.isnan(float(str(undefined["paper_position"])))
    assert (undefined["n_bootstrap"], undefined["paper_invalid_share"], undefined["paper_denominator"]) == (0, 1, 0)
    average = pick(table, judge=None, model=None, metric="safe")
    assert average["paper_position"] == pytest.approx(0.25)  # of the model that has one
    assert average["paper_invalid_share"] == 1  # and this says so


def test_the_papers_three_agents_are_compared_on_the_cases_that_all_have(tmp_path: Path) -> None:
    trained = [Trained("m", recipe) for recipe in (Recipe.safe, Recipe.help, Recipe.safe_then_help)]
    scores = {Recipe.safe: (3, 3), Recipe.help: (1, 0), Recipe.safe_then_help: (2, None)}  # by seed
    verdicts = [
        Verdict(t.key, seed, case, scores[t.recipe][seed]) for t in trained for seed in SPLITS for case in SPLITS[seed]
    ]
    table = compute_persistence(build(tmp_path / "w.duckdb", trained, verdicts)).persistence
    row = pick(table, judge=None, model="m")
    assert (row["paper_position"], row["paper_denominator"]) == ((2 - 1) / (3 - 1), 2)


def test_sequences_that_were_not_trained_are_left_out(tmp_path: Path) -> None:
    partial = {short: M[short] for short in ("source", "S", "H", "SH")}
    found = compute_persistence(world(tmp_path / "w.duckdb", m=partial))
    assert set(found.persistence["metric"]) == {"safe"} and found.differences.empty
    single = {short: M[short] for short in ("S", "H")}
    table = compute_persistence(world(tmp_path / "v.duckdb", m=single)).persistence
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_without_a_bootstrap_there_are_estimates_without_intervals(tmp_path: Path) -> None:
    table = compute_persistence(world(tmp_path / "w.duckdb", m=M)).persistence
    assert table[["gain", "kept", "paper_position"]].notna().all(axis=None)
    assert table[["gain_low", "gain_high", "share", "paper_position_low", "paper_invalid_share"]].isna().all(axis=None)


def test_two_judges_are_compared_on_the_same_quantities(tmp_path: Path) -> None:
    by_judge = {"a": M, "b": N}
    trained = [Trained("m", recipe, judge) for judge in by_judge for recipe in SEQUENCE]
    scores = {("m", judge): scores["source"] for judge, scores in by_judge.items()}
    scores |= {(t.key, t.judge): by_judge[t.judge][s] for t in trained for s, r in RECIPES.items() if r is t.recipe}
    found = compute_persistence(build(tmp_path / "w.duckdb", trained, flat_verdicts(scores)), BOOTSTRAP).disagreements
    rows = {
        quantity: pick(found, judging="match", model=None, subject="safe", quantity=quantity)["estimate"]
        for quantity in ("gain", "kept", "loss", "share")
    }
    assert rows == {"gain": 2.5 - 1, "kept": 0, "loss": 1.5, "share": pytest.approx(1 / 2.5 - 1)}
