from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolemu.keywords import TURN, fold, keywords, parts

WORDS = keywords({"two": "First Second", "one": "First"}, objects=("two",), remarks=("one",))
CONTROL = "\r\v\f\x1c\x1d\x1e"


def read(text: str) -> list[tuple[str, str]]:
    return [(part.name, text[part.end :].strip()) for part in parts(text, WORDS)]


@pytest.mark.parametrize(
    "keyword",
    [
        "First Second:", "first_second :", "FIRST-SECOND：", "FirstSecond:", "**First Second**", "## First Second\n",
        "- **First\u00a0Second:**", "2. First Second:", "First Second\n", "\u2022 `First Second`:",
        "＃ Ｆｉｒｓｔ Second:",
    ],
)  # fmt: skip
def test_a_keyword_has_many_forms(keyword: str) -> None:
    assert read(f"Before.\n{keyword} x") == [("two", "x")]


@pytest.mark.parametrize("text", ["First and Second: x", "The First: x", "Firsts: x", "First x", "First", "Firstly: x"])
def test_other_words_are_none(text: str) -> None:
    assert read(text) == []


def test_remarks_and_numbers_are_read_where_they_are_allowed() -> None:
    assert read("First (0-3): x") == [("one", "x")]
    assert read("First Second (0-3): x") == []
    assert read("First 1: x") == []
    turn = "Action 1: a\nAction 1 Input: {}\nObservation #2 (made up): b"
    assert [part.name for part in parts(turn, TURN)] == ["action", "input", "observation"]


def test_nothing_inside_an_object_is_a_keyword() -> None:
    (part,) = parts("First Second: {'a': 'x\nFirst: y'}", WORDS)
    assert part.object is not None and part.object.complete


@given(st.text())
def test_folding_keeps_every_place(text: str) -> None:
    folded = fold(text)
    assert len(folded) == len(text)
    assert fold(folded) == folded
    for before, after in zip(text, folded, strict=True):
        assert before == after or not before.isascii() or before in CONTROL
