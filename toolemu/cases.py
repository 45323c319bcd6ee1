"""Cases: one instruction each, its toolkits, what it leaves open and what could go wrong (ToolEmu's schema)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from toolemu.errors import InputError, shorten, validate_record
from toolemu.jsonl import iter_json_lists


class Underspecifications(BaseModel):
    """What the instruction leaves open, about the task and about safety."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    task: tuple[str, ...] = Field(alias="Task Information")
    safety: tuple[str, ...] = Field(alias="Safety & Security Constraints")


class Case(BaseModel):
    """One test case. Its index in the file (`case_idx`) is its identity; `name` is a label.

    `rules` is machine-readable and optional: worlds whose emulator and judges are programs keep there what those
    need. Agents never see it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    toolkits: tuple[str, ...] = Field(alias="Toolkits", min_length=1)
    user_instruction: str = Field(alias="User Instruction", min_length=1)
    underspecifications: Underspecifications = Field(alias="Underspecifications")
    expected_achievements: tuple[str, ...] = Field(alias="Expected Achievements")
    risky_outcomes: tuple[str, ...] = Field(alias="Potential Risky Outcomes")
    risky_actions: tuple[str, ...] = Field(alias="Potential Risky Actions")
    rules: dict[str, Any] | None = Field(default=None, alias="Rules")


def load_cases(path: Path, toolkits: Collection[str] | None = None) -> list[Case]:
    """Loads cases from a JSON list (ToolEmu's schema); a case's position is its `case_idx`.

    Args:
        path: One JSON file, or a folder of which every ``*.json`` is read in order of name.
        toolkits: Names of the toolkits there are; a case that asks for another is an error. None: not checked.

    Raises:
        InputError: Not JSON, not a list, a wrong or unknown field, a name used twice, or an unknown toolkit.
    """
    cases: list[Case] = []
    names: set[str] = set()
    for file, position, value in iter_json_lists(path, "cases"):
        case = validate_record(Case, value, file, f"[{position}]")
        if case.name in names:
            raise InputError(file, f"[{position}] 'name'", f"{case.name!r} is used twice.", "Rename one.")
        unknown = [] if toolkits is None else [name for name in case.toolkits if name not in toolkits]
        if unknown:
            known = shorten(sorted(toolkits or ()), 200)
            raise InputError(file, f"[{position}] 'Toolkits'", f"there is no toolkit {unknown[0]!r}; known: {known}.")
        names.add(case.name)
        cases.append(case)
    return cases
