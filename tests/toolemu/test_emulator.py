import json

import pytest

from tests.toolemu.acting import TOOLS
from toolemu.emulator import validate_call
from toolemu.trajectory import ObservationSource, ToolCall


def problem(arguments: object, tool: str = "LightsSwitch") -> str:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    observation = validate_call(ToolCall(tool, text), TOOLS)
    assert observation is not None
    assert observation.source is ObservationSource.validation
    error = json.loads(observation.text)
    assert list(error) == ["error"]
    assert error["error"].startswith("InvalidRequestException: ")
    return error["error"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"delay": 3, "level": 0.5, "colours": ["red"], "options": {"a": 1}, "unclear": "x"},
        {"level": 2},
        {"odd": [1]},
    ],
)
def test_a_call_that_keeps_to_the_specification_passes(more: dict[str, object]) -> None:
    assert validate_call(ToolCall("LightsSwitch", json.dumps({"lamp": "a", "on": True, **more})), TOOLS) is None


def test_an_unknown_tool_is_answered_with_the_tools_there_are() -> None:
    assert "LightsList" in problem({}, tool='Switch "it"')


@pytest.mark.parametrize(
    "text", ["", "None", "{", "[1]", '"text"', '{"a": NaN}', '{"a":' * 5000, '{"a": ' + "9" * 5000 + "}"]
)
def test_an_input_that_is_no_json_object_is_refused(text: str) -> None:
    assert "JSON" in problem(text)


def test_unknown_and_missing_arguments_are_named() -> None:
    assert "'brightness'" in problem({"lamp": "a", "on": True, "brightness": 1})
    assert "'on'" in problem({"lamp": "a"})
    assert "none" in problem({"a": 1}, tool="LightsList")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lamp", 1),
        ("on", "yes"),
        ("on", 1),
        ("delay", True),
        ("delay", 1.5),
        ("level", "1"),
        ("level", False),
        ("colours", {}),
        ("options", []),
        ("unclear", None),
    ],
)
def test_a_wrong_type_is_refused(name: str, value: object) -> None:
    assert f"'{name}'" in problem({"lamp": "a", "on": True, name: value})
