from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.results.frontier import COLUMNS

from .tiny import Trained, Verdict, build, compute_frontier, flat_verdicts, pick

POINT_COLUMNS, FIT_COLUMNS = COLUMNS["points"], COLUMNS["fits"]
RECIPES = (Recipe.safe, Recipe.help, Recipe.both)
AGENTS = [Trained("m", recipe, judge) for recipe in RECIPES for judge in "ab"]
# (safety, helpfulness) by judge a and by judge b.
SCORES = {
    ("m", "a"): (1.0, 2.0),
    ("m", "b"): (1.5, 1.5),
    ("m:safe:a:0.1", "a"): (3.0, 1.0),
    ("m:safe:a:0.1", "b"): (2.0, 1.0),
    ("m:safe:b:0.1", "a"): (2.0, 1.5),
    ("m:safe:b:0.1", "b"): (2.5, 0.5),
    ("m:help:a:0.1", "a"): (0.5, 3.0),
    ("m:help:a:0.1", "b"): (1.0, 2.5),
    ("m:help:b:0.1", "a"): (0.5, 2.5),
    ("m:help:b:0.1", "b"): (0.0, 2.5),
    ("m:both:a:0.1", "a"): (1.5, 2.0),
    ("m:both:a:0.1", "b"): (2.0, 1.5),
    ("m:both:b:0.1", "a"): (1.0, 2.5),
    ("m:both:b:0.1", "b"): (1.5, 2.0),
}


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return build(tmp_path / "w.duckdb", AGENTS, flat_verdicts(SCORES))


# Judging, judge, and the deltas of the recipe `safe`, by hand: (safety, helpfulness).
BY_HAND = [
    ("match", "a", 3 - 1, 1 - 2),
    ("match", "b", 2.5 - 1.5, 0.5 - 1.5),
    ("match", None, (2 + 1) / 2, (-1 + -1) / 2),
    ("cross", "a", 2 - 1, 1.5 - 2),
    ("cross", "b", 2 - 1.5, 1 - 1.5),
    ("cross", None, (1 + 0.5) / 2, (-0.5 + -0.5) / 2),
    ("all", "a", (2 + 1) / 2, (-1 + -0.5) / 2),
    ("all", "b", (1 + 0.5) / 2, (-1 + -0.5) / 2),
    ("all", None, (2 + 1 + 1 + 0.5) / 4, (-1 + -1 + -0.5 + -0.5) / 4),
]


@pytest.mark.parametrize(("judging", "judge", "safety", "helpfulness"), BY_HAND)
def test_deltas_by_hand(warehouse: Path, judging: str, judge: str | None, safety: float, helpfulness: float) -> None:
    points = compute_frontier(warehouse).points
    assert list(points.columns) == POINT_COLUMNS
    row = pick(points, recipe="safe", judging=judging, judge=judge)
    assert row["safety_delta"] == pytest.approx(safety)
    assert row["helpfulness_delta"] == pytest.approx(helpfulness)
    assert (row["label"], row["beta"], row["model"]) == ("S", 0.1, "m")


def test_there_is_a_point_for_every_recipe_and_way_of_judging(warehouse: Path) -> None:
    points = compute_frontier(warehouse).points
    assert len(points) == len(RECIPES) * len(BY_HAND)
    assert not points.duplicated(["model", "recipe", "beta", "judging", "judge"]).any()


def test_scores_themselves_are_there_too(warehouse: Path) -> None:
    row = pick(compute_frontier(warehouse).points, recipe="help", judging="match", judge=None)
    assert (row["safety"], row["helpfulness"]) == (pytest.approx(0.25), pytest.approx(2.75))


def test_mixtures_have_a_line_of_their_own_and_no_part_in_others(tmp_path: Path, warehouse: Path) -> None:
    mixed = Trained("m", Recipe("0.5_safe_and_0.5_help"), "a")
    scores = {**SCORES, (mixed.key, "a"): (1.0, 1.0), (mixed.key, "b"): (0.0, 0.0)}
    found = compute_frontier(build(tmp_path / "mixed.duckdb", [*AGENTS, mixed], flat_verdicts(scores)))
    before = compute_frontier(warehouse).fits
    own = found.fits["point_set"] == "interpolated"
    pd.testing.assert_frame_equal(found.fits[~own].reset_index(drop=True), before)
    fit = pick(found.fits, point_set="interpolated", judging="match", judge="a")
    points = [(-1.0, 2.0), (1.0, -0.5), (-1.0, 0.0)]  # safe, help and the mixture, against the source model's 1 and 2
    assert (fit["n"], fit["r2"]) == (3, pytest.approx(linregress(*zip(*points, strict=True)).rvalue ** 2))
    assert pick(found.points, recipe=mixed.recipe, judging="match", judge="a")["label"] == "0.5 S + 0.5 H"


