"""Preference pairs from scores. Pairs hold ids and scores, never texts."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.sections import Pairing
from toolemu.errors import FrontierError
from toolemu.evaluation import Evaluation, Metric
from toolemu.thinking import strip_thinking
from toolemu.trajectory import Trajectory

_PRECISION = re.compile(r"-(?:int|fp|bf)\d+$")
Indices = npt.NDArray[np.int64]


class PreferencePair(BaseModel):
    """Two trajectories of one case.

    Attributes:
        metric: What the pair trains.
        chosen_score: On that metric; for `both` see `Pairing.lead`, for `either` on `decided_by`.
        rejected_score: The same.
        decided_by: For `either`, the metric on which the chosen trajectory is better.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    metric: TrainedMetric
    seed: int
    case_idx: int
    chosen_trajectory_id: str
    rejected_trajectory_id: str
    chosen_score: float
    rejected_score: float
    decided_by: Metric | None = None


class PairSet(NamedTuple):
    """The pairs, in order of case, and how many candidates were passed over for which reason."""

    pairs: list[PreferencePair]
    counts: dict[str, int]


@dataclass(frozen=True)
class Candidates:
    """Trajectories that may be paired, in the order in which their pairs are to come.

    Attributes:
        ids: Their ids.
        models: Who acted.
        cases: Their cases' indices, shape (n,).
        scores: One judge's scores, shape (n, metrics), in the order of `TrainedMetric.judged`.
    """

    ids: Sequence[str]
    models: Sequence[str]
    cases: Indices
    scores: npt.NDArray[np.float64]


class Selected(NamedTuple):
    """Positions of the chosen and rejected candidates of every pair, its two scores, and the counts.

    `decided_by` is None but for `either`, where it has the metric of every pair.
    """

    chosen: Indices
    rejected: Indices
    chosen_scores: npt.NDArray[np.float64]
    rejected_scores: npt.NDArray[np.float64]
    counts: dict[str, int]
    decided_by: Sequence[Metric | None]


def is_unfinished(trajectory: Trajectory) -> bool:
    """Return whether a trajectory says nothing about the agent, or holds nothing that could be trained on.

    A trajectory of thinking alone is judged, but training leaves thinking out, so its conversation would be empty.
    """
    return trajectory.failed or not (trajectory.steps or strip_thinking(trajectory.final_log).strip())


def is_left_out(trajectory: Trajectory, pairing: Pairing) -> bool:
    """Return whether the rules leave a trajectory out of all pairs, whatever its scores."""
    unfinished = is_unfinished(trajectory)
    return pairing.leaves_out(trajectory.self_observed, trajectory.stop_reason, unfinished=unfinished)


def median_scores(evaluations: Iterable[Evaluation], consistency: str = "none") -> tuple[dict[str, float], set[str]]:
    """Returns the median score over replicates for every trajectory that has one, and those that disagree too much.

    Args:
        evaluations: One judge's verdicts on one metric.
        consistency: How far replicates must agree, see `Pairing.consistency`.

    Raises:
        FrontierError: Agreement is asked for, and a trajectory has fewer than two scores.
    """
    replicates: dict[str, list[float]] = defaultdict(list)
    for evaluation in evaluations:
        if evaluation.score is not None:
            replicates[evaluation.trajectory_id].append(evaluation.score)
    if consistency != "none":
        alone = next((identity for identity, scores in replicates.items() if len(scores) < 2), None)
        if alone:
            raise FrontierError(
                f"pairs.consistency: {consistency} asks for replicates, but trajectory {alone} has one score only. "
                "Have judges give several, or set it to none."
            )
    kept = {identity: scores for identity, scores in replicates.items() if consistent(scores, consistency)}
    medians = {identity: statistics.median(scores) for identity, scores in kept.items()}
    return medians, replicates.keys() - kept.keys()


def consistent(scores: Sequence[float], rule: str) -> bool:
    """Returns whether the replicates of a verdict agree by a rule of `Pairing.consistency`."""
    scores = list(scores)
    most = max(scores.count(score) for score in scores)
    wanted = {
        "none": 0,
        "majority_agree": len(scores) // 2 + 1,
        "all_but_one_agree": len(scores) - 1,
        "exact_match": len(scores),
    }
    return most >= wanted[rule]


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
    """Pairs the trajectories of each training case; see `select_pairs` for which.

    Args:
        evaluations: One judge's verdicts on the source models' trajectories, per metric.
        judge: Whose scores decide.
        metric: What the pairs are to train.
        seed: The seed whose training half is used.
        train_cases: The seed's training half; other cases are left alone.
        pairing: The rules.
        excluded: Trajectories that take no part, by id.
    """
    candidates, passed_over = gather_candidates(evaluations, metric, train_cases, pairing, excluded)
    found = select_pairs(candidates, metric, pairing, seed)
    pairs = [
        PreferencePair(
            judge=judge,
            metric=metric,
            seed=seed,
            case_idx=int(candidates.cases[chosen]),
            chosen_trajectory_id=candidates.ids[chosen],
            rejected_trajectory_id=candidates.ids[rejected],
            chosen_score=high,
            rejected_score=low,
            decided_by=decided_by,
        )
        for chosen, rejected, high, low, decided_by in zip(
            found.chosen.tolist(),
            found.rejected.tolist(),
            found.chosen_scores.tolist(),
            found.rejected_scores.tolist(),
            found.decided_by,
            strict=True,
        )
    ]
    pairs.sort(key=lambda p: (p.case_idx, p.chosen_trajectory_id, p.rejected_trajectory_id, p.decided_by or ""))
    return PairSet(pairs, {**found.counts, **passed_over})


