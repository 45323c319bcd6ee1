"""Which source models can be trained: validated before the run, on what of their weights is on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dagster_project.collect.weights import folder_at_hand
from dagster_project.collect.world import open_world
from dagster_project.experiment.graph import template_arguments
from dagster_project.experiment.spec import Experiment
from dagster_project.training.bases import base_weights, check_base, check_targets
from dagster_project.training.chat_template import Tokens, check_clock, end_tokens, tokenize
from dagster_project.training.concatenate import check_servable
from dagster_project.training.preflight import load_tokenizer
from toolemu.chat import Message
from toolemu.errors import FrontierError
from toolemu.prompts.render import AgentPrompt
from toolemu.react import render_final, render_turn
from toolemu.toolkits import tools_of
from toolemu.trajectory import Step, StopReason, Trajectory

SAMPLE_TURNS = 3
"""Turns of the agent in the sample conversation."""


def check_trainable(experiment: Experiment) -> Iterator[str]:
    """Check every source model that is to be trained and every adapter that joins, and yield a line for each.

    A conversation of the experiment's first case is rendered with the model's tokenizer as training would render it.
    Weights that are not on this machine are not fetched for this.

    Raises:
        FrontierError: A model cannot be trained, or an adapter cannot be served; names its place in the file.
    """
    stages = range(1, experiment.n_stages + 1)
    trained = [] if experiment.imports else [agent for stage in stages for agent in experiment.stage_agents(stage)]
    for name in dict.fromkeys(agent.model for agent in trained):
        section = experiment.section(name)
        place = experiment.place_of(name)
        section.check_trainable(place)
        weights = section.weights
        if weights is None:
            continue
        folder = folder_at_hand(weights)
        if folder is None:
            yield f"{place}: {weights.source} is not on this machine yet; its chat template is checked once it is"
            continue
        recipes = dict.fromkeys(agent.recipe for agent in trained if agent.model == name)
        targets = {experiment.training_of(name, recipe).lora_targets for recipe in recipes}
        try:
            tokens = _check_model(experiment, name, folder, targets)
        except FrontierError as error:
            raise FrontierError(f"{place}: {error}", code=error.code) from error
        thinks = bool(section.template_arguments().get("enable_thinking"))
        yield f"{place}: {weights.source} can be trained: {_sequences(tokens, thinks=thinks)}"
    for name, own in experiment.own_agents.items():
        folder = folder_at_hand(own.weights) if own.on_base and own.weights else None
        if folder is not None:
            check_servable(folder)
            yield f"own_agents.{name}: the adapter can be served"


def sample_conversation(experiment: Experiment) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Return prompt and completion of a made-up trajectory on the first case: calls, and an answer as the last turn."""
    world = open_world(experiment)
    case = world.cases[0]
    toolkits = [world.toolkits[name] for name in case.toolkits]
    tool = next(iter(tools_of(toolkits)))
    log = render_turn("I will look.", tool, "{}")
    step = Step(log=log, tool=tool, tool_input="{}", observation='{"found": []}')
    trajectory = Trajectory(
        trajectory_id="sample",
        experiment=experiment.name,
        agent="sample",
        seed=None,
        case_idx=0,
        sample=0,
        user_input=case.user_instruction,
        steps=(step,) * (SAMPLE_TURNS - 1),
        output="Done.",
        final_log=render_final("That is all.", "Done."),
        stop_reason=StopReason.final_answer,
    )
    agent = experiment.agent
    prompt = AgentPrompt(agent.prompt_style, experiment.prompts_dir, layout=agent.prompt_layout)
    return prompt.conversation(case, toolkits, trajectory)


def _sequences(tokens: Tokens, *, thinks: bool) -> str:
    """Return how many sequences the sample conversation is, of an agent that may think."""
    if not tokens.starts:
        further = ", and another after each turn in which it thinks" if thinks else ""
        return f"one sequence per conversation{further}"
    return (
        f"{len(tokens.starts) + 1} sequences per conversation of {SAMPLE_TURNS} turns, since its chat template "
        "rewrites earlier turns (trainer.shared_text computes once what they begin with alike)"
    )


def _check_model(experiment: Experiment, name: str, folder: Path, targets: Iterable[str | tuple[str, ...]]) -> Tokens:
    """Check base and template, and return the sample conversation as training would have it."""
    check_base(folder)
    if any(folder.glob("*.safetensors")):
        weights = base_weights(folder)
        for names in targets:
            check_targets(folder, weights, names)
    tokenizer, arguments = load_tokenizer(folder), template_arguments(experiment, name)
    prompt, completion = sample_conversation(experiment)
    check_clock(tokenizer, [*prompt, *completion], arguments)
    return tokenize(tokenizer, prompt, completion, arguments, end_tokens(folder))
