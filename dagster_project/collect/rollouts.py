"""Trajectories of one agent and verdicts on them: the computations behind the assets of `collect` and `measure`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from dagster_project.collect.endpoints import Acting, Workspace, open_chats
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.collect.world import open_emulator, open_judge, open_model, open_world
from dagster_project.experiment.sections import Sampling
from dagster_project.experiment.spec import Experiment
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import read_jsonl, write_jsonl
from toolemu.rollout import evaluate_all, rollout
from toolemu.trajectory import StopReason, Trajectory

Record = TypeVar("Record", Trajectory, Evaluation)


class Made(NamedTuple, Generic[Record]):
    """Records, and what making them took: replies bought and replayed, attempts that failed."""

    records: list[Record]
    counts: dict[str, int]


class Identity(NamedTuple):
    """Whose trajectories: a source model (no seed) or a trained agent of one seed."""

    agent: str
    seed: int | None


def make_trajectories(
    experiment: Experiment,
    identity: Identity,
    acting: Acting,
    case_indices: Iterable[int],
    sampling: Sampling,
    *,
    out: Path,
    workspace: Workspace,
) -> Made[Trajectory]:
    """Lets an agent act on cases and writes ``trajectories.jsonl`` below `out`.

    Args:
        experiment: The experiment.
        identity: Whose trajectories they are.
        acting: Its weights, or what stands for those of a model behind an endpoint.
        case_indices: The cases, by index.
        sampling: How often, and how warm.
        out: Folder of the result.
        workspace: Where unfinished work and replies lie, and are taken up again.

    Returns:
        The trajectories in order of case and sample.
    """
    world = open_world(experiment)
    workspace.journal.mkdir(parents=True, exist_ok=True)

    async def act() -> Made[Trajectory]:
        places = [experiment.place_of(acting.model)] if not experiment.is_served(acting.model) else []
        async with open_chats(experiment, [*places, "world.emulator"], workspace, acting) as chats:
            records = await rollout(
                {index: world.cases[index] for index in case_indices},
                world.toolkits,
                open_model(experiment, acting, identity.agent, chats),
                open_emulator(experiment, chats),
                experiment.agent.model_copy(update={"temperature": sampling.temperature}),
                experiment=experiment.name,
                agent=identity.agent,
                seed=identity.seed,
                samples=sampling.samples,
                journal=workspace.journal / TRAJECTORIES,
                concurrency=experiment.concurrency,
                progress=workspace.progress,
                prompts_dir=experiment.prompts_dir,
            )
            return Made(records, chats.counts())

    made = asyncio.run(act())
    write_jsonl(out / TRAJECTORIES, made.records)
    return made


def make_evaluations(
    experiment: Experiment,
    judge: str,
    trajectories: Path,
    outs: dict[Metric, Path],
    workspace: Workspace,
) -> Made[Evaluation]:
    """Have one judge score the trajectories below `trajectories`, and write each metric's verdicts below its `outs`.

    Trajectories that say nothing about the agent are not judged (see `judgeable`). People score what they have scored:
    there are verdicts on those trajectories alone.
    """
    records = judgeable(experiment, read_jsonl(trajectories / TRAJECTORIES, Trajectory))
    kind = experiment.judges[judge]
    given = kind.given(judge, records)
    if given is not None:
        return _write(Made([verdict for verdict in given if verdict.metric in outs], {}), outs)
    world = open_world(experiment)
    workspace.journal.mkdir(parents=True, exist_ok=True)

    concurrency = kind.in_flight(len(records) * len(outs) * kind.verdicts_each, experiment.concurrency)

    async def score() -> Made[Evaluation]:
        async with open_chats(experiment, [f"judges.{judge}"], workspace) as chats:
            verdicts = await evaluate_all(
                open_judge(experiment, judge, chats),
                {record.case_idx: world.cases[record.case_idx] for record in records},
                records,
                list(outs),
                replicates=kind.verdicts_each,
                journal=workspace.journal / EVALUATIONS,
                concurrency=concurrency,
                progress=workspace.progress,
            )
            return Made(verdicts, chats.counts())

    return _write(asyncio.run(score()), outs)


def judgeable(experiment: Experiment, trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """Return the trajectories that judges score: all that say something about the agent, see `Trajectory.failed`."""
    return [one for one in trajectories if experiment.judge_failed or not one.failed]


def _write(made: Made[Evaluation], outs: Mapping[Metric, Path]) -> Made[Evaluation]:
    for metric, out in outs.items():
        write_jsonl(out / EVALUATIONS, (verdict for verdict in made.records if verdict.metric is metric))
    return made


def endings(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Return how many trajectories ended for which reason, all reasons listed, and what else is counted of them.

    `failed` counts those that say nothing about the agent, and `with_self_observed` those with invented observations.
    """
    counts = Counter(trajectory.stop_reason for trajectory in trajectories)
    return {
        "trajectories": len(trajectories),
        **{reason.value: counts[reason] for reason in StopReason},
        "failed": sum(trajectory.failed for trajectory in trajectories),
        "with_self_observed": sum(trajectory.self_observed > 0 for trajectory in trajectories),
        "agent_tokens": sum(trajectory.agent_tokens or 0 for trajectory in trajectories),
    }
