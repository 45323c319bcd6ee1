from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.sections import Pairing
from dagster_project.preferences.pairs import PairSet, build_pairs, is_left_out, is_unfinished
from toolemu.evaluation import Evaluation, Metric
from toolemu.trajectory import FAILURES, StopReason, Trajectory


def verdicts(metric: Metric, scores: Mapping[tuple[int, str], float | None]) -> list[Evaluation]:
    return [
        Evaluation(
            trajectory_id=name, agent="m", seed=None, case_idx=case, sample=0, judge="j", metric=metric, score=score,
            parsed_by="rules",
        )
        for (case, name), score in scores.items()
    ]  # fmt: skip


def pair_up(
    scores: Mapping[tuple[int, str], tuple[float, float]],
    metric: TrainedMetric = TrainedMetric.safe,
    excluded: frozenset[str] = frozenset(),
    **rules: object,
) -> PairSet:
    return build_pairs(
        {
            Metric.safe: verdicts(Metric.safe, {key: value[0] for key, value in scores.items()}),
            Metric.help: verdicts(Metric.help, {key: value[1] for key, value in scores.items()}),
        },
        judge="j",
        metric=metric,
        seed=0,
        train_cases={0, 1},
        pairing=Pairing.model_validate(rules),
        excluded=excluded,
    )


def test_the_better_trajectory_of_a_training_case_is_chosen() -> None:
    found = pair_up({(0, "a"): (3, 0), (0, "b"): (1, 3), (0, "c"): (2, 0), (5, "x"): (3, 3), (5, "y"): (0, 0)})
    assert [(p.chosen_trajectory_id, p.rejected_trajectory_id, p.case_idx) for p in found.pairs] == [("a", "b", 0)]
    assert found.counts == {"pairs": 1, "cases": 1, "candidates": 3, "insufficient_gap": 2}


def test_a_poor_trajectory_is_not_chosen_however_wide_the_gap() -> None:
    assert pair_up({(0, "a"): (2, 0), (0, "b"): (0, 0)}, min_chosen=3).counts["low_chosen_score"] == 1


def test_both_wants_each_metric_or_their_mean() -> None:
    scores = {(0, "a"): (3.0, 3.0), (0, "b"): (0.0, 1.0), (0, "c"): (0.0, 3.0)}
    each = pair_up(scores, TrainedMetric.both)
    assert [(p.chosen_trajectory_id, p.rejected_trajectory_id) for p in each.pairs] == [("a", "b")]
    opposed = pair_up({(0, "a"): (3, 0), (0, "b"): (0, 2)}, TrainedMetric.both)
    assert opposed.counts["metrics_disagree"] == 1
    mean = pair_up({(0, "a"): (3, 3), (0, "b"): (2, 0)}, TrainedMetric.both, combine="mean")
    assert [(p.chosen_score, p.rejected_score) for p in mean.pairs] == [(3, 1)]


def test_either_has_pairs_for_each_metric_also_where_they_are_opposed() -> None:
    scores = {(0, "a"): (3.0, 0.0), (0, "b"): (0.0, 3.0), (1, "c"): (3.0, 0.0), (1, "d"): (1.0, 0.0)}
    rules = {"min_gap": 2, "exclude_twins": False}
    every = pair_up(scores, TrainedMetric.either, either="all", **rules)
    assert [(p.chosen_trajectory_id, p.rejected_trajectory_id, p.decided_by) for p in every.pairs] == [
        ("a", "b", "safe"),
        ("b", "a", "help"),
        ("c", "d", "safe"),
    ]
    assert {p.metric for p in every.pairs} == {TrainedMetric.either}
    counted = {"pairs": 3, "cases": 2, "safe_pairs": 2, "help_pairs": 1, "opposed_pairs": 1}
    assert counted.items() <= every.counts.items() and "unequal" not in every.counts
    equal = pair_up(scores, TrainedMetric.either, **rules)
    counted = {"pairs": 2, "safe_pairs": 1, "help_pairs": 1, "unequal": 1}
    assert counted.items() <= equal.counts.items()
    assert {p.decided_by for p in pair_up(scores, TrainedMetric.safe).pairs} == {None}


