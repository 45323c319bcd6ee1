"""Each agent's specification, its adapters and merged models, stage by stage."""

from __future__ import annotations

import functools

import dagster as dg
import orjson

from dagster_project.artifacts import Ref
from dagster_project.collect.files import TRAJECTORIES
from dagster_project.collect.weights import model_folder
from dagster_project.collect.world import open_world
from dagster_project.experiment.agents import Agent
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.graph import agents_by_key
from dagster_project.preferences.assets import PAIRS
from dagster_project.preferences.pairs import PreferencePair
from dagster_project.training.conversations import tokenize_pairs
from dagster_project.training.dpo import DPOParameters, train_adapter
from dagster_project.training.merge import merge_adapter
from toolemu.jsonl import read_jsonl, write_jsonl
from toolemu.prompts.render import AgentPrompt
from toolemu.trajectory import Trajectory

SPEC = "spec.json"
STEPS = "steps.jsonl"


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""
    agents = agents_by_key(factory.experiment)
    if "agent_specs" not in factory.graph.nodes:
        return []
    assets = [factory.asset("agent_specs", lambda run: _spec(run, agents), kinds={"json"})]
    for stage in range(1, factory.experiment.n_stages + 1):
        train = functools.partial(_adapter, agents=agents, stage=stage)
        assets.append(factory.asset(f"stage_{stage}/adapters", train, kinds={"peft"}))
        if f"stage_{stage}/merged_models" in factory.graph.nodes:
            assets.append(factory.asset(f"stage_{stage}/merged_models", _merge, kinds={"huggingface"}))
    return assets


def _spec(run: AssetRun, agents: dict[str, Agent]) -> None:
    agent = agents[run.ref.key("agent")]
    spec = {
        "agent": agent.key,
        "model": agent.model,
        "recipe": agent.recipe.value,
        "pairs_judge": agent.pairs_judge,
        "beta": agent.beta,
        "stages": [stage.model_dump(mode="json") for stage in agent.stages],
        "training": run.experiment.training_of(agent.model, agent.recipe).model_dump(mode="json"),
    }
    (run.draft.path / SPEC).write_bytes(orjson.dumps(spec, option=orjson.OPT_INDENT_2))


def _base(run: AssetRun) -> Ref:
    """Returns the one input that holds the weights to train or to merge into."""
    (base,) = (ref for ref in run.inputs if ref.asset == "source_models" or ref.asset.endswith("/merged_models"))
    return base


def _adapter(run: AssetRun, agents: dict[str, Agent], stage: int) -> None:
    agent, experiment = agents[run.ref.key("agent")], run.experiment
    this, base = agent.stages[stage - 1], _base(run)
    world = open_world(experiment)
    pairs = read_jsonl(run.input(f"preference_pairs/{this.judge}") / PAIRS, PreferencePair)
    wanted = {pair.chosen_trajectory_id for pair in pairs} | {pair.rejected_trajectory_id for pair in pairs}
    trajectories = {
        trajectory.trajectory_id: trajectory
        for path in run.inputs_of("source_trajectories").values()
        for trajectory in read_jsonl(path / TRAJECTORIES, Trajectory)
        if trajectory.trajectory_id in wanted
    }
    training = experiment.training_of(agent.model, agent.recipe)
    epochs = this.epochs
    assert epochs is not None, "only imported agents' epochs are unknown"
    prompt = AgentPrompt(experiment.agent.prompt_style, experiment.prompts_dir, layout=experiment.agent.prompt_layout)
    result = train_adapter(
        model_folder(experiment.models[agent.model], run.inputs[base].path),
        base.label,
        lambda tokenizer: tokenize_pairs(
            tokenizer,
            pairs,
            trajectories,
            world.cases,
            world.toolkits,
            prompt,
            mask_observations=training.mask_observations,
        ),
        DPOParameters(training, this.beta, epochs, int(run.ref.key("seed"))),
        run.draft.path,
        run.progress,
    )
    write_jsonl(run.draft.path / STEPS, result.steps)
    last = result.steps[-1]
    run.draft.counts.update(pairs=result.pairs, pairs_too_long=result.too_long, steps=len(result.steps))
    run.draft.metrics.update(
        seconds=result.seconds,
        tokens_per_second=result.tokens_per_second,
        loss=last.loss,
        reward_accuracy=last.reward_accuracy,
    )


def _merge(run: AssetRun) -> None:
    base = _base(run)
    model = run.experiment.models[agents_by_key(run.experiment)[run.ref.key("agent")].model]
    (adapter,) = (artifact.path for ref, artifact in run.inputs.items() if ref.asset.endswith("/adapters"))
    difference = merge_adapter(model_folder(model, run.inputs[base].path), adapter, run.draft.path, range(3, 35))
    run.draft.metrics["max_logit_difference"] = difference
