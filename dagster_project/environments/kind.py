"""The base of all kinds of environments: where cases come from, and who plays the tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from dagster_project.experiment.casefiles import SHIPPED_CASES, SHIPPED_TOOLKITS
from dagster_project.kinds import PYTHON, source_version
from toolemu.cases import Case
from toolemu.chat import ChatModel, ChatRequest
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.emulator import Emulator
from toolemu.prompts import EmulatorPrompt
from toolemu.toolkits import Toolkit

MAX_CASES = 100_000


class World(NamedTuple):
    """The cases, in order of `case_idx`, and their toolkits."""

    cases: list[Case]
    toolkits: Mapping[str, Toolkit]


class EmulatorTools(NamedTuple):
    """What an emulator can use while it is open.

    Attributes:
        prompts_dir: Templates that replace the shipped ones; None for none.
        chat: Opens a model behind an endpoint by its settings and name. Its replies are kept, and its tokens counted.
    """

    prompts_dir: Path | None
    chat: Callable[[OpenAIModelSettings, str], ChatModel]


class EnvironmentKind(BaseModel):
    """One kind of environment. Derive from it, add fields, and override what differs.

    Attributes:
        imported: Whether trajectories in it are imported, so that no agent can act here.
        open_ended: Whether there are as many cases as one asks for, as where they are generated.
        kind: The word in the experiment file.
        cases: How many cases there are. Half of them are held out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    imported: ClassVar[bool] = False
    open_ended: ClassVar[bool] = False

    kind: str
    cases: int

    @property
    def role(self) -> OpenAIModelSettings | None:
        """The model behind an endpoint that plays the tools; None if none does."""
        return None

    def code_version(self, prompts_dir: Path | None) -> str:
        """Return the version of what decides an observation besides the fields; change it when the meaning changes.

        By default that is a hash of the source of a class that the experiment file names by `kind: python`.
        """
        return source_version(type(self)) if self.kind == PYTHON else ""

    def prompt(self, prompts_dir: Path | None) -> EmulatorPrompt | None:
        """Return the prompt by which costs are estimated; None if no model plays the tools."""
        return None

    def sample_request(self) -> ChatRequest | None:
        """Return a request as the emulator sends them, without messages; None if no model plays the tools."""
        return None

    def on_cases(self, first: int, count: int) -> Self | None:
        """Return the environment with `count` of its cases, from `first` (0 …); None if it cannot be divided so."""
        return None

    def pilot(self, count: int) -> Self:
        """Return the environment with its first `count` cases, or with all if it has fewer."""
        return self.model_copy(update={"cases": count if self.open_ended else min(count, self.cases)})

    def files(self) -> tuple[Path, Path]:
        """Return the files of cases and of toolkits that new ones must differ from; by default those shipped."""
        return SHIPPED_CASES, SHIPPED_TOOLKITS

    def open(self) -> World:
        """Return cases and toolkits.

        Raises:
            FrontierError: They cannot be had.
        """
        raise NotImplementedError(f"{type(self).__name__} has no cases to act on")

    def open_emulator(self, tools: EmulatorTools) -> Emulator:
        """Return who plays the tools."""
        raise NotImplementedError(f"nobody can act in {type(self).__name__}")