def test_excluded_and_unscored_trajectories_are_counted() -> None:
    scores = {(0, "a"): (3.0, 0.0), (0, "b"): (0.0, 0.0)}
    assert pair_up(scores, excluded=frozenset({"b"})).counts == {"pairs": 0, "cases": 0, "excluded_trajectories": 1}
    found = build_pairs(
        {Metric.safe: verdicts(Metric.safe, {(0, "a"): 3, (0, "b"): None})},
        judge="j", metric=TrainedMetric.safe, seed=0, train_cases={0}, pairing=Pairing(),
    )  # fmt: skip
    assert found.counts["unscored_trajectories"] == 1


def test_replicates_count_by_their_median() -> None:
    evaluations = [
        verdict.model_copy(update={"replicate": replicate})
        for replicate, score in enumerate([0.0, 3.0, 3.0])
        for verdict in verdicts(Metric.safe, {(0, "a"): score, (0, "b"): 1})
    ]
    found = build_pairs(
        {Metric.safe: evaluations}, judge="j", metric=TrainedMetric.safe, seed=0, train_cases={0}, pairing=Pairing()
    )
    assert [(p.chosen_trajectory_id, p.chosen_score, p.rejected_score) for p in found.pairs] == [("a", 3, 1)]


@pytest.mark.parametrize("cap", [1, 3, 100])
def test_a_cap_takes_a_fixed_lot(cap: int) -> None:
    scores = {(0, f"t{n}"): (3.0 if n % 2 else 0.0, 0.0) for n in range(8)}
    first, second = pair_up(scores, per_case=cap), pair_up(dict(reversed(list(scores.items()))), per_case=cap)
    assert len(first.pairs) == min(cap, 16)
    assert first == second


cell = st.tuples(st.integers(0, 3), st.integers(0, 3))
table = st.dictionaries(st.tuples(st.integers(0, 3), st.text("abcdef", min_size=1, max_size=3)), cell, max_size=12)


@given(table, st.sampled_from(TrainedMetric), st.sampled_from(["each", "mean"]))
def test_every_candidate_is_a_pair_or_has_a_reason(
    scores: dict[tuple[int, str], tuple[int, int]], metric: TrainedMetric, combine: str
) -> None:
    unique = {name: (case, value) for (case, name), value in scores.items()}
    found = pair_up({(case, name): value for name, (case, value) in unique.items()}, metric, combine=combine)  # type: ignore[misc]
    reasons = ("no_difference", "metrics_disagree", "insufficient_gap", "low_chosen_score", "unequal")
    assert len(found.pairs) + sum(found.counts.get(reason, 0) for reason in reasons) == found.counts.get(
        "candidates", 0
    )
    for pair in found.pairs:
        assert pair.case_idx in {0, 1}
        assert pair.chosen_score - pair.rejected_score >= 2
        assert unique[pair.chosen_trajectory_id][0] == unique[pair.rejected_trajectory_id][0] == pair.case_idx


def ended(reason: StopReason, text: str = "") -> Trajectory:
    """Returns a trajectory without tool calls whose last turn is `text`."""
    return Trajectory(
        trajectory_id=reason.value, experiment="e", agent="m", seed=None, case_idx=0, sample=0, user_input="Go.",
        steps=(), output="", final_log=text, stop_reason=reason,
    )  # fmt: skip


@given(reason=st.sampled_from(StopReason), blank=st.text(" \t\n\u00a0", max_size=4), score=st.sampled_from([0, 3]))
def test_a_trajectory_without_a_word_is_in_no_pair(reason: StopReason, blank: str, score: float) -> None:
    silent = ended(reason, blank)
    assert silent.failed and is_left_out(silent, Pairing())
    assert not is_left_out(silent, Pairing(exclude_failed=False, exclude_runaways=False))
    scores = {(0, silent.trajectory_id): (float(score), 3.0), (0, "other"): (3.0 - score, 3.0)}
    assert not pair_up(scores, excluded=frozenset({silent.trajectory_id})).pairs


@given(reason=st.sampled_from(StopReason), text=st.text("abc", min_size=1))
def test_one_with_words_is_left_out_only_if_a_failure_or_a_full_context_ended_it(reason: StopReason, text: str) -> None:
    spoken = ended(reason, text)
    assert spoken.failed == (reason in FAILURES)
    assert is_left_out(spoken, Pairing()) == (reason in FAILURES or reason is StopReason.context_full)


def test_thinking_alone_is_judged_but_there_is_nothing_in_it_to_train_on() -> None:
    thought = ended(StopReason.token_budget, "<think>Which lamp?")
    assert not thought.failed and is_unfinished(thought) and is_left_out(thought, Pairing())
