"""Trajectories of one agent and verdicts on them: the computations behind the assets of `collect` and `measure`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.collect.world import open_judge, open_world
from dagster_project.experiment.spec import Experiment, Sampling
from toolemu.chat import ChatModel
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import read_jsonl, write_jsonl
from toolemu.rollout import evaluate_all, rollout
from toolemu.trajectory import StopReason, Trajectory

Progress = Callable[[int, int], None]


class Identity(NamedTuple):
    """Whose trajectories: a source model (no seed) or a trained agent of one seed."""

    agent: str
    seed: int | None


def make_trajectories(
    experiment: Experiment,
    identity: Identity,
    model: ChatModel,
    case_indices: Iterable[int],
    sampling: Sampling,
    *,
    out: Path,
    journal: Path,
    progress: Progress,
) -> list[Trajectory]:
    """Lets an agent act on cases and writes ``trajectories.jsonl`` below `out`.

    Unfinished work lies below `journal` and is taken up again. Returns the trajectories in order of case and sample.
    """
    world = open_world(experiment)
    journal.mkdir(parents=True, exist_ok=True)
    trajectories = asyncio.run(
        rollout(
            {index: world.cases[index] for index in case_indices},
            world.toolkits,
            model,
            world.emulator,
            experiment.agent.model_copy(update={"temperature": sampling.temperature}),
            experiment=experiment.name,
            agent=identity.agent,
            seed=identity.seed,
            samples=sampling.samples,
            journal=journal / TRAJECTORIES,
            concurrency=experiment.limits.concurrency,
            progress=progress,
        )
    )
    write_jsonl(out / TRAJECTORIES, trajectories)
    return trajectories


def make_evaluations(
    experiment: Experiment,
    judge: str,
    trajectories: Path,
    outs: dict[Metric, Path],
    *,
    journal: Path,
    progress: Progress,
) -> dict[Metric, list[Evaluation]]:
    """Has one judge score the trajectories below `trajectories` and writes each metric's verdicts below its `outs`."""
    world = open_world(experiment)
    records = read_jsonl(trajectories / TRAJECTORIES, Trajectory)
    journal.mkdir(parents=True, exist_ok=True)
    verdicts = asyncio.run(
        evaluate_all(
            open_judge(experiment, judge),
            {record.case_idx: world.cases[record.case_idx] for record in records},
            records,
            list(outs),
            journal=journal / EVALUATIONS,
            concurrency=experiment.limits.concurrency,
            progress=progress,
        )
    )
    by_metric = {metric: [verdict for verdict in verdicts if verdict.metric is metric] for metric in outs}
    for metric, out in outs.items():
        write_jsonl(out / EVALUATIONS, by_metric[metric])
    return by_metric


def endings(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Returns how many trajectories ended for which reason, all reasons listed, and how many invented observations."""
    counts = Counter(trajectory.stop_reason for trajectory in trajectories)
    return {
        "trajectories": len(trajectories),
        **{reason.value: counts[reason] for reason in StopReason},
        "with_self_observed": sum(trajectory.self_observed > 0 for trajectory in trajectories),
        "agent_tokens": sum(trajectory.agent_tokens or 0 for trajectory in trajectories),
    }
