"""Asset factories for trajectories and evaluations, shared by source models and trained agents; and their checks."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import dagster as dg

from dagster_project.collect.accounting import RoleUse, evaluation_use, trajectory_use
from dagster_project.collect.endpoints import REPLIES, Acting, Workspace, servers_folder
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.collect.rollouts import Identity, endings, judgeable, make_evaluations, make_trajectories
from dagster_project.experiment.assets import AssetFactory, AssetRun, Check
from dagster_project.experiment.metadata import as_text
from dagster_project.experiment.nodes import Input, Node, Side, calibration_path, evaluations_path, name_of
from dagster_project.experiment.sections import Sampling
from toolemu.errors import shorten
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import read_jsonl, write_jsonl
from toolemu.trajectory import ObservationSource, StopReason, Trajectory


class Rollout(NamedTuple):
    """What a partition of trajectories needs: who acts, with which weights, on which cases, how often."""

    identity: Identity
    acting: Acting
    cases: Iterable[int]
    sampling: Sampling


def trajectories_asset(
    factory: AssetFactory, node: Node, plan: Callable[[AssetRun], Rollout], *, out_of_format: str
) -> dg.AssetsDefinition:
    """Return the asset of an agent's trajectories; `out_of_format` is what to do if too few end in an answer."""

    def compute(run: AssetRun) -> None:
        rollout, workspace = plan(run), _workspace(run, node.name)
        made = make_trajectories(
            run.experiment,
            rollout.identity,
            rollout.acting,
            rollout.cases,
            rollout.sampling,
            out=run.draft.path,
            workspace=workspace,
        )
        trajectories = made.records
        run.rows = len(trajectories)
        run.draft.counts.update(endings(trajectories))
        run.draft.metrics.update(made.counts)
        _account(run, trajectory_use(run.experiment, rollout.acting.model, trajectories))
        if lm:
            run.checks += [_asked_check(run, trajectories), _emulator_check(run, trajectories)]
        answered = sum(trajectory.stop_reason is StopReason.final_answer for trajectory in trajectories)
        share, least = answered / len(trajectories), run.experiment.limits.min_in_format
        run.metadata["share_in_format"] = share
        description = (
            f"{share:.0%} of the trajectories end in a final answer; at least {least:.0%} must, or judges would score "
            f"broken text. See how they end in {workspace.journal}: {out_of_format}; or, if that is a finding, lower "
            "limits.min_in_format and run again (nothing is sampled anew)."
        )
        run.checks.append(Check("in_format", share >= least, description, metadata={"share": share}))

    checks = {"in_format": "Enough trajectories end in a final answer."}
    lm = factory.experiment.world.role is not None
    if lm:
        checks["models_asked"] = "Agent and emulator could be asked."
        checks["emulator_readable"] = "The emulator's answers can be read."
    return factory.asset(node.name, compute, checks=checks, kinds={"jsonl"})


def _asked_check(run: AssetRun, trajectories: Sequence[Trajectory]) -> Check:
    failed = [trajectory.error for trajectory in trajectories if trajectory.stop_reason is StopReason.model_error]
    most = run.experiment.limits.max_model_errors
    example = f" For instance: {as_text(shorten(failed[0], 300))}." if failed else ""
    description = (
        f"{len(failed)} of {len(trajectories)} trajectories end because agent or emulator could not be asked; at most "
        f"{most:.0%} may.{example} Mend it and run again (only those are asked for anew), or raise "
        "limits.max_model_errors."
    )
    return Check("models_asked", len(failed) <= most * len(trajectories), description)


def _emulator_check(run: AssetRun, trajectories: Sequence[Trajectory]) -> Check:
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    answers = [step for step in steps if step.observation_source is ObservationSource.emulator]
    broken = [step.observation_problem for step in answers if step.observation_problem]
    most = run.experiment.limits.max_emulator_problems
    example = f" For instance: {as_text(broken[0].rstrip('.'))}." if broken else ""
    description = (
        f"{len(broken)} of the emulator's {len(answers)} answers break their tool's specification, after every "
        f"attempt to mend them; at most {most:.0%} may.{example} Use a stronger emulator, raise "
        "world.emulator.max_revisions or max_tokens, or raise limits.max_emulator_problems and run again."
    )
    return Check("emulator_readable", len(broken) <= most * len(answers), description)


