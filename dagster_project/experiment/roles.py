"""Language models in roles of the experiment file, and the emulator with its world. Agents are plain models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dagster_project.experiment.casefiles import SHIPPED_CASES, SHIPPED_TOOLKITS, read_case_files
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.lm_emulator import EmulatorSettings


class Role(OpenAIModelSettings):
    """A model in a role that has a temperature and a limit of its own."""

    def chat(self) -> OpenAIModelSettings:
        """Returns the model without what is the role's."""
        values = {name: getattr(self, name) for name in OpenAIModelSettings.model_fields}
        return OpenAIModelSettings(**{**values, "kind": "openai", "temperature": None})


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


class EmulatedWorld(BaseModel):
    """Cases from files, in environments that a language model emulates."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["emulated"]
    cases: int = Field(
        ge=2, description="How many, or which (72-143, the first is 0); left out: all. Half of them are held out."
    )
    first: int = Field(0, ge=0, description="Where they begin in the files; computed from `cases: 72-143`.")
    case_files: Path = Field(SHIPPED_CASES, exclude=True, description="File or folder; left out: those shipped.")
    toolkit_files: Path = Field(SHIPPED_TOOLKITS, exclude=True, description="File or folder; left out: those shipped.")
    sha256: str = Field(description="Of cases and toolkits; computed, never in the file.")
    emulator: LMEmulatorRole

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "sha256" in value:
            raise ValueError("sha256 is computed; leave it out")
        given = (value.get("case_files", SHIPPED_CASES), value.get("toolkit_files", SHIPPED_TOOLKITS))
        if not all(isinstance(path, str | Path) for path in given):
            raise ValueError("case_files and toolkit_files are paths")
        paths = Path(given[0]), Path(given[1])
        found = read_case_files(*paths)
        first, asked = value.get("first", 0), value.get("cases", len(found.cases))
        if isinstance(asked, str):
            first, asked = parse_range(asked)
        if isinstance(asked, int) and isinstance(first, int) and first + asked > len(found.cases):
            which = f"{first}-{first + asked - 1}" if first else f"{asked}"
            raise ValueError(f"cases asks for {which}, but there are {len(found.cases)} in {paths[0].name}")
        return {**value, "first": first, "cases": asked, "sha256": found.sha256}
