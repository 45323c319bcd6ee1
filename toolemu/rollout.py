"""Many trajectories or verdicts at once, each journaled as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from toolemu.agent import AgentSettings, run_agent
from toolemu.cases import Case
from toolemu.chat import ChatModel
from toolemu.emulator import Emulator
from toolemu.errors import FrontierError
from toolemu.evaluation import Evaluation, Metric
from toolemu.journal import JournalBusyError, run_journaled
from toolemu.judge import Judge
from toolemu.prompts import AgentPrompt
from toolemu.toolkits import Toolkit
from toolemu.trajectory import StopReason, Trajectory, trajectory_id

__all__ = ["JournalBusyError", "evaluate_all", "rollout", "run_journaled"]

Progress = Callable[[int, int], None]


class _Cell(NamedTuple):
    case_idx: int
    sample: int


async def rollout(
    cases: Mapping[int, Case],
    toolkits: Mapping[str, Toolkit],
    model: ChatModel,
    emulator: Emulator,
    settings: AgentSettings,
    *,
    experiment: str,
    agent: str,
    seed: int | None,
    samples: int,
    journal: Path,
    concurrency: int = 64,
    progress: Progress | None = None,
    prompts_dir: Path | None = None,
) -> list[Trajectory]:
    """Lets one agent act on `cases`, `samples` times each; see `run_agent` and `run_journaled`.

    A resumed rollout asks again where agent or emulator could not be asked.

    Returns:
        The trajectories in order of case (as given) and sample.

    Raises:
        FrontierError: A case names a toolkit that is not among `toolkits`.
    """
    unknown = {name for case in cases.values() for name in case.toolkits} - set(toolkits)
    if unknown:
        raise FrontierError(f"The cases need toolkits that were not given: {', '.join(sorted(unknown))}.")

    prompt = AgentPrompt(settings.prompt_style, prompts_dir, layout=settings.prompt_layout)

    async def act(cell: _Cell) -> Trajectory:
        case = cases[cell.case_idx]
        return await run_agent(
            case,
            cell.case_idx,
            [toolkits[name] for name in case.toolkits],
            model,
            emulator,
            settings,
            experiment=experiment,
            agent=agent,
            seed=seed,
            sample=cell.sample,
            prompt=prompt,
        )

    return await run_journaled(
        [_Cell(case_idx, sample) for case_idx in cases for sample in range(samples)],
        lambda cell: trajectory_id(experiment, agent, seed, cell.case_idx, cell.sample),
        act,
        Trajectory,
        lambda trajectory: trajectory.trajectory_id,
        journal,
        concurrency,
        progress,
        again=lambda trajectory: trajectory.stop_reason is StopReason.model_error,
    )


class _Question(NamedTuple):
    trajectory: Trajectory
    metric: Metric
    replicate: int


async def evaluate_all(
    judge: Judge,
    cases: Mapping[int, Case],
    trajectories: Sequence[Trajectory],
    metrics: Sequence[Metric],
    *,
    replicates: int = 1,
    journal: Path,
    concurrency: int = 64,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Has one judge score `trajectories` on `metrics`, `replicates` times each; see `run_journaled`.

    What is resumed asks again where there was no score.

    Returns:
        The verdicts in order of trajectory (as given), metric and replicate.
    """

    async def ask(question: _Question) -> Evaluation:
        case = cases[question.trajectory.case_idx]
        return await judge.evaluate(case, question.trajectory, question.metric, question.replicate)

    def key(identity: str, name: str, metric: Metric, replicate: int) -> str:
        return f"{identity} {name} {metric.value} {replicate}"

    return await run_journaled(
        [
            _Question(trajectory, metric, replicate)
            for trajectory in trajectories
            for metric in metrics
            for replicate in range(replicates)
        ],
        lambda question: key(question.trajectory.trajectory_id, judge.name, question.metric, question.replicate),
        ask,
        Evaluation,
        lambda verdict: key(verdict.trajectory_id, verdict.judge, verdict.metric, verdict.replicate),
        journal,
        concurrency,
        progress,
        again=lambda verdict: verdict.score is None,  # of a reply that is kept, this costs nothing
    )
