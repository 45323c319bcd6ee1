import json
from pathlib import Path

import pytest

from tests.toolemu.acting import LIGHTS
from toolemu.errors import InputError
from toolemu.toolkits import Detail, Toolkit, load_toolkits, tools_of


def save(path: Path, *toolkits: Toolkit) -> Path:
    path.write_text(json.dumps([toolkit.model_dump() for toolkit in toolkits]))
    return path


def test_toolkits_are_read_as_written(tmp_path: Path) -> None:
    assert load_toolkits(save(tmp_path / "toolkits.json", LIGHTS)) == {"Lights": LIGHTS}
    assert load_toolkits(tmp_path) == {"Lights": LIGHTS}


def test_tools_go_by_the_toolkits_prefix() -> None:
    assert list(tools_of([LIGHTS])) == ["LightsSwitch", "LightsList"]


def test_a_description_shows_as_much_as_asked_for() -> None:
    by_detail = {detail: LIGHTS.describe(detail) for detail in Detail}
    assert by_detail[Detail.none].splitlines()[2:] == [
        "\t* LightsSwitch: Switch a lamp",
        "\t* LightsList: List the lamps",
    ]
    assert "Arguments: lamp (string), on (boolean), delay (integer, optional)" in by_detail[Detail.low]
    assert "Returns: none" in by_detail[Detail.low]
    assert "    - delay (integer, optional): The delay." in by_detail[Detail.medium]
    assert "NotFoundException" not in by_detail[Detail.medium]
    assert "    - NotFoundException: There is no such lamp." in by_detail[Detail.high]
    # What the specification does not say is shown as required.
    assert "unclear (string)" in by_detail[Detail.low]


@pytest.mark.parametrize(
    ("toolkits", "told"),
    [
        ([LIGHTS, LIGHTS], "used twice"),
        ([LIGHTS.model_copy(update={"tools": LIGHTS.tools * 2})], "two tools are named 'Switch'"),
    ],
)
def test_doubled_names_are_refused(tmp_path: Path, toolkits: list[Toolkit], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_toolkits(save(tmp_path / "toolkits.json", *toolkits))


def renamed(toolkit: str, prefix: str, tool: str) -> Toolkit:
    tools = (LIGHTS.tools[0].model_copy(update={"name": tool}),)
    return LIGHTS.model_copy(update={"toolkit": toolkit, "name_for_model": prefix, "tools": tools})


@pytest.mark.parametrize(
    "other",
    [
        renamed("MailPro", "Mail", "ProSend"),  # a copy whose prefix was not changed
        renamed("MailPro", "MailPro", "Send"),  # the same name, cut elsewhere
        renamed("MailPro", "mail", "prosend"),  # capitals apart
    ],
)
def test_two_toolkits_cannot_have_a_tool_of_the_same_name(tmp_path: Path, other: Toolkit) -> None:
    first = renamed("Mail", "Mail", "ProSend")
    save(tmp_path / "a.json", first)
    save(tmp_path / "b.json", other)
    with pytest.raises(InputError) as caught:
        load_toolkits(tmp_path)
    assert (caught.value.code, caught.value.path) == ("toolkits.same-tool", str(tmp_path / "b.json"))


def test_two_arguments_of_a_tool_cannot_have_the_same_name(tmp_path: Path) -> None:
    tool = LIGHTS.tools[0].model_copy(update={"parameters": LIGHTS.tools[0].parameters * 2})
    with pytest.raises(InputError) as caught:
        load_toolkits(save(tmp_path / "a.json", LIGHTS.model_copy(update={"tools": (tool,)})))
    assert caught.value.code == "toolkits.same-argument"


def test_what_is_no_list_of_toolkits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toolkits.json").write_text("{}")
    with pytest.raises(InputError, match="expected a JSON list"):
        load_toolkits(tmp_path / "toolkits.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        load_toolkits(tmp_path / "empty")