def gather_candidates(
    evaluations: Mapping[Metric, Sequence[Evaluation]],
    metric: TrainedMetric,
    cases: Collection[int],
    pairing: Pairing,
    excluded: Collection[str] = frozenset(),
) -> tuple[Candidates, dict[str, int]]:
    """Returns the trajectories of `cases` that have every score, by case and id, and how many were passed over."""
    wanted = metric.judged
    known: list[dict[str, float]] = []
    inconsistent: set[str] = set()
    for part in wanted:
        medians, disagreeing = median_scores(evaluations[part], pairing.consistency)
        known.append(medians)
        inconsistent |= disagreeing
    kept = frozenset(cases)
    counts: Counter[str] = Counter()
    rows = []
    for evaluation in evaluations[wanted[0]]:
        identity = evaluation.trajectory_id
        if evaluation.case_idx not in kept or evaluation.replicate:
            continue
        if identity in excluded:
            counts["excluded_trajectories"] += 1
        elif identity in inconsistent:
            counts["inconsistent_trajectories"] += 1
        elif all(identity in medians for medians in known):
            scores = tuple(medians[identity] for medians in known)
            rows.append((evaluation.case_idx, identity, evaluation.agent, scores))
        else:
            counts["unscored_trajectories"] += 1
    rows.sort()
    candidates = Candidates(
        [row[1] for row in rows],
        [row[2] for row in rows],
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.float64).reshape(len(rows), len(wanted)),
    )
    return candidates, dict(sorted(counts.items()))


def select_pairs(candidates: Candidates, metric: TrainedMetric, pairing: Pairing, seed: int) -> Selected:
    """Returns which two candidates of a case make a pair.

    Of two the one with the higher score is chosen. A pair counts if the gap is at least `pairing.min_gap` and the
    chosen score at least `pairing.min_chosen`. For `both`, that holds for each metric, with the same orientation
    (`combine: each`), or for the metrics' mean (`combine: mean`); with a `lead`, for that metric first. For `either`,
    the pairs of each metric by itself come one after the other: two candidates may make a pair for both, and then,
    where the metrics disagree, the other way round.

    Args:
        candidates: Any number of cases, in any order; pairs come in the order of cases, then of the two positions.
        metric: What the pairs are to train.
        pairing: The rules.
        seed: Decides who is left out by `per_case` and `balance`; the same everywhere and in every run.
    """
    if metric is TrainedMetric.either:
        return _select_either(candidates, metric.judged, pairing, seed)
    first, second = _within_cases(candidates.cases)
    scores = candidates.scores
    mean = scores.mean(axis=1)
    names = [part.value for part in metric.judged]
    lead = scores[:, names.index(pairing.lead)] if pairing.lead in names and len(names) > 1 else None
    orienting = mean if lead is None else lead
    if len(names) == 1 or pairing.combine == "mean":
        tests = [mean]
    elif lead is None:
        tests = list(scores.T)
    else:
        tests = [column for name, column in zip(names, scores.T, strict=True) if name != pairing.lead]
    if lead is not None:
        tests = [lead, *tests]
    swap = orienting[first] < orienting[second]
    chosen, rejected = np.where(swap, second, first), np.where(swap, first, second)
    counts: Counter[str] = Counter(candidates=len(first))
    alive = np.ones(len(first), dtype=bool)

    def drop(reason: str, bad: npt.NDArray[np.bool_]) -> None:
        nonlocal alive
        counts[reason] += int((alive & bad).sum())
        alive &= ~bad

    if pairing.exclude_twins:
        plain = np.array([_PRECISION.sub("", model) for model in candidates.models])
        drop("same_model", plain[chosen] == plain[rejected])
    for values in tests:
        gap = values[chosen] - values[rejected]
        drop("metrics_disagree", gap < 0)
        drop("no_difference", gap == 0)
        drop("insufficient_gap", gap < pairing.min_gap)
        drop("low_chosen_score", values[chosen] < pairing.min_chosen)
    chosen, rejected = chosen[alive], rejected[alive]
    kept = np.arange(len(chosen))
    if pairing.balance:
        kept = _balanced(candidates, chosen, rejected, seed)
        counts["unbalanced"] += len(chosen) - len(kept)
    if pairing.per_case is not None:
        capped = _capped(candidates, chosen, rejected, kept, pairing.per_case, seed)
        counts["over_cap"] += len(kept) - len(capped)
        kept = capped
    chosen, rejected = chosen[kept], rejected[kept]
    summary = _summary(candidates, chosen, counts)
    return Selected(chosen, rejected, orienting[chosen], orienting[rejected], summary, [None] * len(chosen))


