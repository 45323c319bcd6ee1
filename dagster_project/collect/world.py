"""Who plays: cases, toolkits, emulator, judges and models, as the experiment file names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.endpoints import Acting, Chats, check_roles
from dagster_project.environments import EmulatorTools, World
from dagster_project.experiment.graph import IMPORT
from dagster_project.experiment.imported import CASES
from dagster_project.experiment.spec import Experiment
from dagster_project.judges import JudgeWorld
from dagster_project.models import Making, ModelTools
from toolemu.cases import Case
from toolemu.chat import ChatModel, ChatReply
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.emulator import Emulator
from toolemu.judge import Judge


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
    """Resolve a source model, or an agent that was trained elsewhere, into `out`; return measurements of doing so.

    Raises:
        FrontierError: The model's weights or its endpoint cannot be had.
    """

    def probe() -> ChatReply:
        (report,) = check_roles(experiment, [experiment.place_of(name)])
        return report.reply

    return experiment.section(name).make(Making(out, progress, probe))


def open_model(experiment: Experiment, acting: Acting, name: str, chats: Chats) -> ChatModel:
    """Return an agent's model, ready to chat."""
    return experiment.section(acting.model).open(name, ModelTools(acting.base.path, acting.adapter, chats.model))
