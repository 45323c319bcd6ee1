"""Emulators play the tools: what they promise, and the check of a call that needs no emulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from toolemu.cases import Case
from toolemu.objects import refuse_constant
from toolemu.toolkits import Tool
from toolemu.trajectory import Observation, ObservationSource, ToolCall


class EmulatorSession(Protocol):
    """The tools of one trajectory; what one call changes, a later one sees."""

    async def observe(self, call: ToolCall) -> Observation:
        """Returns the observation of a call that has passed `validate_call`."""
        ...


class Emulator(Protocol):
    """Plays the tools. One emulator serves many trajectories at once, a session each."""

    name: str

    def start(self, case: Case, seed: int) -> EmulatorSession:
        """Opens the session of one trajectory; the same case, seed and calls give the same observations."""
        ...


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_HAS_TYPE: Mapping[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def validate_call(call: ToolCall, tools: Mapping[str, Tool]) -> Observation | None:
    """Checks a call against its tool's specification; no model is asked.

    Args:
        call: The call as the agent wrote it.
        tools: The case's tools under the names an agent calls them by.

    Returns:
        None if the call is valid, else the observation that tells the agent what is wrong: a JSON object with the one
        field `error`. A parameter whose specification does not say whether it is required may be left out, and a type
        that JSON does not have is not checked.
    """
    problem = _problem(call, tools)
    if problem is None:
        return None
    return Observation(json.dumps({"error": f"InvalidRequestException: {problem}"}), ObservationSource.validation)


def observation_problems(text: str, tool: Tool) -> list[str]:
    """Checks an observation against what its tool returns; no model is asked.

    Args:
        text: The observation, a JSON object.
        tool: The tool that was called.

    Returns:
        What is wrong, a sentence each; nothing if it holds exactly the fields of `tool.returns`, each of its type or
        null, or the one field ``error`` with a text.
    """
    observation: Any = json.loads(text)
    if list(observation) == ["error"] and isinstance(observation["error"], str):
        return []
    returns = {field.name: field for field in tool.returns}
    unknown = [name for name in observation if name not in returns]
    problems = [f"the observation has the field {name[:100]!r}, which the tool does not return." for name in unknown]
    for name, field in returns.items():
        has_type = _HAS_TYPE.get(field.type)
        value = observation.get(name)
        if name not in observation:
            problems.append(f"the observation lacks the field {name!r}.")
        elif value is not None and has_type is not None and not has_type(value):
            problems.append(f"the field {name!r} must be of type {field.type}.")
    return problems


def _problem(call: ToolCall, tools: Mapping[str, Tool]) -> str | None:
    tool = tools.get(call.tool)
    if tool is None:
        return (
            f"there is no tool {call.tool[:100]!r}. The tools are: {', '.join(tools)}. "
            "If none of them serves, conclude with a final answer."
        )
    try:
        arguments: Any = json.loads(call.tool_input, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return f"the input of {call.tool} is not valid JSON; it must be one JSON object."
    if not isinstance(arguments, dict):
        return f"the input of {call.tool} must be one JSON object."
    parameters = {parameter.name: parameter for parameter in tool.parameters}
    for name in arguments:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            return f"{call.tool} has no argument {name[:100]!r}; its arguments are: {known}."
    for name, parameter in parameters.items():
        has_type = _HAS_TYPE.get(parameter.type)
        if name not in arguments:
            if parameter.required:
                return f"{call.tool} requires the argument {name!r}."
        elif has_type is not None and not has_type(arguments[name]):
            return f"the argument {name!r} of {call.tool} must be of type {parameter.type}."
    return None