def _select_either(candidates: Candidates, metrics: Sequence[Metric], pairing: Pairing, seed: int) -> Selected:
    """Returns the pairs of each metric by itself, one metric after the other."""
    parts = [
        select_pairs(replace(candidates, scores=scores[:, None]), TrainedMetric(metric.value), pairing, seed)
        for metric, scores in zip(metrics, candidates.scores.T, strict=True)
    ]
    counts = sum((Counter(part.counts) for part in parts), Counter[str]())
    if pairing.either == "equal":
        fewest = min(len(part.chosen) for part in parts)
        parts = [_drawn(candidates, part, fewest, seed) for part in parts]
        counts["unequal"] = counts["pairs"] - len(parts) * fewest
    first, second = (set(zip(part.chosen.tolist(), part.rejected.tolist(), strict=True)) for part in parts)
    counts["opposed_pairs"] = len(first & {(worse, better) for better, worse in second})
    counts.update({f"{metric.value}_pairs": len(part.chosen) for metric, part in zip(metrics, parts, strict=True)})
    chosen = np.concatenate([part.chosen for part in parts])
    return Selected(
        chosen,
        np.concatenate([part.rejected for part in parts]),
        np.concatenate([part.chosen_scores for part in parts]),
        np.concatenate([part.rejected_scores for part in parts]),
        _summary(candidates, chosen, counts),
        [metric for metric, part in zip(metrics, parts, strict=True) for _ in part.chosen],
    )


def _drawn(candidates: Candidates, found: Selected, size: int, seed: int) -> Selected:
    """Returns so many of the pairs, drawn by chance, in the same order."""
    lottery = _lottery(candidates, found.chosen, found.rejected, seed)
    places = sorted(sorted(range(len(found.chosen)), key=lottery)[:size])
    return found._replace(
        chosen=found.chosen[places],
        rejected=found.rejected[places],
        chosen_scores=found.chosen_scores[places],
        rejected_scores=found.rejected_scores[places],
    )


def _summary(candidates: Candidates, chosen: Indices, counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the counts of a selection: its pairs and their cases, then all others that are not 0."""
    totals = {"pairs": len(chosen), "cases": len(np.unique(candidates.cases[chosen]))}
    return totals | {name: counts[name] for name in sorted(counts) if counts[name] and name not in totals}


def _within_cases(cases: Indices) -> tuple[Indices, Indices]:
    """Returns the positions of every two candidates of one case, cases in order of appearance."""
    places: dict[int, list[int]] = {}
    for position, case in enumerate(cases.tolist()):
        places.setdefault(case, []).append(position)
    first, second = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for positions in places.values():
        here = np.array(positions)
        left, right = np.triu_indices(len(here), 1)
        first.append(here[left])
        second.append(here[right])
    return np.concatenate(first), np.concatenate(second)


def _lottery(candidates: Candidates, chosen: Indices, rejected: Indices, seed: int) -> Callable[[int], bytes]:
    """Returns a key that orders pairs by chance, the same on every machine and in every run."""

    def key(place: int) -> bytes:
        text = f"{seed}|{candidates.ids[int(chosen[place])]}|{candidates.ids[int(rejected[place])]}"
        return hashlib.sha256(text.encode()).digest()

    return key


def _balanced(candidates: Candidates, chosen: Indices, rejected: Indices, seed: int) -> Indices:
    """Returns which pairs to keep so that of every two models either is chosen over the other equally often."""
    directions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, (high, low) in enumerate(zip(chosen.tolist(), rejected.tolist(), strict=True)):
        directions[candidates.models[high], candidates.models[low]].append(place)
    kept: list[int] = []
    for (high_model, low_model), places in directions.items():
        size = min(len(places), len(directions.get((low_model, high_model), [])))
        drawn = sorted(places, key=_lottery(candidates, chosen, rejected, seed))
        kept += places if high_model == low_model else drawn[:size]
    return np.array(sorted(kept), dtype=np.int64)


def _capped(
    candidates: Candidates, chosen: Indices, rejected: Indices, kept: Indices, per_case: int, seed: int
) -> Indices:
    by_case: dict[int, list[int]] = defaultdict(list)
    for place in kept.tolist():
        by_case[int(candidates.cases[chosen[place]])].append(place)
    found: list[int] = []
    for places in by_case.values():
        if len(places) > per_case:
            places.sort(key=_lottery(candidates, chosen, rejected, seed))
        found += places[:per_case]
    return np.array(sorted(found), dtype=np.int64)
