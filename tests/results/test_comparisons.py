"""Paired comparisons against scipy and by hand; the mixed model against effects that the scores were made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Statistics
from dagster_project.results.comparisons import comparisons, holm, signed_rank_p
from dagster_project.results.mixed import mixed_effects
from dagster_project.results.scores import load_agents, load_scores
from tests.results.tiny import Trained, Verdict, build, pick

SAFE = Trained("m", Recipe.safe)
PLAIN = Statistics(n_bootstrap=0)


def compare(path: Path) -> pd.DataFrame:
    return comparisons(load_scores(path), load_agents(path), PLAIN)


some = st.integers(-6, 6)


# Up to 13 differences scipy goes through their signs one at a time, which takes it long.
@given(st.lists(some, min_size=1, max_size=7) | st.lists(some, min_size=14, max_size=20))
@settings(deadline=None, max_examples=50)
def test_the_signed_rank_test_is_scipys(halves: list[int]) -> None:
    differences = np.array(halves) / 2
    expected = stats.wilcoxon(differences).pvalue if differences.any() else 1.0
    assert signed_rank_p(differences) == pytest.approx(expected, abs=1e-12)


def test_without_ties_the_signed_rank_test_is_exact() -> None:
    """Of the 2 ** 5 choices of signs, one has no negative rank, one only rank 1: p is twice 2/32."""
    assert signed_rank_p(np.array([-1.0, 2, 3, 4, 5])) == pytest.approx(4 / 32)
    assert signed_rank_p(np.array([1.0, 2, 3, 4, 5])) == pytest.approx(2 / 32)
    assert signed_rank_p(np.array([0.0, 0.0, 1, 2, 3, 4, 5])) == pytest.approx(2 / 32)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(values: list[float]) -> None:
    found = holm(values)
    for value, corrected in zip(values, found, strict=True):
        assert value <= corrected <= min(1.0, len(values) * value) + 1e-12
    ranked = [corrected for _, corrected in sorted(zip(values, found, strict=True))]
    assert ranked == sorted(ranked)


def test_a_case_counts_once_in_the_test_and_every_cell_in_the_counts(tmp_path: Path) -> None:
    """Cases 0 to 7, all of them held out for both seeds; the trained agent's gains differ by seed."""
    gains = {0: [1, 2, 0, -1, 1, 1, 2, 0], 1: [1, 0, 0, -1, 2, 1, 1, 1]}
    cases = range(8)
    verdicts = [Verdict("m", None, case, 1, metric=metric) for case in cases for metric in ("safe", "help")]
    for seed, by_case in gains.items():
        verdicts += [Verdict(SAFE.key, seed, case, 1 + by_case[case]) for case in cases]
        verdicts += [Verdict(SAFE.key, seed, case, 1, metric="help") for case in cases]
    table = compare(build(tmp_path / "w.duckdb", [SAFE], verdicts, splits={0: cases, 1: cases}))
    row = pick(table, judging="match", judge=None, metric="safe")
    by_case = np.mean([gains[0], gains[1]], axis=0)
    everything = np.array([gains[0], gains[1]])
    assert row["p"] == pytest.approx(stats.wilcoxon(by_case).pvalue)
    assert (row["better"], row["worse"], row["same"]) == (
        (everything > 0).sum(), (everything < 0).sum(), (everything == 0).sum(),
    )  # fmt: skip
    assert (row["cases"], row["difference"]) == (8, pytest.approx(by_case.mean()))
    assert row["stderr"] == pytest.approx(by_case.std(ddof=1) / np.sqrt(8)), "a case under two seeds is one cluster"
    still = pick(table, judging="match", judge=None, metric="help")
    assert (still["p"], still["same"], still["difference"]) == (1, 16, 0)
    assert row["p_holm"] == pytest.approx(min(1, 2 * float(str(row["p"])))), "one of two comparisons"


def test_half_a_point_is_neither_better_nor_worse(tmp_path: Path) -> None:
    verdicts = [Verdict("m", None, case, 1, metric=metric) for case in range(4) for metric in ("safe", "help")]
    for seed, case in ((0, 0), (0, 1), (1, 2), (1, 3)):
        for metric in ("safe", "help"):
            for replicate, score in enumerate((1, 2)):
                verdicts.append(Verdict(SAFE.key, seed, case, score, metric=metric, replicate=replicate))
    row = pick(compare(build(tmp_path / "w.duckdb", [SAFE], verdicts)), judging="match", judge=None, metric="safe")
    assert (row["better"], row["worse"], row["same"], row["difference"]) == (0, 0, 4, 0.5)


