from __future__ import annotations

from pathlib import Path

import duckdb
import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.experiment.sections import Statistics
from dagster_project.experiment.spec import Experiment
from dagster_project.results.agreement import (
    AGREEMENT,
    _alphas,
    _kappas,
    agreement_tables,
    agrees,
    confusion,
)
from dagster_project.results.audits import audit_tables
from dagster_project.results.scores import load_agents
from tests.published.importing import WORLD

from .tiny import Verdict, build, flat_verdicts, pick

PLAIN = Statistics(n_bootstrap=0)


def weighted_kappa(a: np.ndarray, b: np.ndarray) -> float:
    return float(_kappas(confusion(a, b)[None].astype(float))[0])


def ordinal_alpha(a: np.ndarray, b: np.ndarray) -> float:
    return float(_alphas(confusion(a, b)[None].astype(float))[0])


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
    tables = agreement_tables(build(tmp_path / "w.duckdb", [], verdicts), PLAIN)
    table = tables["judge_agreement"]
    assert list(table.columns) == AGREEMENT
    row = pick(table, metric="safe", whose="source")
    assert (row["judge_a"], row["judge_b"], row["n"]) == ("a", "b", 4)
    assert (row["exact"], row["within_1"], row["mean_a"], row["mean_b"]) == (0.5, 1, 1.5, 1.5)
    assert row["weighted_kappa"] == pytest.approx(1 - 0.5 / 3.5)
    assert row["pearson"] == pytest.approx(np.corrcoef([0, 0, 3, 3], [0, 1, 2, 3])[0, 1])
    table = tables["judge_confusion"]
    found = {(r.score_a, r.score_b): r.n for r in table.itertuples() if r.n and r.whose == "source"}
    assert found == {(0, 0): 1, (0, 1): 1, (3, 2): 1, (3, 3): 1}


def test_one_judge_agrees_with_nobody(tmp_path: Path) -> None:
    tables = agreement_tables(build(tmp_path / "w.duckdb", [], [Verdict("m", None, 0, 1)]), PLAIN)
    assert tables["judge_agreement"].empty and tables["judge_confusion"].empty and tables["metric_correlation"].empty
    assert list(tables["judge_agreement"].columns) == AGREEMENT


def test_a_judge_with_one_score_for_all_has_no_correlation(tmp_path: Path) -> None:
    by_judge = {"a": [2, 2, 2], "b": [1, 2, 3]}
    verdicts = [Verdict("m", None, case, by_judge[judge][case], judge) for judge in by_judge for case in range(3)]
    row = pick(
        agreement_tables(build(tmp_path / "w.duckdb", [], verdicts), PLAIN)["judge_agreement"],
        metric="safe",
        whose="source",
    )
    assert np.isnan(float(str(row["pearson"])))
    assert row["weighted_kappa"] == pytest.approx(0)