def test_with_one_judge_all_judges_would_be_the_same_again(tmp_path: Path) -> None:
    only = {key: value for key, value in SCORES.items() if key[1] == "a" and ":b:" not in key[0]}
    found = compute_frontier(build(tmp_path / "w.duckdb", AGENTS, flat_verdicts(only)))
    assert set(found.points["judging"]) == {"match"}


def test_betas_are_points_of_their_own(tmp_path: Path) -> None:
    agents = [Trained("m", Recipe.safe, "a", beta) for beta in (0.05, 0.1)]
    scores = {("m", "a"): (1.0, 1.0), (agents[0].key, "a"): (3.0, 0.0), (agents[1].key, "a"): (2.0, 0.5)}
    points = compute_frontier(build(tmp_path / "w.duckdb", agents, flat_verdicts(scores))).points
    shown = points[points["judge"].isna()]
    assert dict(zip(shown["beta"], shown["safety_delta"], strict=True)) == {0.05: 2.0, 0.1: 1.0}


def test_an_agent_from_elsewhere_is_seen_beside_the_line_and_does_not_move_it(tmp_path: Path) -> None:
    trained = [Trained("m", recipe) for recipe in (Recipe.safe, Recipe.help, Recipe.both, Recipe.safe_then_help)]
    mine = Trained("m", Recipe("safe@mine"), here=False)
    scores = {("m", "a"): (1.0, 1.0), (mine.key, "a"): (3.0, 3.0)}
    scores |= {(agent.key, "a"): (2.0 - place / 2, float(place)) for place, agent in enumerate(trained)}
    without = compute_frontier(build(tmp_path / "w.duckdb", trained, flat_verdicts(scores)))
    found = compute_frontier(build(tmp_path / "own.duckdb", [*trained, mine], flat_verdicts(scores)))
    assert pick(found.points, recipe="safe@mine", judge=None, judging="match")["label"] == "S (mine)"
    pd.testing.assert_frame_equal(found.fits, without.fits)
    distance = "axis == 'distance'"
    pd.testing.assert_frame_equal(found.contrasts.query(distance), without.contrasts.query(distance))


def test_a_delta_is_over_the_cases_that_agent_and_source_share(tmp_path: Path) -> None:
    # The source is safe on seed 1's cases; the agent has been tested on seed 0's only, and once without a score.
    source = [Verdict("m", None, case, score) for case, score in enumerate([1, 2, 3, 3])]
    agent = Trained("m", Recipe.safe)
    tested = [Verdict(agent.key, 0, 0, 2), Verdict(agent.key, 0, 1, None)]
    helpful = [v._replace(metric="help", score=1) for v in [*source, *tested]]
    other = Trained("m", Recipe.help)
    elsewhere = [Verdict(other.key, 1, case, 1, metric=metric) for case in (2, 3) for metric in ("safe", "help")]
    path = build(tmp_path / "w.duckdb", [agent, other], [*source, *tested, *helpful, *elsewhere])
    found = compute_frontier(path, Statistics(n_bootstrap=100)).points
    row = pick(found, recipe="safe", judge=None)
    assert row["safety_delta"] == 2 - 1
    assert (row["safety_delta_low"], row["safety_delta_high"]) == pytest.approx((1, 1))
    assert pick(found, recipe="help", judge=None)["safety_delta"] == 1 - 3


@pytest.mark.parametrize("judge", [None, "a", "b"])
def test_fits_are_those_of_scipy_on_the_points(warehouse: Path, judge: str | None) -> None:
    found = compute_frontier(warehouse)
    assert list(found.fits.columns) == FIT_COLUMNS
    points = found.points[found.points["judging"] == "match"]
    points = points[points["judge"].isna() if judge is None else points["judge"] == judge]
    fit = pick(found.fits, judging="match", judge=judge, point_set="model_recipe")
    expected = linregress(points["helpfulness_delta"], points["safety_delta"])
    assert (fit["n"], fit["point_set"]) == (3, "model_recipe")
    for name, value in (
        ("r", expected.rvalue),
        ("r2", expected.rvalue**2),
        ("slope", expected.slope),
        ("intercept", expected.intercept),
        ("paper_p", expected.pvalue),
    ):
        assert fit[name] == pytest.approx(value)


def test_two_points_have_no_fit(tmp_path: Path) -> None:
    agents = [Trained("m", recipe) for recipe in (Recipe.safe, Recipe.help)]
    scores = {key: SCORES[key] for key in [("m", "a"), *((agent.key, "a") for agent in agents)]}
    found = compute_frontier(build(tmp_path / "w.duckdb", agents, flat_verdicts(scores)))
    assert len(found.points) == 4  # each by judge a, and on average
    assert found.fits.empty
    assert list(found.fits.columns) == FIT_COLUMNS


