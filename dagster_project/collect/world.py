"""Who plays: cases, toolkits, emulator, judges and models, as the experiment file names them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.endpoints import ACTING, Acting, Chats, check_roles
from dagster_project.collect.weights import model_folder, pin_weights
from dagster_project.experiment.casefiles import read_case_files
from dagster_project.experiment.graph import IMPORT
from dagster_project.experiment.imported import CASES
from dagster_project.experiment.models import OwnAdapter, RunHere, WeightsModel
from dagster_project.experiment.roles import EmulatedWorld
from dagster_project.experiment.spec import Experiment, MiniatureModel, MiniatureWorld
from dagster_project.judges import JudgeWorld
from dagster_project.miniature.emulator import RuleEmulator
from dagster_project.miniature.world import make_cases, toolkits
from toolemu.cases import Case
from toolemu.chat import ChatModel
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.emulator import Emulator
from toolemu.errors import FrontierError, InputError
from toolemu.judge import Judge
from toolemu.lm_emulator import LMEmulator
from toolemu.toolkits import Toolkit

SERVED_MODEL = "served_model.json"
"""In the place of weights: the model behind an endpoint that a source model is."""


class World(NamedTuple):
    """The cases, in order of `case_idx`, and their toolkits."""

    cases: list[Case]
    toolkits: dict[str, Toolkit]


@functools.lru_cache(maxsize=4)
def _miniature_world(world: MiniatureWorld) -> World:
    return World(make_cases(world.cases, world.seed), toolkits())


def open_world(experiment: Experiment) -> World:
    """Returns the experiment's world.

    Raises:
        FrontierError: It is imported, and there is nobody to act in it; or its files changed since it was loaded.
    """
    world = experiment.world
    if isinstance(world, MiniatureWorld):
        return _miniature_world(world)
    if not isinstance(world, EmulatedWorld):
        raise FrontierError(f"{experiment.name} is imported; there is no world to act in.")
    found = read_case_files(world.case_files, world.toolkit_files)
    if found.sha256 != world.sha256:
        raise InputError(world.case_files, "", "cases or toolkits changed while the experiment ran.", "Run it again.")
    return World(found.cases[world.first : world.first + world.cases], found.toolkits)


def open_emulator(experiment: Experiment, chats: Chats) -> Emulator:
    """Returns who plays the tools."""
    world = experiment.world
    if not isinstance(world, EmulatedWorld):
        return RuleEmulator()
    role = world.emulator
    model = chats.model(role.chat(), role.model or role.endpoint)
    return LMEmulator(
        role.model or role.endpoint, model, open_world(experiment).toolkits, role.settings(), experiment.prompts_dir
    )


def open_cases(experiment: Experiment, store: ArtifactStore) -> dict[int, Case]:
    """Returns the experiment's cases by index, those of an imported one as its runs brought them along."""
    if not experiment.imports:
        return dict(enumerate(open_world(experiment).cases))
    texts = orjson.loads((store.get(Ref(IMPORT)).path / CASES).read_bytes())
    return {int(index): Case.model_validate(case) for index, case in texts.items()}


def open_judge(experiment: Experiment, name: str, chats: Chats) -> Judge:
    """Return a judge; its verdicts carry the name that the experiment gives it."""

    def chat(settings: OpenAIModelSettings, name: str, batch_poll_s: float | None) -> ChatModel:
        return chats.model(settings, name, batch_poll_s=batch_poll_s)

    return experiment.judges[name].open(name, JudgeWorld(open_world(experiment).toolkits, experiment.prompts_dir, chat))


def make_source_model(
    experiment: Experiment, name: str, out: Path, progress: Callable[[int, int], None]
) -> dict[str, float]:
    """Resolves a source model into `out` and returns measurements of doing so.

    That is weights and tokenizer; of weights that lie elsewhere, which they are, with their hashes; of a model behind
    an endpoint, what it is and the name under which it answered.

    Raises:
        FrontierError: The model's endpoint cannot be used.
    """
    spec = experiment.section(name)
    if isinstance(spec, OpenAIModelSettings):
        (report,) = check_roles(experiment, [experiment.place_of(name)])
        served = {**spec.model_dump(), "served_as": report.reply.model, "ignored": report.reply.ignored}
        (out / SERVED_MODEL).write_bytes(orjson.dumps(served, option=orjson.OPT_INDENT_2))
        return {}
    if isinstance(spec, WeightsModel | OwnAdapter):
        return {"bytes": float(pin_weights(spec, out))}
    from dagster_project.miniature.models import train_source_model

    assert isinstance(spec, MiniatureModel), "an imported model has no asset that would make it"
    return train_source_model(spec.temperament, spec.seed, out, progress, steps=spec.steps, heads=spec.heads)


def open_model(experiment: Experiment, acting: Acting, name: str, chats: Chats) -> ChatModel:
    """Returns an agent's model, ready to chat.

    By default one in this process computes in float64, so that no rounding depends on which requests share a batch: a
    rollout that was killed and resumed then gives the same text as one that was not.
    """
    model = experiment.section(acting.model)
    if isinstance(model, OpenAIModelSettings):
        return chats.model(model, name)
    assert isinstance(model, RunHere), "an imported model has no weights to act with"
    if model.backend == "vllm":
        return chats.model(model.asked_at(ACTING, ""), name)
    from toolemu.chat.local import LocalChatModel

    weights, local = model_folder(model, acting.base.path), model.local.model_dump()
    if acting.adapter is None:
        return LocalChatModel(weights, name, options=model, **local)
    with tempfile.TemporaryDirectory() as adapter:
        acting.adapter.write(Path(adapter))
        return LocalChatModel(weights, name, options=model, adapter=Path(adapter), **local)
