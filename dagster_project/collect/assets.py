"""Source models, their trajectories, and the judges' verdicts on them."""

from __future__ import annotations

import dagster as dg

from dagster_project.collect.endpoints import Acting
from dagster_project.collect.factories import Rollout, evaluations_asset, trajectories_asset
from dagster_project.collect.rollouts import Identity
from dagster_project.collect.world import make_source_model
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.graph import SOURCE_MODELS
from dagster_project.experiment.nodes import Input, Kind, Side

OUT_OF_FORMAT = (
    "give the model more room (agent.token_budget, max_tokens_per_turn, max_reprompts), or what it was made for "
    "(thinking, chat_template, continues), or take another model"
)
"""What to do about a source model whose trajectories do not end in an answer."""


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def source_models(run: AssetRun) -> None:
        name = run.ref.key("model")
        run.draft.metrics.update(make_source_model(run.experiment, name, run.draft.path, run.progress))

    def plan(run: AssetRun) -> Rollout:
        n_cases = run.experiment.world.cases
        name = run.ref.key("model")
        return Rollout(Identity(name, None), Acting(name, run.one(Input.base)), range(n_cases), run.experiment.source)

    return [
        factory.asset(SOURCE_MODELS, source_models, kinds={"huggingface"}),
        *(
            trajectories_asset(factory, node, plan, out_of_format=OUT_OF_FORMAT)
            for node in factory.graph.find(Kind.trajectories, side=Side.source)
        ),
        *(evaluations_asset(factory, Side.source, judge) for judge in factory.experiment.judges),
    ]
