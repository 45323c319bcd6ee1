"""Asset factories for trajectories and evaluations, shared by source models and trained agents; and their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from dagster_project.collect.accounting import RoleUse, evaluation_use, trajectory_use
from dagster_project.collect.endpoints import REPLIES, Acting, Workspace, servers_folder
from dagster_project.collect.rollouts import Identity, endings, make_evaluations, make_trajectories
from dagster_project.experiment.assets import AssetFactory, AssetRun, Check
from dagster_project.experiment.spec import Sampling
from toolemu.evaluation import Metric
from toolemu.trajectory import StopReason


class Rollout(NamedTuple):
    """What a partition of trajectories needs: who acts, with which weights, on which cases, how often."""

    identity: Identity
    acting: Acting
    cases: Iterable[int]
    sampling: Sampling


def trajectories_asset(
    factory: AssetFactory, name: str, plan: Callable[[AssetRun], Rollout], *, check_format: bool
) -> dg.AssetsDefinition:
    """Returns the asset of an agent's trajectories; `check_format` adds the check that agents still end in format."""

    def compute(run: AssetRun) -> None:
        rollout = plan(run)
        made = make_trajectories(
            run.experiment,
            rollout.identity,
            rollout.acting,
            rollout.cases,
            rollout.sampling,
            out=run.draft.path,
            workspace=_workspace(run, name),
        )
        trajectories = made.records
        run.draft.counts.update(endings(trajectories))
        run.draft.metrics.update(made.counts)
        _account(run, trajectory_use(run.experiment, rollout.acting.model, trajectories))
        answered = sum(trajectory.stop_reason is StopReason.final_answer for trajectory in trajectories)
        share, least = answered / len(trajectories), run.experiment.limits.min_in_format
        run.metadata["share_in_format"] = share
        if check_format:
            description = f"{share:.0%} of the trajectories end in a final answer; at least {least:.0%} should."
            run.checks.append(Check("in_format", share >= least, description, metadata={"share": share}))

    checks = {"in_format": "Enough trajectories end in a final answer."} if check_format else {}
    return factory.asset(name, compute, checks=checks, kinds={"jsonl"})


def evaluations_asset(factory: AssetFactory, prefix: str, judge: str, trajectories: str) -> dg.AssetsDefinition:
    """Returns one judge's evaluations, an asset a metric, that one run makes together."""
    names = {f"{prefix}/{judge}/{metric.value}": metric for metric in factory.experiment.metrics}

    def compute(runs: dict[str, AssetRun]) -> None:
        outs: dict[Metric, Path] = {names[name]: run.draft.path for name, run in runs.items()}
        first = next(iter(runs.values()))
        workspace = _workspace(first, f"{prefix}/{judge}")
        made = make_evaluations(first.experiment, judge, first.input(trajectories), outs, workspace)
        first.draft.metrics.update(made.counts)
        allowed = first.experiment.limits.max_unparsed
        for name, run in runs.items():
            verdicts = [verdict for verdict in made.records if verdict.metric is names[name]]
            _account(run, evaluation_use(run.experiment, judge, verdicts))
            scores = [verdict.score for verdict in verdicts]
            unparsed = sum(score is None for score in scores)
            parsed = [score for score in scores if score is not None]
            run.draft.counts.update(evaluations=len(scores), without_score=unparsed)
            run.metadata["mean_score"] = sum(parsed) / len(parsed) if parsed else None
            description = f"{unparsed} of {len(scores)} verdicts have no score; at most {allowed:.0%} may."
            run.checks.append(
                Check(
                    "all_scored", unparsed <= allowed * len(scores), description, metadata={"without_score": unparsed}
                )
            )

    described = {"all_scored": "No verdict is without a score."}
    return factory.multi_asset(list(names), compute, checks=dict.fromkeys(names, described), kinds={"jsonl"})


def _workspace(run: AssetRun, name: str) -> Workspace:
    """Returns where a partition's unfinished work lies; its replies outlive it, for when it is made again."""
    replies = run.store.base / REPLIES / name / f"{run.ref.partition_label}.jsonl"
    run.draft.resume(replies)
    return Workspace(run.draft.journal, replies, servers_folder(run.store.root), run.progress, run.log)


def _account(run: AssetRun, used: Iterable[RoleUse]) -> None:
    """Notes what models took, in the manifest and for Dagster's UI."""
    for role in used:
        run.draft.counts.update(role.counts())
        run.draft.metrics.update(role.metrics())
        if role.use.served_as:
            run.metadata[f"{role.role}_served_as"] = ", ".join(role.use.served_as)
        if role.use.ignored:
            run.metadata[f"{role.role}_ignored"] = ", ".join(role.use.ignored)
