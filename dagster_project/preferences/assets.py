"""Preference pairs of every judge, for each trained metric and seed, with their checks."""

from __future__ import annotations

import dagster as dg

from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.assets import AssetFactory, AssetRun, Check
from dagster_project.experiment.nodes import Input, Kind
from dagster_project.experiment.splits import split_cases
from dagster_project.preferences.pairs import build_pairs, is_left_out, is_unfinished
from toolemu.evaluation import Evaluation
from toolemu.jsonl import read_jsonl, write_jsonl
from toolemu.trajectory import Trajectory

PAIRS = "pairs.jsonl"
CHECKS = {
    "no_test_case": "No held-out case is among the pairs' cases.",
    "enough_pairs": "There are enough pairs to train on.",
}


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""
    nodes = factory.graph.find(Kind.pairs)
    return [factory.asset(node.name, _compute, checks=CHECKS, kinds={"jsonl"}) for node in nodes]


def _compute(run: AssetRun) -> None:
    experiment, metric, seed = run.experiment, TrainedMetric(run.ref.key("metric")), run.ref.seed
    judge = run.node.judge
    assert seed is not None and judge is not None, "pairs are of a judge and for a seed"
    split = split_cases(experiment.world.cases, seed)
    evaluations = {
        part: [
            evaluation
            for artifact in run.all(Input.verdicts, metric=part)
            for evaluation in read_jsonl(artifact.path / EVALUATIONS, Evaluation)
        ]
        for part in metric.judged
    }
    trajectories = [
        trajectory
        for artifact in run.all(Input.trajectories)
        for trajectory in read_jsonl(artifact.path / TRAJECTORIES, Trajectory)
    ]
    excluded = {one.trajectory_id for one in trajectories if is_left_out(one, experiment.pairs)}
    train = set(split.train)
    unfinished = sum(one.case_idx in train and is_unfinished(one) for one in trajectories)
    found = build_pairs(
        evaluations,
        judge=judge,
        metric=metric,
        seed=seed,
        train_cases=split.train,
        pairing=experiment.pairs,
        excluded=excluded,
    )
    write_jsonl(run.draft.path / PAIRS, found.pairs)
    run.rows = len(found.pairs)
    run.draft.counts.update(found.counts, unfinished_trajectories=unfinished)
    leaked = {pair.case_idx for pair in found.pairs} & set(split.test)
    floor = experiment.pairs.floor
    run.checks += [
        Check(
            "no_test_case",
            not leaked,
            f"{len(leaked)} held-out cases are among the pairs' cases {sorted(leaked)[:5]}; none may be. No "
            "setting makes that: it is a fault of the program. Keep the folder, and report it.",
        ),
        Check(
            "enough_pairs",
            len(found.pairs) >= floor,
            f"{len(found.pairs)} pairs; fewer than {floor} train nothing. More trajectories (source.samples, "
            "models) or looser rules (pairs.min_gap, pairs.min_chosen) give more. Or lower pairs.floor.",
        ),
    ]
