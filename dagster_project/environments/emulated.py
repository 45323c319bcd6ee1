"""Cases from files, in environments that a language model emulates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from dagster_project.environments.kind import EmulatorTools, EnvironmentKind, World
from dagster_project.experiment.casefiles import SHIPPED_CASES, SHIPPED_TOOLKITS, read_case_files
from dagster_project.experiment.places import located
from dagster_project.experiment.roles import Role
from toolemu.chat import ChatRequest
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.emulator import Emulator
from toolemu.errors import InputError
from toolemu.lm_emulator import EmulatorSettings, LMEmulator
from toolemu.prompts import EmulatorPrompt


class LMEmulatorRole(Role):
    """A language model that plays the tools."""

    style: str = Field(
        "adversarial",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Its prompt: standard, adversarial, or one of prompts_dir.",
    )
    max_revisions: int = Field(2, ge=0, description="How often an observation that breaks the specification is redone.")

    def settings(self) -> EmulatorSettings:
        """Returns how it is asked."""
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in given.items() if value is not None}
        return EmulatorSettings.model_validate({"style": self.style, "max_revisions": self.max_revisions, **given})


def parse_range(text: str) -> tuple[int, int]:
    """Returns the first case of a range like ``72-143`` and how many there are.

    Raises:
        ValueError: It is none.
    """
    first, dash, last = text.partition("-")
    if not (dash and first.strip().isdecimal() and last.strip().isdecimal() and int(first) <= int(last)):
        raise ValueError(f"{text!r} is no range of cases; give it as 72-143, counted from 0, both ends included")
    return int(first), int(last) - int(first) + 1


_SHIPPED = {"toolkit_files": SHIPPED_TOOLKITS, "case_files": SHIPPED_CASES}


class EmulatedWorld(EnvironmentKind):
    """Cases from files, in environments that a language model emulates."""

    kind: Literal["emulated"]
    cases: int = Field(
        ge=2,
        description="How many, or which (72-143, the first is 0); left out: all. Half of them are held out.",
    )
    first: int = Field(0, ge=0, description="Where they begin in the files; computed from `cases: 72-143`.")
    case_files: Path = Field(SHIPPED_CASES, exclude=True, description="File or folder; left out: those shipped.")
    toolkit_files: Path = Field(SHIPPED_TOOLKITS, exclude=True, description="File or folder; left out: those shipped.")
    sha256: str = Field(description="Of cases and toolkits; computed, never in the file.")
    emulator: LMEmulatorRole

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        if "sha256" in value:
            raise ValueError("sha256 is computed; leave it out")
        given = {name: value.get(name, shipped) for name, shipped in _SHIPPED.items()}
        if not all(isinstance(path, str | Path) for path in given.values()):
            raise ValueError("case_files and toolkit_files are paths")
        paths = {name: located(info, f"world.{name}", path) for name, path in given.items()}
        found = read_case_files(**paths)
        first, asked = value.get("first", 0), value.get("cases", len(found.cases))
        if isinstance(asked, str):
            first, asked = parse_range(asked)
        if isinstance(asked, int) and isinstance(first, int) and first + asked > len(found.cases):
            which = f"{first}-{first + asked - 1}" if first else f"{asked}"
            raise ValueError(f"cases asks for {which}, but there are {len(found.cases)} in {paths['case_files'].name}")
        return {**value, **paths, "first": first, "cases": asked, "sha256": found.sha256}

    @property
    def role(self) -> OpenAIModelSettings:
        """The model that plays the tools."""
        return self.emulator

    def code_version(self, prompts_dir: Path | None) -> str:
        """Return the version of the emulator's prompt, by its text."""
        return self.prompt(prompts_dir).version

    def prompt(self, prompts_dir: Path | None) -> EmulatorPrompt:
        """Return the emulator's prompt."""
        return EmulatorPrompt(self.emulator.style, prompts_dir)

    def sample_request(self) -> ChatRequest:
        """Return a request as the emulator sends them, without messages."""
        settings = self.emulator.settings()
        return ChatRequest((), temperature=settings.temperature, max_tokens=settings.max_tokens)

    def files(self) -> tuple[Path, Path]:
        """Return its files of cases and of toolkits."""
        return self.case_files, self.toolkit_files

    def on_cases(self, first: int, count: int) -> Self:
        """Return the environment with `count` of its cases, from `first` (0 …)."""
        return self.model_copy(update={"first": self.first + first, "cases": count})

    def open(self) -> World:
        """Return cases and toolkits.

        Raises:
            InputError: The files changed since the experiment was loaded.
        """
        found = read_case_files(self.case_files, self.toolkit_files)
        if found.sha256 != self.sha256:
            problem = "cases or toolkits changed while the experiment ran."
            raise InputError(self.case_files, "", problem, "Run it again.", code="world.changed")
        return World(found.cases[self.first : self.first + self.cases], found.toolkits)

    def open_emulator(self, tools: EmulatorTools) -> Emulator:
        """Return the language model that plays the tools."""
        name = self.emulator.model or self.emulator.endpoint
        model = tools.chat(self.emulator.chat(), name)
        return LMEmulator(name, model, self.open().toolkits, self.emulator.settings(), tools.prompts_dir)