def evaluations_asset(factory: AssetFactory, side: Side, judge: str) -> dg.AssetsDefinition:
    """Return one judge's evaluations of a side, one asset per metric, that one run makes together."""
    names = {name_of(evaluations_path(side, judge, metric)): metric for metric in factory.experiment.metrics}

    def compute(runs: dict[str, AssetRun]) -> None:
        outs: dict[Metric, Path] = {names[name]: run.draft.path for name, run in runs.items()}
        first = next(iter(runs.values()))
        workspace = _workspace(first, f"{first.node.path[0]}/{judge}")
        made = make_evaluations(first.experiment, judge, first.one(Input.trajectories).path, outs, workspace)
        first.draft.metrics.update(made.counts)
        acted = read_jsonl(first.one(Input.trajectories).path / TRAJECTORIES, Trajectory)
        not_judged = len(acted) - len(judgeable(first.experiment, acted))
        allowed = first.experiment.limits.max_unparsed
        for name, run in runs.items():
            verdicts = [verdict for verdict in made.records if verdict.metric is names[name]]
            _account(run, evaluation_use(run.experiment, judge, verdicts))
            scores = [verdict.score for verdict in verdicts]
            run.rows = len(verdicts)
            unparsed = sum(score is None for score in scores)
            parsed = [score for score in scores if score is not None]
            asked_again = sum(bool(verdict.faults) for verdict in verdicts)
            run.draft.counts.update(
                evaluations=len(scores),
                without_score=unparsed,
                asked_again=asked_again,
                trajectories_not_judged=not_judged,
            )
            run.metadata["faults"] = dict(Counter(fault for verdict in verdicts for fault in verdict.faults))
            run.metadata["mean_score"] = sum(parsed) / len(parsed) if parsed else None
            description = f"All {len(scores)} verdicts have a score."
            if unparsed:
                advice = run.experiment.judges[judge].advice([one for one in verdicts if one.score is None])
                description = (
                    f"{unparsed} of {len(scores)} verdicts have no score; at most {allowed:.0%} may. {as_text(advice)} "
                    "Or raise limits.max_unparsed and run again. If its server was at fault and is mended, give the "
                    "judge another `revision`, or its replies are kept."
                )
            passed = unparsed <= allowed * len(scores)
            run.checks.append(Check("scored", passed, description, metadata={"without_score": unparsed}))

    described = {"scored": "Nearly every verdict has a score."}
    return factory.multi_asset(list(names), compute, checks=dict.fromkeys(names, described), kinds={"jsonl"})


def calibration_asset(factory: AssetFactory, judge: str) -> dg.AssetsDefinition:
    """Returns one judge's verdicts on a few source trajectories once more, and the check that it has not drifted."""

    def compute(run: AssetRun) -> None:
        limits, metrics = run.experiment.limits, run.experiment.metrics
        found = (
            trajectory
            for artifact in run.all(Input.trajectories)
            for trajectory in read_jsonl(artifact.path / TRAJECTORIES, Trajectory)
        )
        trajectories = judgeable(run.experiment, found)
        step = max(1, len(trajectories) // limits.calibration)
        sample = trajectories[::step][: limits.calibration]
        chosen = run.draft.journal / "sample"
        chosen.mkdir(parents=True, exist_ok=True)
        write_jsonl(chosen / TRAJECTORIES, sample)
        outs = {metric: run.draft.path / metric.value for metric in metrics}
        for out in outs.values():
            out.mkdir()
        workspace = _workspace(run, run.ref.asset)
        made = make_evaluations(run.experiment, judge, chosen, outs, workspace)
        run.draft.metrics.update(made.counts)
        run.draft.counts["evaluations"] = len(made.records)
        _account(run, evaluation_use(run.experiment, judge, made.records))
        wanted = {trajectory.trajectory_id for trajectory in sample}
        first = [
            verdict
            for artifact in run.all(Input.verdicts)
            for verdict in read_jsonl(artifact.path / EVALUATIONS, Evaluation)
            if verdict.trajectory_id in wanted
        ]
        changes = {metric: _changes(first, made.records, metric) for metric in metrics}
        drift = {metric: fmean(found) for metric, found in changes.items() if found}
        run.draft.metrics.update({f"drift_{metric.value}": change for metric, change in drift.items()})
        check = _drift_check(judge, changes, len(sample), limits.max_drift)
        if not check.passed:  # the next try must ask, and not find what was answered now
            shutil.rmtree(workspace.journal)
            workspace.replies.unlink(missing_ok=True)
        run.checks.append(check)

    described = {"steady": "The judge scores as it did at first."}
    return factory.asset(name_of(calibration_path(judge)), compute, checks=described, kinds={"jsonl"})


def _drift_check(judge: str, changes: Mapping[Metric, Sequence[float]], n: int, most: float) -> Check:
    """Return the check that a judge scores as it did at first.

    Args:
        judge: The judge's name.
        changes: By metric, the change of each trajectory's score; see `_changes`.
        n: How many trajectories were scored again.
        most: Largest mean change that passes, in points.
    """
    unknown = [metric.value for metric, found in changes.items() if not found]
    if unknown:
        description = (
            f"None of {n} source trajectories has a score for {', '.join(unknown)} both times, so nobody knows whether "
            f"{judge} has changed. See the errors of its verdicts, and mend its server."
        )
        return Check("steady", passed=False, description=description)
    worst, found = max(changes.items(), key=lambda entry: abs(fmean(entry[1])))
    drift = fmean(found)
    description = (
        f"{judge} scores {worst.value} {drift:+.2f} points otherwise than at first, on the {len(found)} of {n} source "
        f"trajectories that have a score both times; at most {most:g} either way. Its server may have another model or "
        "other settings by now: pin its revision, or have everything judged anew (frontier run --update after a "
        "change of the judge). Or raise limits.max_drift."
    )
    return Check("steady", abs(drift) <= most, description, metadata={"drift": drift})


def _changes(first: Sequence[Evaluation], again: Sequence[Evaluation], metric: Metric) -> list[float]:
    """Return by how much the mean score of each trajectory changed that has a score both times."""
    before, after = (_mean_scores(verdicts, metric) for verdicts in (first, again))
    return [after[key] - before[key] for key in sorted(before.keys() & after.keys())]


def _mean_scores(verdicts: Sequence[Evaluation], metric: Metric) -> dict[str, float]:
    """Returns the mean score of every trajectory that has one."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.metric is metric and verdict.score is not None:
            scores[verdict.trajectory_id].append(verdict.score)
    return {key: sum(found) / len(found) for key, found in scores.items()}


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
