from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.results.scores import (
    Column,
    Scores,
    agent_scores,
    combinations,
    draws_of,
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
    means = draws_of(scores, Statistics(n_bootstrap=0)).means(values)
    assert means.shape == (2, 1)
    for row, mean in zip(values, means[:, 0], strict=True):
        known = row[~np.isnan(row)]
        assert mean == pytest.approx(known.mean()) if len(known) else np.isnan(mean)


def test_the_bootstrap_draws_seeds_and_cases_and_is_repeatable() -> None:
    scores = Scores(np.zeros((1, 3, 7)), {Column("m", "a", "safe"): 0}, (0, 1, 2))
    statistics = Statistics(n_bootstrap=50, seed=4)
    draws = draws_of(scores, statistics)
    seeds, cases = draws.seeds, draws.cases
    assert (seeds.shape, cases.shape) == ((51, 3), (51, 7))
    assert (seeds[0] == 1).all() and (cases[0] == 1).all(), "the estimate itself comes first"
    assert np.allclose(seeds.sum(axis=1), 3) and (cases.sum(axis=1) == 7).all()
    again, other = draws_of(scores, statistics), draws_of(scores, statistics.model_copy(update={"seed": 5}))
    assert (again.seeds == seeds).all() and (again.cases == cases).all()
    assert (other.cases != cases).any()


@given(cells, st.integers(0, 2000))
def test_means_of_draws_are_weighted_means(values: np.ndarray, n_bootstrap: int) -> None:
    scores = Scores(values, {}, (0, 1))
    draws = draws_of(scores, Statistics(n_bootstrap=n_bootstrap))
    means, by_seed = draws.means(values), draws.by_seed(values)
    for place in {0, n_bootstrap // 2, n_bootstrap}:
        for column, row in enumerate(values):
            known = ~np.isnan(row)
            weights = np.broadcast_to(draws.cases[place], row.shape)[known]
            expected = float("nan")
            if known.any() and weights.sum():
                residual = np.where(known, row - row[known].mean(), 0).sum(axis=1) / known.sum()
                expected = (weights * row[known]).sum() / weights.sum() + (draws.seeds[place] - 1) @ residual
            assert means[column, place] == pytest.approx(expected, nan_ok=True)
            first = known[0]
            weight = draws.cases[place][first].sum()
            expected = (draws.cases[place][first] * row[0][first]).sum() / weight if weight else float("nan")
            assert by_seed[column, 0, place] == pytest.approx(expected, nan_ok=True)


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
