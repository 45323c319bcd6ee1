import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolemu.thinking import is_thinking, split_thinking, strip_thinking


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("<think>a</think>b", "b"),
        ("a<think>b", "a"),
        ("a</think>b", "b"),
        ("<think>a<think>b</think>c", "c"),
        ("<think>a</think>b</think>c", "bc"),
        ("<THINK>a</Think>b", "b"),
        ("", ""),
        ("Final Answer: draft</think>Final Answer: x", "Final Answer: x"),
        ("<think>Final Answer: draft</think>Thought: y<think>z</think>", "Thought: y"),
    ],
)
def test_thinking_blocks_go_whether_closed_opened_or_not(text: str, spoken: str) -> None:
    assert strip_thinking(text) == spoken


@pytest.mark.parametrize(
    "text",
    [
        'Action: Foo\nAction Input: {"text": "<think>a</think>"}',
        "Action: Foo\nAction Input: {'text': 'a </think> b'}",
        'Action: Foo\nAction Input: "{\\"text\\": \\"<think>\\"}"',
        "Final Answer: The tag <think> begins it.",
        "Final Answer: It ends with </think>.",
        "Final Answer: <think>a</think>\n<think>b",
        '{"thought": "It wrote <think> twice: <think>", "score": 1}',
        'Action: Foo\nAction Input: {"text": "<think> and',
    ],
)
def test_a_tag_that_is_part_of_what_is_said_is_kept(text: str) -> None:
    assert strip_thinking(text) == text
    assert split_thinking(text) == ("", text)
    assert not is_thinking(text)
    assert split_thinking(f"<think>\nhm\n</think>\n{text}") == ("hm", text)


@given(st.text(), st.text(alphabet="<>/think{}\"'\\ \n"), st.text())
def test_objects_keep_their_text(before: str, content: str, thought: str) -> None:
    written = json.dumps({"a": content, "b": "<think>"})
    thought = thought.replace("</think>", "")
    assert strip_thinking(f"<think>{thought}</think>{written}") == written


def test_an_open_thinking_block_is_noticed() -> None:
    assert is_thinking("<think>hm")
    assert not is_thinking("<think>hm</think>")
    assert not is_thinking("hm")
