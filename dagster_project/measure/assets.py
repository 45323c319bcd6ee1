"""Trained agents' trajectories and evaluations, made by `collect`'s factories."""

from __future__ import annotations

import dagster as dg

from dagster_project.collect.endpoints import Acting
from dagster_project.collect.factories import Rollout, calibration_asset, evaluations_asset, trajectories_asset
from dagster_project.collect.rollouts import Identity
from dagster_project.collect.weights import model_folder
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.graph import agents_by_key, calibrated
from dagster_project.experiment.splits import split_cases
from dagster_project.measure.adapters import served_adapter


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""
    agents = agents_by_key(factory.experiment)

    def plan(run: AssetRun) -> Rollout:
        seed = int(run.ref.key("seed"))
        n_cases = run.experiment.world.cases
        test = run.experiment.test
        cases = range(n_cases) if test.split == "all" else split_cases(n_cases, seed).test
        agent = agents[run.ref.key("agent")]
        base, *stages = run.inputs.values()
        folder = model_folder(run.experiment.models[agent.model], base.path)
        adapter = served_adapter(folder, stages) if stages else None
        return Rollout(Identity(agent.key, seed), Acting(agent.model, base, adapter), cases, test)

    return [
        trajectories_asset(factory, "agent_trajectories", plan, check_format=True),
        *(
            evaluations_asset(factory, "agent_evaluations", judge, "agent_trajectories")
            for judge in factory.experiment.judges
        ),
        *(calibration_asset(factory, judge) for judge in calibrated(factory.experiment)),
    ]
