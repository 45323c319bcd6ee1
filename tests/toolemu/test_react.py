import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolemu.react import (
    STOP_SEQUENCES,
    Action,
    Final,
    Unparseable,
    cut_at_observation,
    is_thinking,
    parse_turn,
    render_final,
    render_turn,
    strip_thinking,
)

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="<:"), max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
# Pieces that make a turn, in any order: what a confused model writes.
PIECES = st.lists(
    st.sampled_from(
        [
            "Thought: ", "Action: ", "Action: LightsList\n", "Action Input: ", "Final Answer: ", "Observation: ", "{",
            "}", '{"a": 1}', '"', "\\", "```json\n", "```", "<think>", "</think>", "\n", "\n\n", " ", "True", "é",
        ]
    )
    | st.text(max_size=5),
    max_size=30,
).map("".join)  # fmt: skip


def action(text: str, **options: bool) -> Action:
    turn = parse_turn(text, **options)
    assert isinstance(turn, Action), turn
    return turn


@given(WORDS, NAMES, OBJECTS)
def test_a_rendered_call_is_read_back(thought: str, tool: str, value: dict[str, object]) -> None:
    tool_input = json.dumps(value)
    turn = action(render_turn(thought.strip(), tool, tool_input))
    assert (turn.thought, turn.tool, turn.tool_input, turn.complete) == (thought.strip(), tool, tool_input, True)


@given(WORDS, WORDS)
def test_a_rendered_answer_is_read_back(thought: str, answer: str) -> None:
    assert parse_turn(render_final(thought.strip(), answer.strip())) == Final(thought.strip(), answer.strip())


@given(NAMES, OBJECTS, st.sampled_from(["", "\n", "```", " and more", "\n\nThat is all.", "\nThought: {"]))
def test_what_follows_the_object_does_not_matter(tool: str, value: dict[str, object], rest: str) -> None:
    turn = action(f"Action: {tool}\nAction Input: {json.dumps(value)}{rest}")
    assert json.loads(turn.tool_input) == value


@given(PIECES)
def test_any_text_is_read_without_fault_and_cut_within_itself(text: str) -> None:
    turn = parse_turn(text)
    assert isinstance(turn, Action | Final | Unparseable)
    if isinstance(turn, Action):
        assert turn.tool
        assert 0 < turn.end <= len(text)
        if turn.complete:
            assert isinstance(json.loads(turn.tool_input), dict)
            assert parse_turn(text[: turn.end]) == turn
    parse_turn(text, final_anywhere=True)
    cut = cut_at_observation(text)
    assert text.startswith(cut.kept)
    assert cut.self_observed == (cut.kept != text)
    assert not cut_at_observation(cut.kept).self_observed


@given(PIECES)
def test_thinking_is_no_part_of_a_turn(text: str) -> None:
    assert parse_turn(f"<think>Final Answer: no\n{text.replace('</think>', '')}") == parse_turn("<think>")
    assert "<think>" not in strip_thinking(text).lower()


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
    ],
)
def test_thinking_blocks_go_whether_closed_opened_or_not(text: str, spoken: str) -> None:
    assert strip_thinking(text) == spoken


def test_an_open_thinking_block_is_noticed() -> None:
    assert is_thinking("<think>hm")
    assert not is_thinking("<think>hm</think>")
    assert not is_thinking("hm")


