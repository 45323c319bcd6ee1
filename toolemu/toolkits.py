"""Toolkits: the API specifications that an agent sees. Nothing behind them is real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from toolemu.errors import InputError, validate_record
from toolemu.jsonl import iter_json_lists


class Detail(StrEnum):
    """How much of a tool's specification a description shows."""

    none = "none"
    low = "low"
    medium = "medium"
    high = "high"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameter(_Record):
    """One argument of a tool. `required` is None where the specification does not say (shown as required)."""

    name: str
    type: str
    description: str
    required: bool | None = None


class Return(_Record):
    """One field of a tool's result object."""

    name: str
    type: str
    description: str


class ToolException(_Record):
    """One error a tool can answer with."""

    name: str
    description: str


class Tool(_Record):
    """One API of a toolkit; `name` is without the toolkit's prefix."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    returns: tuple[Return, ...]
    exceptions: tuple[ToolException, ...] = ()

    def describe(self, full_name: str, detail: Detail) -> str:
        """Returns the tool's description as the agent (medium), the emulator (low, high) or a judge (low) sees it."""
        lines = [f"{full_name}: {self.summary.rstrip('., ')}"]
        if detail is Detail.none:
            return lines[0]

        def typed(item: Parameter | Return) -> str:
            optional = isinstance(item, Parameter) and item.required is False
            return f"{item.name} ({item.type}{', optional' if optional else ''})"

        sections: list[tuple[str, tuple[Parameter, ...] | tuple[Return, ...]]] = [
            ("Arguments", self.parameters),
            ("Returns", self.returns),
        ]
        for title, items in sections:
            if detail is Detail.low:
                lines.append(f"  {title}: {', '.join(map(typed, items)) or 'none'}")
            else:
                lines.append(f"  {title}:" + ("" if items else " none"))
                lines.extend(f"    - {typed(item)}: {item.description}" for item in items)
        if detail is Detail.high:
            lines.append("  Exceptions:" + ("" if self.exceptions else " none"))
            lines.extend(f"    - {item.name}: {item.description}" for item in self.exceptions)
        return "\n".join(lines)


class Toolkit(_Record):
    """A named set of tools with what a model and a person are told about it."""

    toolkit: str
    category: str | None = None
    name_for_model: str
    name_for_human: str
    description_for_model: str
    description_for_human: str
    risks: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = Field(min_length=1)

    @cached_property
    def tools_by_name(self) -> Mapping[str, Tool]:
        """The tools under the names an agent calls them by: toolkit's prefix and tool's name."""
        return {f"{self.name_for_model}{tool.name}": tool for tool in self.tools}

    def describe(self, detail: Detail) -> str:
        """Returns the toolkit's description, one block a tool."""
        blocks = [tool.describe(name, detail) for name, tool in self.tools_by_name.items()]
        body = "\n".join("\t* " + block.replace("\n", "\n\t") for block in blocks)
        return f"{self.name_for_model}: {self.description_for_model}\nTool APIs:\n{body}"


def load_toolkits(path: Path) -> dict[str, Toolkit]:
    """Loads toolkits from a JSON list (ToolEmu's schema), keyed by `toolkit`.

    Args:
        path: One JSON file, or a folder of which every ``*.json`` is read.

    Raises:
        InputError: Not JSON, not a list, a wrong or unknown field, or a name used twice, also by two tools of different
            toolkits; names file and place.
    """
    toolkits: dict[str, Toolkit] = {}
    owners: dict[str, str] = {}
    for file, position, value in iter_json_lists(path, "toolkits"):
        toolkit = validate_record(Toolkit, value, file, f"[{position}]")
        if toolkit.toolkit in toolkits:
            raise InputError(file, f"[{position}] 'toolkit'", f"{toolkit.toolkit!r} is used twice.", "Rename one.")
        toolkits[toolkit.toolkit] = toolkit
        _check_tools(toolkit, owners, file, position)
    return toolkits


def _check_tools(toolkit: Toolkit, owners: dict[str, str], file: Path, position: int) -> None:
    """Add a toolkit's tools to `owners`, which maps the lower-case names that agents call them by to toolkits.

    Raises:
        InputError: Another tool has the name, or two arguments of one tool have the same; one of the two would be lost.
    """
    for tool in toolkit.tools:
        name = f"{toolkit.name_for_model}{tool.name}"
        owner = owners.setdefault(name.lower(), toolkit.toolkit)
        if owner != toolkit.toolkit:
            raise InputError(
                file,
                f"[{position}] 'tools'",
                f"agents would call a tool of {toolkit.toolkit!r} and one of {owner!r} by the same name, {name!r}.",
                "Change the `name_for_model` of one toolkit; it comes before the name of each of its tools.",
                code="toolkits.same-tool",
            )
        arguments = [parameter.name for parameter in tool.parameters]
        if len(set(arguments)) < len(arguments):
            problem = f"two arguments of {tool.name!r} have the same name."
            raise InputError(file, f"[{position}] 'tools'", problem, "Rename one.", code="toolkits.same-argument")
    names = Counter(tool.name.lower() for tool in toolkit.tools)
    doubled = [tool.name for tool in toolkit.tools if names[tool.name.lower()] > 1]
    if doubled:
        problem = f"two tools are named {doubled[0]!r}, capitals apart."
        raise InputError(file, f"[{position}] 'tools'", problem, "Rename one.", code="toolkits.same-tool")


def tools_of(toolkits: Iterable[Toolkit]) -> dict[str, Tool]:
    """Return every tool of `toolkits` under the name an agent calls it by."""
    return {name: tool for toolkit in toolkits for name, tool in toolkit.tools_by_name.items()}
