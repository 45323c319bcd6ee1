"""Trained agents' trajectories and evaluations, made by `collect`'s factories."""

from __future__ import annotations

import dagster as dg

from dagster_project.collect.factories import Rollout, calibration_asset, evaluations_asset, trajectories_asset
from dagster_project.collect.rollouts import Identity
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.graph import calibrated
from dagster_project.experiment.splits import split_cases


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def plan(run: AssetRun) -> Rollout:
        seed = int(run.ref.key("seed"))
        n_cases = run.experiment.world.cases
        test = run.experiment.test
        cases = range(n_cases) if test.split == "all" else split_cases(n_cases, seed).test
        (weights,) = (artifact.path for artifact in run.inputs.values())
        return Rollout(Identity(run.ref.key("agent"), seed), weights, cases, test)

    return [
        trajectories_asset(factory, "agent_trajectories", plan, check_format=True),
        *(
            evaluations_asset(factory, "agent_evaluations", judge, "agent_trajectories")
            for judge in factory.experiment.judges
        ),
        *(calibration_asset(factory, judge) for judge in calibrated(factory.experiment)),
    ]
