"""Pools: what is scarce, and which assets take a place in it while they are made.

How many places a pool has is set on Dagster's instance, for all experiments together: dagster.yaml, or the UI.
"""

from __future__ import annotations

from dagster_project.experiment.graph import STAGE
from dagster_project.experiment.roles import EmulatedWorld, LMJudgeRole
from dagster_project.experiment.spec import Experiment, ImportedModel, MiniatureModel
from toolemu.chat.settings import OpenAIModelSettings

GPU = "gpu"
WITHOUT_GPU = (MiniatureModel, ImportedModel, OpenAIModelSettings)


def uses_gpu(experiment: Experiment) -> bool:
    """Says whether models are trained and run on a GPU of this machine."""
    given = experiment.operations.gpu
    return any(not isinstance(model, WITHOUT_GPU) for model in experiment.models.values()) if given is None else given


def pool_of(experiment: Experiment, asset: str) -> str | None:
    """Returns the pool in which making a partition of `asset` takes a place; None if it needs nothing scarce."""
    room, _, rest = asset.partition("/")
    if room == "warehouse":
        return f"warehouse/{experiment.name}"
    if room.endswith("_evaluations") or room == "judge_calibration":
        judge = experiment.judges[rest.partition("/")[0]]
        return f"endpoint/{judge.endpoint}" if isinstance(judge, LMJudgeRole) else None
    acts = room in ("source_trajectories", "agent_trajectories")
    if (acts or room == "source_models" or room.startswith(STAGE)) and uses_gpu(experiment):
        return GPU
    if acts and isinstance(experiment.world, EmulatedWorld):
        return f"endpoint/{experiment.world.emulator.endpoint}"
    return None
