"""Preference pairs from scores. Pairs hold ids and scores, never texts."""

from __future__ import annotations

import hashlib
import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.spec import Pairing
from toolemu.evaluation import Evaluation, Metric


class PreferencePair(BaseModel):
    """Two trajectories of one case; scores are those of the trained metric (their mean for `both`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    metric: TrainedMetric
    seed: int
    case_idx: int
    chosen_trajectory_id: str
    rejected_trajectory_id: str
    chosen_score: float
    rejected_score: float


class PairSet(NamedTuple):
    """The pairs, in order of case, and how many candidates were passed over for which reason."""

    pairs: list[PreferencePair]
    counts: dict[str, int]


class Scored(NamedTuple):
    """One trajectory with one score a metric."""

    trajectory_id: str
    scores: tuple[float, ...]


def median_scores(evaluations: Iterable[Evaluation]) -> dict[str, float]:
    """Returns the median score over replicates for every trajectory that has one."""
    replicates: dict[str, list[float]] = defaultdict(list)
    for evaluation in evaluations:
        if evaluation.score is not None:
            replicates[evaluation.trajectory_id].append(evaluation.score)
    return {trajectory_id: statistics.median(scores) for trajectory_id, scores in replicates.items()}


def metrics_of(metric: TrainedMetric) -> tuple[Metric, ...]:
    """Returns the judged metrics that a trained metric is about."""
    return (Metric.safe, Metric.help) if metric is TrainedMetric.both else (Metric(metric.value),)


def build_pairs(
    evaluations: Mapping[Metric, Sequence[Evaluation]],
    *,
    judge: str,
    metric: TrainedMetric,
    seed: int,
    train_cases: Collection[int],
    pairing: Pairing,
    excluded: Collection[str] = frozenset(),
) -> PairSet:
    """Pairs the trajectories of each training case.

    Of two trajectories the one with the higher score is chosen. A pair counts if the gap is at least
    `pairing.min_gap` and the chosen score at least `pairing.min_chosen`: for `both` in each metric with the same
    orientation (`combine: each`), or in the metrics' mean (`combine: mean`).

    Args:
        evaluations: One judge's verdicts on the source models' trajectories, per metric.
        judge: Whose scores decide.
        metric: What the pairs are to train.
        seed: The seed whose training half is used.
        train_cases: The seed's training half; other cases are left alone.
        pairing: The rules.
        excluded: Trajectories that take no part, by id.
    """
    wanted = metrics_of(metric)
    scores = [median_scores(evaluations[part]) for part in wanted]
    by_case: dict[int, list[Scored]] = defaultdict(list)
    counts: Counter[str] = Counter()
    train = frozenset(train_cases)
    for evaluation in evaluations[wanted[0]]:
        identity = evaluation.trajectory_id
        if evaluation.case_idx not in train or evaluation.replicate:
            continue
        if identity in excluded:
            counts["excluded_trajectories"] += 1
        elif all(identity in known for known in scores):
            by_case[evaluation.case_idx].append(Scored(identity, tuple(known[identity] for known in scores)))
        else:
            counts["unscored_trajectories"] += 1
    pairs: list[PreferencePair] = []
    for case_idx in sorted(by_case):
        found = []
        for first, second in itertools.combinations(sorted(by_case[case_idx]), 2):
            counts["candidates"] += 1
            chosen, rejected = (first, second) if _mean(first) >= _mean(second) else (second, first)
            reason = _rejection(chosen, rejected, pairing)
            if reason:
                counts[reason] += 1
                continue
            found.append(
                PreferencePair(
                    judge=judge,
                    metric=metric,
                    seed=seed,
                    case_idx=case_idx,
                    chosen_trajectory_id=chosen.trajectory_id,
                    rejected_trajectory_id=rejected.trajectory_id,
                    chosen_score=_mean(chosen),
                    rejected_score=_mean(rejected),
                )
            )
        if pairing.per_case is not None and len(found) > pairing.per_case:
            counts["over_cap"] += len(found) - pairing.per_case
            found = sorted(found, key=_lottery)[: pairing.per_case]
        pairs += sorted(found, key=lambda pair: (pair.chosen_trajectory_id, pair.rejected_trajectory_id))
    cases = {pair.case_idx for pair in pairs}
    return PairSet(pairs, {"pairs": len(pairs), "cases": len(cases), **dict(sorted(counts.items()))})


def _mean(item: Scored) -> float:
    return sum(item.scores) / len(item.scores)


def _rejection(chosen: Scored, rejected: Scored, pairing: Pairing) -> str:
    """Returns why two trajectories are no pair, or nothing if they are one."""
    if pairing.combine == "mean":
        tests = [(_mean(chosen), _mean(rejected))]
    else:
        tests = list(zip(chosen.scores, rejected.scores, strict=True))
    for high, low in tests:
        if high == low:
            return "no_difference"
        if high < low:
            return "metrics_disagree"
        if high - low < pairing.min_gap:
            return "insufficient_gap"
        if high < pairing.min_chosen:
            return "low_chosen_score"
    return ""


def _lottery(pair: PreferencePair) -> bytes:
    """Orders pairs by chance, the same on every machine and in every run."""
    text = f"{pair.seed}|{pair.chosen_trajectory_id}|{pair.rejected_trajectory_id}"
    return hashlib.sha256(text.encode()).digest()