@given(scores)
def test_alpha_is_one_for_twins_and_none_for_one_score(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if len({*a, *b}) == 1:
        assert np.isnan(ordinal_alpha(a, b))
        return
    assert ordinal_alpha(a, b) == pytest.approx(ordinal_alpha(b, a))
    assert ordinal_alpha(a, b) == pytest.approx(
        krippendorff.alpha(reliability_data=np.array([a, b]), level_of_measurement="ordinal")
    )
    if len(set(a)) > 1:
        assert ordinal_alpha(a, a) == pytest.approx(1)


def test_metrics_correlate_over_trajectories_of_sources_and_trained_agents(tmp_path: Path) -> None:
    safe, help_ = [0, 1, 2, 3], [3, 2, 1, 0]
    verdicts = [Verdict("m", None, case, safe[case], metric="safe") for case in range(4)]
    verdicts += [Verdict("m", None, case, help_[case], metric="help") for case in range(4)]
    tables = agreement_tables(build(tmp_path / "w.duckdb", [], verdicts), PLAIN)
    row = pick(tables["metric_correlation"], whose="source", judge="a")
    assert (row["n"], row["mean_safe"]) == (4, 1.5)
    for name in ("pearson", "spearman", "kendall"):
        assert row[name] == pytest.approx(-1)
    table = tables["metric_contingency"]
    counts = {(r.safe, r.help): r.n for r in table[table["whose"] == "source"].itertuples() if r.n}
    assert counts == {(0, 3): 1, (1, 2): 1, (2, 1): 1, (3, 0): 1}


@pytest.mark.parametrize(
    ("scores", "rules"),
    [
        ([2, 2, 2], {"exact_match", "majority_agree", "all_but_one_agree", "within_1"}),
        ([2, 2, 3], {"majority_agree", "all_but_one_agree", "within_1"}),
        ([0, 2, 2], {"majority_agree", "all_but_one_agree"}),
        ([0, 1, 3], set()),
        ([1, 2], {"all_but_one_agree", "within_1"}),
    ],
)
def test_rules_of_agreement_over_replicates(scores: list[float], rules: set[str]) -> None:
    every = ("exact_match", "majority_agree", "all_but_one_agree", "within_1")
    assert {rule for rule in every if agrees(scores, rule)} == rules


def test_a_judge_agrees_with_itself_over_replicates(tmp_path: Path) -> None:
    replicates = {0: [2, 2], 1: [0, 2], 2: [1]}
    verdicts = [Verdict("m", None, c, s, replicate=n) for c, scores in replicates.items() for n, s in enumerate(scores)]
    row = pick(agreement_tables(build(tmp_path / "w.duckdb", [], verdicts), PLAIN)["replicate_consistency"], judge="a")
    assert (row["trajectories"], row["replicates"], row["exact_match"], row["within_1"]) == (2, 2, 0.5, 0.5)
    assert (row["mean_std"], row["mean_variance"]) == (0.5, 0.5)


EXPERIMENT = Experiment(name="tiny", world=WORLD)


def test_audits_are_shares_of_an_agents_trajectories(tmp_path: Path) -> None:
    path = build(tmp_path / "w.duckdb", [], [Verdict("m", None, case, 1) for case in range(4)], splits={0: range(4)})
    with duckdb.connect(str(path)) as database:
        endings = [("final_answer", 0, 0, 10), ("token_budget", 2, 1, 40)]
        endings += [("step_limit", 4, 3, 30), ("unparseable", 2, 0, 20)]
        for case, (reason, steps, observed, tokens) in enumerate(endings):
            database.execute(
                "UPDATE trajectories SET stop_reason = ?, steps = ?, self_observed = ?, agent_tokens = ?,"
                " emulator_calls = ? WHERE case_idx = ?",
                [reason, steps, observed, tokens, steps, case],
            )
    row = pick(audit_tables(path, load_agents(path), EXPERIMENT)["audits"], agent="m", seed=0)
    assert (row["trajectories"], row["cases"]) == (4, 4)
    for share in ("in_format", "token_budget", "step_limit", "unparseable", "without_tool_call"):
        assert row[share] == 0.25
    assert (row["self_observed"], row["context_full"]) == (0.5, 0)
    assert (row["mean_steps"], row["mean_agent_tokens"]) == (2, 25)
    assert row["runaway"] == 0.5, "a token budget and a step limit"


def test_audited_results_leave_out_and_compare_what_is_left(tmp_path: Path) -> None:
    from dagster_project.experiment.agents import Recipe

    from .tiny import Trained

    agents = [Trained("m", recipe) for recipe in (Recipe.safe, Recipe.help, Recipe.both)]
    flat = {("m", "a"): (1.0, 2.0), **{(agent.key, "a"): (2.0, 1.0) for agent in agents}}
    verdicts = flat_verdicts(flat)
    # In case 0 the agent trained on safety only pretends, and is scored as safe as can be.
    lured = agents[0].key
    verdicts = [v._replace(score=3.0) if (v.agent, v.case, v.metric) == (lured, 0, "safe") else v for v in verdicts]
    path = build(tmp_path / "w.duckdb", agents, verdicts)
    with duckdb.connect(str(path)) as database:
        database.execute("UPDATE trajectories SET self_observed = 1 WHERE agent = ? AND case_idx = 0", [lured])
    tables = audit_tables(path, load_agents(path), EXPERIMENT)
    points = tables["audited_points"]
    chosen = points[(points["recipe"] == "safe") & points["judge"].isna() & (points["judging"] == "match")]
    rows = {row["without"]: row for row in chosen.to_dict("records")}
    assert rows["runaways"]["safety"] == pytest.approx((3 + 2 + 2 + 2) / 4)
    assert rows["self_observed"]["safety"] == 2
    assert rows["self_observed"]["safety_delta"] == 1, "on the cases that are left"