def simulate(path: Path, effects: dict[Recipe, float], sd_case: float = 0.4, sd: float = 0.2) -> Path:
    """Writes scores made of an effect for each recipe, one for each case, and chance; two models half a point apart."""
    generator = np.random.default_rng(0)
    cases, models = range(60), {"m": 0.0, "n": 0.5}
    of_case = generator.normal(0, sd_case, len(cases))
    agents = [Trained(model, recipe) for model in models for recipe in effects]
    verdicts = []
    for case in cases:
        for model, base in models.items():
            for metric in ("safe", "help"):

                def score(effect: float, base: float = base, case: int = case) -> float:
                    return float(np.clip(1.2 + base + effect + of_case[case] + generator.normal(0, sd), 0, 3))

                verdicts.append(Verdict(model, None, case, score(0.0), metric=metric))
                for recipe, effect in effects.items():
                    key = Trained(model, recipe).key
                    own = effect if metric == "safe" else -effect
                    verdicts.append(Verdict(key, 0, case, score(own), metric=metric))
    return build(path, agents, verdicts, models=models, splits={0: cases})


def test_the_mixed_model_finds_the_effects_that_were_put_in(tmp_path: Path) -> None:
    effects = {Recipe.safe: 0.4, Recipe.help: -0.3, Recipe.both: 0.0}
    table = mixed_effects(simulate(tmp_path / "w.duckdb", effects))
    assert set(table["judging"]) == {"match"} and table["converged"].all()
    for metric, sign in (("safe", 1), ("help", -1)):
        for recipe, effect in effects.items():
            row = {name: float(str(value)) for name, value in pick(
                table[["metric", "term", "estimate", "stderr", "low", "high", "p"]], metric=metric, term=recipe.value
            ).items() if name not in ("metric", "term")}  # fmt: skip
            assert row["estimate"] == pytest.approx(sign * effect, abs=4 * row["stderr"])
            assert row["stderr"] < 0.06 and row["low"] < row["estimate"] < row["high"]
            assert (row["p"] < 0.001) == (effect != 0)
        deviations = {row.term: row.estimate for row in table[table["metric"] == metric].itertuples()}
        assert deviations["sd_case"] == pytest.approx(0.4, abs=0.12)
        assert deviations["sd_residual"] == pytest.approx(0.2, abs=0.04)
        assert deviations["sd_case_model"] < 0.15, "there is none in the scores"


def fit_flat(path: Path, n_cases: int, gain: float) -> pd.DataFrame:
    """Returns the mixed model of a source model that scores 1 in every case, and its agent that scores `gain` more."""
    cases = range(n_cases)
    verdicts = [Verdict("m", None, case, 1, metric=metric) for case in cases for metric in ("safe", "help")]
    verdicts += [Verdict(SAFE.key, 0, case, 1 + gain, metric=metric) for case in cases for metric in ("safe", "help")]
    return mixed_effects(build(path, [SAFE], verdicts, splits={0: cases}))


def test_where_the_matrices_are_singular_recipes_have_rows_without_estimates(tmp_path: Path) -> None:
    table = fit_flat(tmp_path / "w.duckdb", 1, 1)
    assert table[["metric", "term"]].to_numpy().tolist() == [["safe", "safe"], ["help", "safe"]]
    assert table[["estimate", "stderr", "low", "high", "p"]].isna().all(axis=None)
    assert (table["n"].tolist(), table["converged"].any()) == ([2, 2], False)


def test_scores_without_any_spread_have_no_error_and_no_p_value(tmp_path: Path) -> None:
    table = fit_flat(tmp_path / "w.duckdb", 4, 0)
    assert table.loc[table["term"] == "safe", "estimate"].tolist() == [0, 0]
    assert table[["stderr", "low", "high", "p"]].isna().all(axis=None) and not table["converged"].any()


def test_without_trained_agents_there_is_nothing_to_compare_or_fit(tmp_path: Path) -> None:
    path = build(tmp_path / "w.duckdb", [], [Verdict("m", None, case, 1) for case in range(4)])
    assert compare(path).empty and mixed_effects(path).empty