@pytest.mark.parametrize(
    "text",
    [
        'Action: Foo\nAction Input: {"a": 1}',
        '**Action:** `Foo`\n**Action Input:** {"a": 1}',
        '### Action: Foo\n### Action Input:\n```json\n{"a": 1}\n```',
        'Action: Foo.\nAction Input: `{"a": 1}`',
        'Thought: I do. Action: Foo\nAction Input: {"a": 1}',
        'Next Action: Foo\n\nAction Input: {"a": 1}',
        '<think>Action: Bar\nAction Input: {}</think>Action: Foo\nAction Input: {"a": 1}',
        'Final Answer: {"b"}</think>Action: Foo\nAction Input: {"a": 1}',
        'My Final Answer: later\nAction: Foo\nAction Input: {"a": 1}',
        'Action: Foo\nAction Input: {"a": 1}\nFinal Answer: done',
        'Action: Foo\nAction Input: {"a": 1}\nAction: Bar\nAction Input: {}',
        'Action: Foo\nAction Input: {"a": 1}\nObservation: ```json\n{"invented": true}\n```',
    ],
)
def test_the_first_call_outside_thinking_is_read(text: str) -> None:
    turn = action(text)
    assert (turn.tool, json.loads(turn.tool_input)) == ("Foo", {"a": 1})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('{"a": True, "b": None, "c": "True"}', {"a": True, "b": None, "c": "True"}),
        (r'{"a": "find -exec rm {} \;"}', {"a": "find -exec rm {} \\;"}),
        (r'{"a": "it\'s"}', {"a": "it's"}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('{"a": "} {", "b": {"c": [{}]}}', {"a": "} {", "b": {"c": [{}]}}),
    ],
)
def test_usual_slips_are_mended_into_strict_json(written: str, meant: dict[str, object]) -> None:
    turn = action(f"Action: Foo\nAction Input: {written} and so on")
    assert json.loads(turn.tool_input) == meant
    assert turn.end == len(f"Action: Foo\nAction Input: {written}")


@pytest.mark.parametrize(
    "written",
    ['{"a": 1', "a=1", '{"a": NaN}', '{"a": 1, // x\n}', "[1]", "None", '{"a":' * 3000, '{"a": ' + "1" * 5000],
)
def test_an_input_that_is_no_object_is_kept_for_the_validation_to_refuse(written: str) -> None:
    turn = action(f"Action: Foo\nAction Input: {written}\nThought: next")
    assert not turn.complete
    assert turn.tool_input == written


def test_of_action_and_answer_the_first_wins_unless_asked_otherwise() -> None:
    text = "Action: Foo\nAction Input: {}\nObservation: {}\nFinal Answer: one\nFinal Answer: two"
    assert action(text).tool == "Foo"
    assert parse_turn(text, final_anywhere=True) == Final(
        "Action: Foo\nAction Input: {}\nObservation: {}\nFinal Answer: one", "two"
    )
    assert parse_turn("Final Answer: one\nAction: Foo\nAction Input: {}") == Final(
        "", "one\nAction: Foo\nAction Input: {}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<think>Final Answer: x",
        "I can give no Final Answer: yet",
        "The final answer is 4",
        "Action: Foo",
        "Action Input: {}",
        "Action:\nAction Input: {}",
        "I use Action: Foo Action Input: {}",
        "Use the words Action: and so on\nAction Input: {}",
    ],
)
def test_a_turn_with_neither_is_unparseable_and_says_why(text: str) -> None:
    turn = parse_turn(text)
    assert isinstance(turn, Unparseable)
    assert turn.reason


@pytest.mark.parametrize(
    "line",
    ["Observation:", "**Observation:**", "observations :", "  ObservATION:", "### Observation:", "> Observation:"],
)
def test_a_self_written_observation_is_cut_off(line: str) -> None:
    assert cut_at_observation(f"Action: Foo\n{line} {{}}\nFinal Answer: x") == ("Action: Foo\n", True)


@pytest.mark.parametrize(
    "text", ["The Observation: is", "Observation of lamps", "<think>\nObservation: x</think>a", ""]
)
def test_other_observations_are_left_alone(text: str) -> None:
    assert cut_at_observation(text) == (text, False)


def test_every_stop_sequence_is_also_enforced() -> None:
    assert all(cut_at_observation(f"a{stop} x").self_observed for stop in STOP_SEQUENCES)


@pytest.mark.parametrize(
    "text",
    [
        " " * 300_000,
        "Action: a\nAction Input: {" + '\\"' * 150_000 + "\\",
        "Action: a\nAction Input: " + '{"a":' * 60_000,
        "Action Input:\n" * 30_000,
        "x Action: b" + " " * 300_000 + "\nAction Input: {}",
        "<think>" * 50_000,
        "</think>" * 50_000,
        "<think></think>" * 30_000,
    ],
)
def test_hostile_texts_are_read(text: str) -> None:
    # The whole suite has a time limit; quadratic scans of these would take minutes.
    parse_turn(text)
    parse_turn(text, final_anywhere=True)
    cut_at_observation(text)
    is_thinking(text)
