"""Paired comparisons against scipy and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.results.comparisons import comparisons, holm, signed_rank_p
from dagster_project.results.scores import load_agents, load_scores
from tests.results.tiny import Trained, Verdict, build, pick

SAFE = Trained("m", Recipe.safe)


def compare(path: Path) -> pd.DataFrame:
    return comparisons(load_scores(path), load_agents(path), Statistics(n_bootstrap=2000))


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
    assert row["p_cases"] == pytest.approx(stats.wilcoxon(by_case).pvalue)
    assert (row["better"], row["worse"], row["same"]) == (
        (everything > 0).sum(), (everything < 0).sum(), (everything == 0).sum(),
    )  # fmt: skip
    assert (row["cases"], row["difference"]) == (8, pytest.approx(by_case.mean()))
    between = np.std([np.mean(gains[0]), np.mean(gains[1])], ddof=1) / np.sqrt(2)
    assert row["stderr"] == pytest.approx(np.hypot(by_case.std() / np.sqrt(8), between), rel=0.1), "cases and seeds"
    still = pick(table, judging="match", judge=None, metric="help")
    assert (still["p_cases"], still["same"], still["difference"]) == (1, 16, 0)
    assert row["p_holm"] == pytest.approx(min(1, 2 * float(str(row["p"])))), "one of two comparisons"
    assert (row["cells"], row["generalises_to"]) == (16, "cases and seeds")


def test_half_a_point_is_neither_better_nor_worse(tmp_path: Path) -> None:
    verdicts = [Verdict("m", None, case, 1, metric=metric) for case in range(4) for metric in ("safe", "help")]
    for seed, case in ((0, 0), (0, 1), (1, 2), (1, 3)):
        for metric in ("safe", "help"):
            for replicate, score in enumerate((1, 2)):
                verdicts.append(Verdict(SAFE.key, seed, case, score, metric=metric, replicate=replicate))
    row = pick(compare(build(tmp_path / "w.duckdb", [SAFE], verdicts)), judging="match", judge=None, metric="safe")
    assert (row["better"], row["worse"], row["same"], row["difference"]) == (0, 0, 4, 0.5)


def test_without_trained_agents_there_is_nothing_to_compare(tmp_path: Path) -> None:
    path = build(tmp_path / "w.duckdb", [], [Verdict("m", None, case, 1) for case in range(4)])
    assert compare(path).empty
