"""Who plays: cases, toolkits, emulator, judges and models, as the experiment file names them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import IMPORT
from dagster_project.experiment.imported import CASES
from dagster_project.experiment.spec import (
    Experiment,
    ImportedJudge,
    ImportedModel,
    MiniatureModel,
    MiniatureWorld,
)
from dagster_project.miniature.emulator import RuleEmulator
from dagster_project.miniature.judges import RuleJudge
from dagster_project.miniature.world import make_cases, toolkits
from toolemu.cases import Case
from toolemu.chat import ChatModel
from toolemu.emulator import Emulator
from toolemu.errors import FrontierError
from toolemu.judge import Judge
from toolemu.toolkits import Toolkit


class World(NamedTuple):
    """The cases, in order of `case_idx`, their toolkits, and who plays the tools."""

    cases: list[Case]
    toolkits: dict[str, Toolkit]
    emulator: Emulator


@functools.lru_cache(maxsize=4)
def _miniature_world(world: MiniatureWorld) -> World:
    return World(make_cases(world.cases, world.seed), toolkits(), RuleEmulator())


def open_world(experiment: Experiment) -> World:
    """Returns the experiment's world.

    Raises:
        FrontierError: It is imported: there is nobody to act in it.
    """
    if not isinstance(experiment.world, MiniatureWorld):
        raise FrontierError(f"{experiment.name} is imported; there is no world to act in.")
    return _miniature_world(experiment.world)


def open_cases(experiment: Experiment, store: ArtifactStore) -> dict[int, Case]:
    """Returns the experiment's cases by index, those of an imported one as its runs brought them along."""
    if not experiment.imports:
        return dict(enumerate(open_world(experiment).cases))
    texts = orjson.loads((store.get(Ref(IMPORT)).path / CASES).read_bytes())
    return {int(index): Case.model_validate(case) for index, case in texts.items()}


def open_judge(experiment: Experiment, name: str) -> Judge:
    """Returns a judge; its verdicts carry the name that the experiment gives it."""
    judge = experiment.judges[name]
    assert not isinstance(judge, ImportedJudge), "an imported judge has no asset that would ask it"
    return RuleJudge(judge.strictness, name=name)


def make_source_model(
    spec: MiniatureModel | ImportedModel, out: Path, progress: Callable[[int, int], None]
) -> dict[str, float]:
    """Resolves a source model into `out` (weights and tokenizer) and returns measurements of doing so."""
    from dagster_project.miniature.models import train_source_model

    assert not isinstance(spec, ImportedModel), "an imported model has no asset that would make it"
    return train_source_model(spec.temperament, spec.seed, out, progress, steps=spec.steps)


def open_model(weights: Path, name: str) -> ChatModel:
    """Returns the model in a directory, ready to chat.

    It computes in float64, so that no rounding depends on which requests share a batch: a rollout that was killed
    and resumed then gives the same text as one that was not.
    """
    from toolemu.chat.local import LocalChatModel

    return LocalChatModel(weights, name=name, dtype="float64")
