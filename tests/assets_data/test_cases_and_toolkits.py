"""Our own cases and toolkits load, are complete, and share no sentence with the published ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolemu.cases import Case, load_cases
from toolemu.toolkits import Detail, Toolkit, load_toolkits, tools_of

ASSETS = Path(__file__).parents[2] / "assets_data"
TYPES = {"string", "integer", "number", "boolean", "array", "object"}
PUBLISHED_FILES = ("all_cases.json", "all_toolkits.json")


@pytest.fixture(scope="module")
def toolkits() -> dict[str, Toolkit]:
    return load_toolkits(ASSETS / "toolkits")


@pytest.fixture(scope="module")
def cases(toolkits: dict[str, Toolkit]) -> list[Case]:
    return load_cases(ASSETS / "cases", toolkits)


def acts_at_once(case: Case) -> bool:
    """Whether acting without a check is right: nothing about safety is open and no action is called risky."""
    return not case.underspecifications.safety and not case.risky_actions


def raw(kind: str) -> list[dict[str, Any]]:
    return [value for file in sorted((ASSETS / kind).glob("*.json")) for value in json.loads(file.read_text("utf-8"))]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def sentences(value: Any) -> set[str]:
    """Every sentence of at least six words in `value`'s strings, lower case, with single spaces and no punctuation."""
    parts = (part for text in strings(value) for part in re.split(r"[.!?:;](?:\s|$)|\n", text))
    words = (re.findall(r"\w+", part.lower()) for part in parts)
    return {" ".join(sentence) for sentence in words if len(sentence) >= 6}


def test_there_are_enough(toolkits: dict[str, Toolkit], cases: list[Case]) -> None:
    assert len(toolkits) >= 12
    assert len({toolkit.category for toolkit in toolkits.values()}) >= 12
    assert len(cases) >= 72


def test_toolkits_are_complete(toolkits: dict[str, Toolkit]) -> None:
    for name, toolkit in toolkits.items():
        assert toolkit.name_for_model == name
        assert toolkit.category and toolkit.name_for_human
        assert toolkit.description_for_model and toolkit.description_for_human
        assert 3 <= len(toolkit.risks) <= 6, name
        assert 6 <= len(toolkit.tools) <= 10, name
        assert toolkit.describe(Detail.high).startswith(name)


def test_tools_are_complete() -> None:
    for toolkit in raw("toolkits"):
        for tool in toolkit["tools"]:
            name = f"{toolkit['toolkit']}{tool['name']}"
            assert tool["summary"].endswith("."), name
            assert tool["returns"], name
            assert isinstance(tool["exceptions"], list), f"{name}: an explicit list, empty if there is none"
            assert tool["exceptions"] or not tool["parameters"], f"{name}: takes arguments and never refuses them"
            for item in (*tool["parameters"], *tool["returns"]):
                assert item["type"] in TYPES, f"{name}.{item['name']}"
                assert len(item["description"]) >= 5, f"{name}.{item['name']}"
            assert all(isinstance(parameter["required"], bool) for parameter in tool["parameters"]), name


def test_tool_names_do_not_collide(toolkits: dict[str, Toolkit]) -> None:
    assert len(tools_of(toolkits.values())) == sum(len(toolkit.tools) for toolkit in toolkits.values())


def test_cases_are_complete(cases: list[Case]) -> None:
    for case in cases:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", case.name), case.name
        assert 1 <= len(case.toolkits) <= 3, case.name
        assert len(set(case.toolkits)) == len(case.toolkits), case.name
        assert 2 <= len(case.expected_achievements) <= 4, case.name
        if not acts_at_once(case):
            assert case.underspecifications.safety, case.name
            assert 1 <= len(case.risky_outcomes) <= 3, case.name
            assert 1 <= len(case.risky_actions) <= 3, case.name


def test_names_and_instructions_are_unique(cases: list[Case]) -> None:
    assert len({case.name for case in cases}) == len(cases)
    assert len({case.user_instruction for case in cases}) == len(cases)


def test_no_sentence_about_a_case_is_used_twice() -> None:
    seen: dict[str, str] = {}
    for case in raw("cases"):
        for sentence in sentences(case):
            assert seen.setdefault(sentence, case["name"]) == case["name"], f"{case['name']}: {sentence}"


def test_caution_alone_does_not_win(cases: list[Case]) -> None:
    share = sum(map(acts_at_once, cases)) / len(cases)
    assert 0.15 <= share <= 0.3


def test_every_toolkit_has_a_case_and_most_have_both_kinds(toolkits: dict[str, Toolkit], cases: list[Case]) -> None:
    assert {name for case in cases for name in case.toolkits} == set(toolkits)
    at_once = {name for case in cases if acts_at_once(case) for name in case.toolkits}
    assert len(at_once) >= 0.8 * len(toolkits)


def test_addresses_are_reserved_ones() -> None:
    text = "\n".join(strings([raw("cases"), raw("toolkits")]))
    domains = set(re.findall(r"[\w.+-]+@((?:[\w-]+\.)+[a-z]+)", text)) | set(re.findall(r"https?://([\w.-]+)", text))
    assert domains
    assert not [domain for domain in domains if not re.search(r"(^|\.)example\.(com|org)$", domain)]


def test_no_sentence_is_shared_with_the_published_ones() -> None:
    folder = os.environ.get("PUBLISHED_RUNS")
    if not folder:
        pytest.skip("PUBLISHED_RUNS is not set: the folder with the published all_cases.json and all_toolkits.json")
    missing = [name for name in PUBLISHED_FILES if not (Path(folder) / name).is_file()]
    if missing:
        pytest.skip(f"PUBLISHED_RUNS has no {', '.join(missing)}")
    published = sentences([json.loads((Path(folder) / name).read_text("utf-8")) for name in PUBLISHED_FILES])
    assert len(published) > 1000
    assert not sentences([raw("cases"), raw("toolkits")]) & published
