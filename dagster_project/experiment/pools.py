"""Pools: what is scarce, and which assets take a place in it while they are made.

How many places a pool has is set on Dagster's instance, for all experiments together: dagster.yaml, or the UI.
"""

from __future__ import annotations

from dagster_project.artifacts.manifest import gpu_name
from dagster_project.experiment.nodes import Kind, Side
from dagster_project.experiment.spec import Experiment

GPU = "gpu"


def uses_gpu(experiment: Experiment) -> bool:
    """Return whether models are trained and run on a GPU.

    Unless the experiment file says so, that needs a model with real weights, and a GPU: this machine's, or one that the
    rules for Kubernetes pods ask for.
    """
    if experiment.operations.gpu is not None:
        return experiment.operations.gpu
    there = any(model.uses_gpu for model in experiment.models.values())
    return there and (bool(gpu_name()) or any(rule.gpus for rule in experiment.kubernetes))


def pool_of(experiment: Experiment, kind: Kind, side: Side | None, judge: str | None) -> str | None:
    """Return the pool in which making a partition takes a place; None if it needs nothing scarce.

    Args:
        experiment: The experiment.
        kind: What the asset holds.
        side: Whose it is.
        judge: Whose verdicts it holds, if any.
    """
    if kind is Kind.warehouse:
        return f"warehouse/{experiment.name}"
    if kind in (Kind.evaluations, Kind.calibration) and judge is not None:
        role = experiment.judges[judge].role if judge in experiment.judges else None
        return f"endpoint/{role.endpoint}" if role else None
    acts = kind is Kind.trajectories
    on_gpu = acts or kind in (Kind.adapters, Kind.merged) or (kind is Kind.model and side is Side.source)
    if on_gpu and uses_gpu(experiment):
        return GPU
    if acts and experiment.world.role is not None:
        return f"endpoint/{experiment.world.role.endpoint}"
    return None