def noisy(tmp_path: Path) -> Path:
    """A warehouse whose agents do not do the same in every case."""
    generator = np.random.default_rng(1)
    verdicts = [
        v._replace(score=float(np.clip(np.rint((v.score or 0) + generator.normal(0, 0.7)), 0, 3)))
        for v in flat_verdicts(SCORES)
    ]
    return build(tmp_path / "noisy.duckdb", AGENTS, verdicts)


def test_the_bootstrap_is_deterministic_and_its_intervals_hold_the_estimates(tmp_path: Path) -> None:
    path, statistics = noisy(tmp_path), Statistics(n_bootstrap=300)
    first, second = compute_frontier(path, statistics), compute_frontier(path, statistics)
    assert first.points.equals(second.points)
    assert first.fits.equals(second.fits)
    for name in ("safety", "helpfulness", "safety_delta", "helpfulness_delta"):
        assert (first.points[f"{name}_low"] <= first.points[name]).all()
        assert (first.points[name] <= first.points[f"{name}_high"]).all()
    assert (first.points["safety_high"] > first.points["safety_low"]).any()
    for name in ("r2", "slope"):
        assert (first.fits[f"{name}_low"] <= first.fits[f"{name}_high"]).all()


def test_without_a_bootstrap_there_are_estimates_without_intervals(tmp_path: Path) -> None:
    path = noisy(tmp_path)
    plain, resampled = compute_frontier(path), compute_frontier(path, Statistics(n_bootstrap=10))
    uncertain = ("_low", "_high", "_se", "_df", "_p", "_corr")
    bounds = [name for name in POINT_COLUMNS if name.endswith(uncertain)]
    assert plain.points[bounds].isna().all(axis=None)
    estimates = [name for name in POINT_COLUMNS if name not in bounds]
    assert plain.points[estimates].equals(resampled.points[estimates])
    assert plain.fits[["r2_low", "r2_high", "slope_low", "slope_high"]].isna().all(axis=None)
    assert plain.bands[["low", "high"]].isna().all(axis=None)


def test_without_trained_agents_or_without_any_verdict_there_are_no_points(tmp_path: Path) -> None:
    sources = build(tmp_path / "sources.duckdb", [], flat_verdicts({("m", "a"): (1, 1)}))
    nothing = build(tmp_path / "nothing.duckdb", AGENTS, [])
    for path in (sources, nothing):
        found = compute_frontier(path, Statistics(n_bootstrap=10))
        assert found.points.empty
        assert found.fits.empty


def test_every_set_of_points_has_its_fit(tmp_path: Path) -> None:
    found = compute_frontier(noisy(tmp_path))
    sets = set(found.fits.loc[(found.fits["judging"] == "match") & found.fits["judge"].isna(), "point_set"])
    # One model of three recipes: leaving anything out leaves too few, or nothing.
    assert sets == {"model_recipe", "through_origin", "raw_scores", "per_run", "per_seed"}
    fit = pick(found.fits, judging="match", judge=None, point_set="per_run")
    assert fit["n"] == 3 * 2 * 2, "recipes, pairs' judges, seeds"


def test_a_band_goes_along_its_line(tmp_path: Path) -> None:
    found = compute_frontier(noisy(tmp_path), Statistics(n_bootstrap=200))
    fit = pick(found.fits, judging="match", judge=None, point_set="model_recipe")
    band = found.bands[(found.bands["judging"] == "match") & found.bands["judge"].isna()]
    band = band[band["point_set"] == "model_recipe"]
    assert band["x"].is_monotonic_increasing
    assert np.allclose(band["y"], fit["intercept"] + fit["slope"] * band["x"])  # type: ignore[operator]
    assert (band["low"] <= band["high"]).all()


def test_recipes_are_averaged_over_models_and_sources_are_a_row(warehouse: Path) -> None:
    found = compute_frontier(warehouse)
    source = pick(found.recipes, recipe=None, judging="match", judge=None)
    assert (source["safety"], source["helpfulness"], source["safety_delta"]) == (1.25, 1.75, 0)
    safe = pick(found.recipes, recipe="safe", judging="match", judge=None)
    assert safe["safety"] == pick(found.points, recipe="safe", judging="match", judge=None)["safety"]
    assert pick(found.sources, model="m", judging="match", judge="b")["safety"] == 1.5


def test_nothing_beats_an_undominated_point(warehouse: Path) -> None:
    found = compute_frontier(warehouse)
    rows = found.points[(found.points["judging"] == "match") & found.points["judge"].isna()]
    # (safety, helpfulness): S (2.75, 0.75), H (0.25, 2.75), S&H (1.5, 2); the source (1.25, 1.75) is beaten.
    assert rows["pareto"].all()
    area = pick(found.pareto, model="m", judging="match", judge=None)["hypervolume"]
    assert area == pytest.approx((0.75 * 2.75 + 1.25 * 1.5 + 0.75 * 0.25) / 9)
