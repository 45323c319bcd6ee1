from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.results.agreement import COLUMNS, judge_agreement, weighted_kappa
from dagster_project.results.audits import audits

from .tiny import Verdict, build, pick

scores = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30)


def test_kappa_by_hand() -> None:
    # Squared gaps: 0, 0, 1, 1, mean 1/2. Expected from the margins (a: 0, 0, 3, 3; b: 0, 1, 2, 3), over all 16
    # combinations: (0 + 1 + 4 + 9) for each 0 and (9 + 4 + 1 + 0) for each 3, mean 14/4. Kappa = 1 − (1/2)/(14/4).
    assert weighted_kappa(np.array([0.0, 0, 3, 3]), np.array([0.0, 1, 2, 3])) == pytest.approx(1 - 0.5 / 3.5)


@given(scores)
def test_kappa_is_symmetric_one_at_best_and_sees_reversal(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    kappa = weighted_kappa(a, b)
    if len({*a, *b}) == 1:
        assert np.isnan(kappa)
        return
    assert kappa == pytest.approx(weighted_kappa(b, a))
    assert -1 - 1e-9 <= kappa <= 1 + 1e-9
    if len(set(a)) > 1:
        assert weighted_kappa(a, a) == pytest.approx(1)
        assert weighted_kappa(a, 3 - a) < 0.5


def test_agreement_is_over_the_trajectories_that_both_judges_scored(tmp_path: Path) -> None:
    by_judge = {"a": [0.0, 0.0, 3.0, 3.0, 2.0], "b": [0.0, 1.0, 2.0, 3.0, None]}
    verdicts = [
        Verdict("m", None, case % 4, score, judge, sample=case // 4)
        for judge, given_scores in by_judge.items()
        for case, score in enumerate(given_scores)
    ]
    table = judge_agreement(build(tmp_path / "w.duckdb", [], verdicts))
    assert list(table.columns) == COLUMNS
    row = pick(table, metric="safe")
    assert (row["judge_a"], row["judge_b"], row["n"]) == ("a", "b", 4)
    assert (row["exact"], row["within_1"], row["mean_a"], row["mean_b"]) == (0.5, 1, 1.5, 1.5)
    assert row["weighted_kappa"] == pytest.approx(1 - 0.5 / 3.5)
    assert row["pearson"] == pytest.approx(np.corrcoef([0, 0, 3, 3], [0, 1, 2, 3])[0, 1])


def test_one_judge_agrees_with_nobody(tmp_path: Path) -> None:
    table = judge_agreement(build(tmp_path / "w.duckdb", [], [Verdict("m", None, 0, 1)]))
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_a_judge_with_one_score_for_all_has_no_correlation(tmp_path: Path) -> None:
    by_judge = {"a": [2, 2, 2], "b": [1, 2, 3]}
    verdicts = [Verdict("m", None, case, by_judge[judge][case], judge) for judge in by_judge for case in range(3)]
    row = pick(judge_agreement(build(tmp_path / "w.duckdb", [], verdicts)), metric="safe")
    assert np.isnan(float(str(row["pearson"])))
    assert row["weighted_kappa"] == pytest.approx(0)


def test_audits_are_shares_of_an_agents_trajectories(tmp_path: Path) -> None:
    path = build(tmp_path / "w.duckdb", [], [Verdict("m", None, case, 1) for case in range(4)])
    with duckdb.connect(str(path)) as database:
        endings = [("final_answer", 0, 0, 10), ("token_budget", 2, 1, 40)]
        endings += [("step_limit", 4, 3, 30), ("unparseable", 2, 0, 20)]
        for case, (reason, steps, observed, tokens) in enumerate(endings):
            database.execute(
                "UPDATE trajectories SET stop_reason = ?, steps = ?, self_observed = ?, agent_tokens = ?"
                " WHERE case_idx = ?",
                [reason, steps, observed, tokens, case],
            )
    row = pick(audits(path), agent="m", seed=None)
    assert row["trajectories"] == 4
    for share in ("in_format", "token_budget", "step_limit", "unparseable", "without_tool_call"):
        assert row[share] == 0.25
    assert (row["self_observed"], row["context_full"]) == (0.5, 0)
    assert (row["mean_steps"], row["mean_agent_tokens"]) == (2, 25)
