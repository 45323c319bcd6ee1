"""Who plays: cases, toolkits, emulator, judges and models, as the experiment file names them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.endpoints import ACTING, Acting, Chats, check_roles
from dagster_project.collect.weights import model_folder, pin_weights
from dagster_project.environments import EmulatorTools, World
from dagster_project.experiment.graph import IMPORT
from dagster_project.experiment.imported import CASES
from dagster_project.experiment.models import OwnAdapter, RunHere, WeightsModel
from dagster_project.experiment.spec import Experiment, MiniatureModel
from dagster_project.judges import JudgeWorld
from toolemu.cases import Case
from toolemu.chat import ChatModel
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.emulator import Emulator
from toolemu.judge import Judge

SERVED_MODEL = "served_model.json"
"""In the place of weights: the model behind an endpoint that a source model is."""


def open_world(experiment: Experiment) -> World:
    """Return the experiment's cases and toolkits.

    Raises:
        FrontierError: The experiment is imported, or its files changed since it was loaded.
    """
    return experiment.world.open()


def open_emulator(experiment: Experiment, chats: Chats) -> Emulator:
    """Return who plays the tools."""
    return experiment.world.open_emulator(EmulatorTools(experiment.prompts_dir, chats.model))


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
