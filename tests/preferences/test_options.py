"""Every rule of pairing by itself, on candidates written by hand or drawn at random."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.experiment.agents import PAPER_METRICS, TrainedMetric
from dagster_project.experiment.sections import Pairing
from dagster_project.preferences.pairs import Candidates, Selected, gather_candidates, median_scores, select_pairs
from toolemu.errors import FrontierError
from toolemu.evaluation import Evaluation, Metric

MODELS = ("a", "b", "c-int4", "c-fp16")
Row = tuple[int, str, int, int]
"""Case, model, safety, helpfulness."""
row = st.tuples(st.integers(0, 2), st.sampled_from(MODELS), st.integers(0, 3), st.integers(0, 3))
rows = st.lists(row, max_size=14)
seeds = st.integers(0, 3)
metrics = st.sampled_from(PAPER_METRICS)


def candidates_of(rows: list[Row], metric: TrainedMetric = TrainedMetric.both) -> Candidates:
    columns = {TrainedMetric.safe: [2], TrainedMetric.help: [3]}.get(metric, [2, 3])
    return Candidates(
        [f"t{place}" for place in range(len(rows))],
        [model for _, model, *_ in rows],
        np.array([case for case, *_ in rows], dtype=np.int64),
        np.array([[row[column] for column in columns] for row in rows], dtype=float).reshape(len(rows), len(columns)),
    )


def select(rows: list[Row], metric: TrainedMetric = TrainedMetric.both, seed: int = 0, **rules: object) -> Selected:
    return select_pairs(candidates_of(rows, metric), metric, Pairing.model_validate(rules), seed)


def places(found: Selected) -> list[tuple[int, int]]:
    return list(zip(found.chosen.tolist(), found.rejected.tolist(), strict=True))


def plain_base(model: str) -> str:
    return "c" if model.startswith("c-") else model


@given(rows, st.sampled_from(["safe", "help"]), st.sampled_from(["each", "mean"]), st.integers(1, 3))
def test_with_a_lead_that_metric_decides_and_its_scores_are_carried(
    rows: list[Row], lead: str, combine: str, gap: int
) -> None:
    """Against a rule written out: the lead qualifies, and so does the other metric, or the mean."""
    column = {"safe": 2, "help": 3}[lead]
    expected = []
    for x, y in itertools.permutations(range(len(rows)), 2):
        if rows[x][0] != rows[y][0]:
            continue

        def second(row: Row) -> float:
            return row[5 - column] if combine == "each" else (row[2] + row[3]) / 2

        tests = [(rows[x][column], rows[y][column]), (second(rows[x]), second(rows[y]))]
        if all(high - low >= gap and high >= 2 for high, low in tests):
            expected.append((x, y))
    found = select(rows, lead=lead, combine=combine, min_gap=gap)
    assert sorted(places(found)) == sorted(expected)
    for (x, y), high, low in zip(places(found), found.chosen_scores, found.rejected_scores, strict=True):
        assert (high, low) == (rows[x][column], rows[y][column])


def test_a_lead_changes_nothing_for_pairs_on_one_metric() -> None:
    rows: list[Row] = [(0, "a", 3, 0), (0, "b", 0, 3), (0, "b", 1, 1)]
    for metric in (TrainedMetric.safe, TrainedMetric.help):
        assert places(select(rows, metric, lead="help")) == places(select(rows, metric))


def test_with_a_mean_the_order_of_leading_decides_who_is_chosen() -> None:
    rows: list[Row] = [(0, "a", 3, 1), (0, "b", 1, 3)]
    rules = {"min_gap": 1, "combine": "mean"}
    assert select(rows, lead="safe", **rules).counts["no_difference"] == 1, "the means are equal"
    tilted: list[Row] = [(0, "a", 3, 2), (0, "b", 1, 3)]
    led = select(tilted, lead="safe", min_gap=0.5, combine="mean")
    assert places(led) == [(0, 1)] and led.chosen_scores.tolist() == [3]
    assert select(tilted, lead="help", min_gap=0.5, combine="mean").counts["metrics_disagree"] == 1


@given(rows, metrics, seeds)
def test_twins_are_pairs_of_one_model_in_any_precision(rows: list[Row], metric: TrainedMetric, seed: int) -> None:
    every, without = select(rows, metric, seed, min_gap=1), select(rows, metric, seed, min_gap=1, exclude_twins=True)
    assert places(without) == [(x, y) for x, y in places(every) if plain_base(rows[x][1]) != plain_base(rows[y][1])]
    same = sum(
        plain_base(one[1]) == plain_base(other[1])
        for one, other in itertools.combinations(rows, 2)
        if one[0] == other[0]
    )
    assert without.counts.get("same_model", 0) == same


@given(rows, metrics, seeds)
def test_balanced_pairs_go_both_ways_equally_often_and_as_many_as_can(
    rows: list[Row], metric: TrainedMetric, seed: int
) -> None:
    every = select(rows, metric, seed, min_gap=1, min_chosen=0)
    found = select(rows, metric, seed, min_gap=1, min_chosen=0, balance=True)

    def directions(selected: Selected) -> Counter[tuple[str, str]]:
        return Counter((rows[x][1], rows[y][1]) for x, y in places(selected))

    there, kept = directions(every), directions(found)
    for one, other in itertools.product(MODELS, repeat=2):
        wanted = there[one, other] if one == other else min(there[one, other], there[other, one])
        assert kept[one, other] == wanted
    assert set(places(found)) <= set(places(every))
    assert found.counts.get("unbalanced", 0) == len(every.chosen) - len(found.chosen)


@given(rows, metrics, seeds, st.integers(1, 4), st.booleans())
def test_a_cap_holds_in_every_case_and_takes_no_more_than_it_must(
    rows: list[Row], metric: TrainedMetric, seed: int, cap: int, balance: bool
) -> None:
    every = select(rows, metric, seed, min_gap=1, balance=balance)
    capped = select(rows, metric, seed, min_gap=1, balance=balance, per_case=cap)
    before = Counter(rows[x][0] for x, _ in places(every))
    assert Counter(rows[x][0] for x, _ in places(capped)) == {case: min(cap, n) for case, n in before.items()}
    assert set(places(capped)) <= set(places(every))
    assert capped.counts.get("over_cap", 0) == len(every.chosen) - len(capped.chosen)


def by_metric(found: Selected) -> dict[Metric | None, list[tuple[int, int]]]:
    named = list(zip(found.decided_by, places(found), strict=True))
    return {metric: [place for decided, place in named if decided is metric] for metric in (Metric.safe, Metric.help)}


@given(rows, seeds, st.integers(1, 4), st.booleans())
def test_either_has_the_pairs_of_each_metric_in_equal_numbers_if_asked(
    rows: list[Row], seed: int, cap: int, balance: bool
) -> None:
    rules: dict[str, object] = {"min_gap": 1, "per_case": cap, "balance": balance}
    alone = {
        Metric(metric.value): select([row[:2] + (row[column],) * 2 for row in rows], metric, seed, **rules)
        for metric, column in ((TrainedMetric.safe, 2), (TrainedMetric.help, 3))
    }
    every = select(rows, TrainedMetric.either, seed, either="all", **rules)
    assert by_metric(every) == {metric: places(found) for metric, found in alone.items()}
    scores = np.concatenate([found.chosen_scores - found.rejected_scores for found in alone.values()])
    assert (every.chosen_scores - every.rejected_scores).tolist() == scores.tolist()
    found = select(rows, TrainedMetric.either, seed, **rules)
    fewest = min(len(found.chosen) for found in alone.values())
    assert [len(kept) for kept in by_metric(found).values()] == [fewest, fewest]
    assert all(set(kept) <= set(places(alone[metric])) for metric, kept in by_metric(found).items() if metric)
    assert found.counts.get("unequal", 0) == len(every.chosen) - 2 * fewest
    turned = {(y, x) for x, y in by_metric(found)[Metric.help]}
    assert found.counts.get("opposed_pairs", 0) == len(set(by_metric(found)[Metric.safe]) & turned)


def test_another_seed_draws_another_lot() -> None:
    rows: list[Row] = [(0, "a", 3 * (n % 2), 0) for n in range(12)]
    drawn = {tuple(places(select(rows, TrainedMetric.safe, seed, per_case=5))) for seed in range(5)}
    assert len(drawn) == 5


def replicated(scores: dict[str, list[float | None]], metric: Metric = Metric.safe) -> list[Evaluation]:
    return [
        Evaluation(
            trajectory_id=name, agent="m", seed=None, case_idx=0, sample=0, judge="j", metric=metric,
            replicate=number, score=score, parsed_by="rules",
        )
        for name, given_scores in scores.items() for number, score in enumerate(given_scores)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("none", {"same", "all_but_one", "majority", "half", "apart"}),
        ("majority_agree", {"same", "all_but_one", "majority"}),
        ("all_but_one_agree", {"same", "all_but_one"}),
        ("exact_match", {"same"}),
    ],
)
def test_replicates_that_disagree_are_left_out_and_counted(rule: str, kept: set[str]) -> None:
    verdicts = replicated(
        {
            "same": [2, 2, 2, 2, 2],
            "all_but_one": [2, 2, 2, 2, 0],
            "majority": [3, 3, 3, 1, 0],
            "half": [3, 3, 0, 0],
            "apart": [0, 1, 2, 3, None],
        }
    )
    medians, disagreeing = median_scores(verdicts, rule)
    assert set(medians) == kept and disagreeing == {"same", "all_but_one", "majority", "half", "apart"} - kept
    assert medians["same"] == 2 and medians.get("majority", 3) == 3
    pairing = Pairing(consistency=rule)  # type: ignore[arg-type]
    candidates, counts = gather_candidates({Metric.safe: verdicts}, TrainedMetric.safe, {0}, pairing)
    assert set(candidates.ids) == kept and counts.get("inconsistent_trajectories", 0) == 5 - len(kept)


def test_for_both_a_trajectory_is_left_out_if_either_metric_disagrees() -> None:
    steady: dict[str, list[float | None]] = {"x": [2, 2], "y": [0, 0]}
    evaluations = {
        Metric.safe: replicated(steady),
        Metric.help: replicated({**steady, "y": [0, 3]}, Metric.help),
    }
    found, counts = gather_candidates(evaluations, TrainedMetric.both, {0}, Pairing(consistency="exact_match"))
    assert found.ids == ["x"] and counts == {"inconsistent_trajectories": 1}


def test_consistency_without_replicates_says_what_to_do() -> None:
    with pytest.raises(FrontierError, match=r"trajectory x has one score only.*set it to none"):
        median_scores(replicated({"x": [1]}), "exact_match")
