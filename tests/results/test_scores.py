from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Statistics
from dagster_project.results.scores import (
    Column,
    Scores,
    agent_scores,
    clustered_stderr,
    combinations,
    draw,
    interval,
    load_agents,
    load_scores,
)

from .tiny import Trained, Verdict, build, pick

SAFE = Trained("m", Recipe.safe)


def test_samples_of_a_case_are_averaged_before_the_standard_error(tmp_path: Path) -> None:
    path = build(
        tmp_path / "w.duckdb",
        [SAFE],
        [
            Verdict(SAFE.key, 0, 0, 3, sample=0),
            Verdict(SAFE.key, 0, 0, 1, sample=1),  # case 0: 2
            Verdict(SAFE.key, 0, 1, 1, replicate=0),
            Verdict(SAFE.key, 0, 1, 0, replicate=1),
            Verdict(SAFE.key, 0, 1, None, replicate=2),  # case 1: 0.5
            Verdict(SAFE.key, 1, 2, 3),
            Verdict(SAFE.key, 1, 3, None),  # no score at all
        ],
    )
    table = agent_scores(load_scores(path), load_agents(path))
    first, second = pick(table, seed=0), pick(table, seed=1)
    assert (first["mean"], first["n"], first["judging"]) == (1.25, 2, "match")
    assert first["stderr"] == pytest.approx(np.std([2, 0.5], ddof=1) / np.sqrt(2))
    assert (second["mean"], second["n"]) == (3, 1)
    assert np.isnan(second["stderr"])  # type: ignore[call-overload]


def test_everyone_is_scored_on_the_held_out_half_of_each_seed(tmp_path: Path) -> None:
    everywhere = [Verdict("m", None, case, score) for case, score in enumerate([0, 1, 2, 3])]
    # Tested on all cases, as an experiment may ask: only the held-out ones count.
    trained = [Verdict(SAFE.key, seed, case, 3 if case < 2 else 0) for seed in (0, 1) for case in range(4)]
    path = build(tmp_path / "w.duckdb", [SAFE], everywhere + trained)
    table = agent_scores(load_scores(path), load_agents(path))
    means = {(row.agent, row.seed): (row.mean, row.n) for row in table.itertuples()}
    assert means == {("m", 0): (0.5, 2), ("m", 1): (2.5, 2), (SAFE.key, 0): (3, 2), (SAFE.key, 1): (0, 2)}
    assert table.set_index("agent")["judging"].isna().loc["m"].all()


def test_judging_says_whether_the_judge_scored_the_training_pairs(tmp_path: Path) -> None:
    path = build(tmp_path / "w.duckdb", [SAFE], [Verdict(SAFE.key, 0, 0, 1, judge) for judge in "ab"])
    table = agent_scores(load_scores(path), load_agents(path))
    assert dict(zip(table["judge"], table["judging"], strict=True)) == {"a": "match", "b": "cross"}


def test_agents_that_were_never_tested_are_left_out(tmp_path: Path) -> None:
    path = build(tmp_path / "w.duckdb", [SAFE, Trained("m", Recipe.help)], [Verdict(SAFE.key, 0, 0, 1)])
    assert set(load_agents(path)["agent"]) == {"m", SAFE.key}


cells = hnp.arrays(
    np.float64, (2, 2, 5), elements=st.one_of(st.just(float("nan")), st.floats(0, 3, allow_subnormal=False))
)


@given(cells)
def test_plain_weights_give_the_mean_of_what_is_known(values: np.ndarray) -> None:
    scores = Scores(values, {Column("m", "a", "safe"): 0, Column("n", "a", "safe"): 1}, (0, 1))
    means = draw(scores, Statistics(n_bootstrap=0)).means(values)
    assert means.shape == (2, 1)
    for row, mean in zip(values, means[:, 0], strict=True):
        known = row[~np.isnan(row)]
        assert mean == pytest.approx(known.mean()) if len(known) else np.isnan(mean)


def test_the_bootstrap_draws_seeds_and_cases_and_is_repeatable() -> None:
    scores = Scores(np.zeros((1, 3, 7)), {Column("m", "a", "safe"): 0}, (0, 1, 2))
    statistics = Statistics(n_bootstrap=50, seed=4)
    seeds, cases = draw(scores, statistics)
    assert (seeds.shape, cases.shape) == ((51, 3), (51, 7))
    assert (seeds[0] == 1).all() and (cases[0] == 1).all(), "the estimate itself comes first"
    assert (seeds.sum(axis=1) == 3).all() and (cases.sum(axis=1) == 7).all()
    again, other = draw(scores, statistics), draw(scores, statistics.model_copy(update={"seed": 5}))
    assert (again.seeds == seeds).all() and (again.cases == cases).all()
    assert (other.cases != cases).any()


@given(cells, st.integers(0, 2000))
def test_means_of_draws_are_weighted_means(values: np.ndarray, n_bootstrap: int) -> None:
    scores = Scores(values, {}, (0, 1))
    draws = draw(scores, Statistics(n_bootstrap=n_bootstrap))
    means, by_seed = draws.means(values), draws.by_seed(values)
    for place in {0, n_bootstrap // 2, n_bootstrap}:
        weights = draws.seeds[place][:, None] * draws.cases[place][None, :]
        for column, row in enumerate(values):
            known = ~np.isnan(row)
            total = weights[known].sum()
            expected = (weights[known] * row[known]).sum() / total if total else float("nan")
            assert means[column, place] == pytest.approx(expected, nan_ok=True)
            first = known[0]
            weight = draws.cases[place][first].sum()
            expected = (draws.cases[place][first] * row[0][first]).sum() / weight if weight else float("nan")
            assert by_seed[column, 0, place] == pytest.approx(expected, nan_ok=True)


def test_the_same_case_under_two_seeds_is_one_cluster() -> None:
    once = np.array([[0.0, 1.0, 2.0, 3.0]])
    assert clustered_stderr(once) == pytest.approx(np.std(once, ddof=1) / 2)
    assert clustered_stderr(np.concatenate([once, once])) == pytest.approx(clustered_stderr(once))
    assert np.isnan(clustered_stderr(np.array([[1.0, float("nan")]])))


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    statistics, hits, trials = Statistics(n_bootstrap=200, confidence=0.9), 0, 150
    for _ in range(trials):
        scores = Scores(generator.normal(1.5, 1, (1, 1, 40)), {Column("m", "a", "safe"): 0}, (0,))
        low, high = interval(draw(scores, statistics).means(scores.values)[0, 1:], 0.9)
        hits += low <= 1.5 <= high
    assert 0.8 < hits / trials < 0.97


def test_intervals_are_percentiles_of_the_draws_there_are() -> None:
    draws = np.array([*range(101), float("nan")], dtype=float)
    assert interval(draws, 0.9) == pytest.approx((5, 95))
    assert np.isnan(interval(np.array([]), 0.9)).all()
    assert np.isnan(interval(np.array([float("nan")]), 0.9)).all()


def test_ways_of_judging() -> None:
    found = combinations(("match", "cross", "all"), ["a", "b"], ["a", "b"])
    assert found["match", None] == [("a", "a"), ("b", "b")]
    assert found["cross", None] == [("a", "b"), ("b", "a")]
    assert found["cross", "a"] == [("b", "a")]
    assert found["all", None] == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    one = combinations(("match", "cross", "all"), ["a", "b"], ["a"])
    assert one["cross", "b"] == one["cross", None] == [("a", "b")]
    assert ("match", "b") not in one
    assert set(combinations(("match", "cross", "all"), ["a"], ["a"])) == {("match", None), ("match", "a")}
