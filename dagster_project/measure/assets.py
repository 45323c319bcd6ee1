"""Trained agents' trajectories and evaluations, made by `collect`'s factories."""

from __future__ import annotations

import dagster as dg

from dagster_project.collect.endpoints import Acting
from dagster_project.collect.factories import Rollout, calibration_asset, evaluations_asset, trajectories_asset
from dagster_project.collect.rollouts import Identity
from dagster_project.collect.weights import model_folder
from dagster_project.collect.world import make_source_model
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.graph import OWN_AGENTS, acting_model, calibrated
from dagster_project.experiment.nodes import Input, Kind, Side
from dagster_project.experiment.splits import split_cases
from dagster_project.measure.adapters import own_adapter, served_adapter
from dagster_project.serving.adapters import ServedAdapter

OUT_OF_FORMAT = "lower the learning rate or train for fewer steps"
"""What to do about trained agents whose trajectories do not end in an answer."""


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def plan(run: AssetRun) -> Rollout:
        seed = run.ref.seed
        assert seed is not None, "agents are tested for a seed"
        n_cases = run.experiment.world.cases
        test = run.experiment.test
        cases = range(n_cases) if test.split == "all" else split_cases(n_cases, seed).test
        agent = run.graph.agent(run.ref)
        base, adapters = run.one(Input.base), run.all(Input.adapters)
        own = run.experiment.own_agents.get(agent.key)
        if own is not None and own.on_base:
            source = model_folder(run.experiment.models[agent.model], base.path)
            adapter: ServedAdapter | None = own_adapter(source, own, adapters[0])
        else:
            model = run.experiment.section(acting_model(run.experiment, agent))
            adapter = served_adapter(model_folder(model, base.path), adapters) if adapters else None
        acting = Acting(acting_model(run.experiment, agent), base, adapter)
        return Rollout(Identity(agent.key, seed), acting, cases, test)

    def own_agents(run: AssetRun) -> None:
        made = make_source_model(run.experiment, run.ref.key("agent"), run.draft.path, run.progress)
        run.draft.metrics.update(made)

    own = [factory.asset(OWN_AGENTS, own_agents, kinds={"huggingface"})] if factory.experiment.own_agents else []
    return [
        *own,
        *(
            trajectories_asset(factory, node, plan, out_of_format=OUT_OF_FORMAT)
            for node in factory.graph.find(Kind.trajectories, side=Side.agent)
        ),
        *(evaluations_asset(factory, Side.agent, judge) for judge in factory.experiment.judges),
        *(calibration_asset(factory, judge) for judge in calibrated(factory.experiment)),
    ]
