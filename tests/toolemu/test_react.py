import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolemu.react import (
    STOP_SEQUENCES,
    Action,
    Final,
    Unparseable,
    cut_at_observation,
    invents_observation,
    parse_turn,
    render_final,
    render_turn,
    without_leftover,
)
from toolemu.thinking import is_thinking, split_thinking, strip_thinking

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


# Lines of which a note, a report or a transcript may consist: as an argument or an answer, all of them are content.
LINES = st.lists(
    st.sampled_from(
        [
            "Observation: the pump failed", "### Observations:", "Observation 2：ok", "**Observation**", "Observation",
            '{"a": 1}', "Action: Foo", "Action Input: {}", "Thought: hm", "Final Answer: no", "<think>hm</think>",
            "<think>", "```", "it's", "a \"quoted\" word", "\\", "｛“x”｝", "User Input: more", "",
        ]
    ),
    min_size=1,
    max_size=6,
).map("\n".join)  # fmt: skip


@given(LINES, st.sampled_from(["", "Thought: I answer.\n", "<think>Final Answer: no</think>\n"]))
def test_an_answer_is_kept_whatever_its_lines_look_like(answer: str, before: str) -> None:
    text = f"{before}Final Answer: {answer}"
    cut = cut_at_observation(text)
    assert cut == (text, False)
    turn = parse_turn(cut.kept)
    assert isinstance(turn, Final)
    assert turn.answer == answer.strip()


def python(value: object) -> str:
    return repr(value)


def raw_lines(value: object) -> str:
    return json.dumps(value).replace("\\n", "\n")


def twice(value: object) -> str:
    return json.dumps(json.dumps(value))


@given(
    st.dictionaries(NAMES, LINES, min_size=1, max_size=3),
    st.sampled_from([json.dumps, raw_lines, python, twice]),
    st.sampled_from(
        ["Action Input: {}", "action_input:\n```python\n{}\n```", "ACTION INPUT 1： {}", "### Action Input\n{}"]
    ),
    st.sampled_from(["", "\nObservation 1: ok", "\n**Observation**\n{}\nFinal Answer: done"]),
)
def test_an_argument_is_kept_whatever_its_lines_look_like(
    value: dict[str, str], write: Callable[[object], str], form: str, invented: str
) -> None:
    text = f"Thought: I note it.\nAction: NotesWrite\n{form.replace('{}', write(value))}"
    cut = cut_at_observation(text + invented)
    turn = action(cut.kept)
    assert (turn.tool, json.loads(turn.tool_input)) == ("NotesWrite", value)
    assert cut.self_observed == bool(invented)
    assert strip_thinking(cut.kept) == cut.kept


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
        'thought: I do\naction: Foo\naction input: {"a": 1}',
        'ACTION: Foo\nACTION_INPUT: {"a": 1}',
        'Action\u00a0: Foo\nAction\u00a0Input: {"a": 1}',
        'Action：Foo\nAction\u3000Input：｛"a"：1｝',
        'Thought 1: I do\nAction 1: Foo\nAction Input 1: {"a": 1}',
        'Action #2: Foo\nAction 2 Input: {"a": 1}',
        '## Action\nFoo\n## Action Input\n```json\n{"a": 1}\n```',
        '**Action** Foo\n**Action Input** {"a": 1}',
        'ActionInput: {"a": 0}\nAction: Foo\nAction Input {"a": 1}',
        'Action: Foo\r\nAction Input: {"a": 1}\r\n',
        'Action: Foo\rAction Input: {"a": 1}',
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
        ("{'a': 'it\\'s', 'b': [True,],}", {"a": "it's", "b": [True]}),
        ("{a: 1, // one\n b-c: /* two */ 2}", {"a": 1, "b-c": 2}),
        ("“{“a”: “x”}”", {"a": "x"}),
    ],
)
def test_usual_slips_are_mended_into_strict_json(written: str, meant: dict[str, object]) -> None:
    turn = action(f"Action: Foo\nAction Input: {written} and so on")
    assert json.loads(turn.tool_input) == meant
    assert turn.end == len(f"Action: Foo\nAction Input: {written}")


@pytest.mark.parametrize(
    "written",
    ['{"a": 1', "a=1", '{"a": NaN}', '{"a": 1, "b" 2}', "[1]", "None", '{"a":' * 3000, '{"a": ' + "1" * 5000],
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
    [
        "Observation:",
        "**Observation:**",
        "observations :",
        "  ObservATION:",
        "### Observation:",
        "> Observation:",
        "Observation 1:",
        "Observation #12 :",
        "Observation：",
        "Observation\uff1a",
        "\u00a0Observation\u2009:",
        "**Observation** (hypothetical):",
        "## Observation\n",
        "Observation\n",
        "OBSERVATION_2:",
        "1. Observation:",
        "Ｏｂｓｅｒｖａｔｉｏｎ：",
        "• Observation:",
    ],
)
def test_a_self_written_observation_is_cut_off(line: str) -> None:
    assert cut_at_observation(f"Action: Foo\n{line} {{}}\nFinal Answer: x") == ("Action: Foo\n", True)


def test_an_answer_after_an_invented_observation_is_not_clean() -> None:
    text = "Thought 1: I look.\nObservation 1: {}\nThought 2: So.\nFinal Answer: One lamp."
    assert cut_at_observation(text) == ("Thought 1: I look.\n", True)
    assert invents_observation(text)
    assert invents_observation(f"Final Answer: first\n{text}")
    assert not invents_observation("Final Answer: I saw this.\n### Observations:\n- It failed.\n\nShall I go on?")


def test_the_answer_that_counts_decides_what_was_invented() -> None:
    text = "Final Answer: one\nObservation: {}\nFinal Answer: two"
    assert cut_at_observation(text) == (text, False)
    assert cut_at_observation(text, final_anywhere=True) == ("Final Answer: one\n", True)
    after = "Final Answer: one\nObservation: it is dark"
    assert cut_at_observation(after, final_anywhere=True) == (after, False)


def test_an_argument_that_was_cut_off_is_not_cut_at_a_line_of_it() -> None:
    text = 'Action: NotesWrite\nAction Input: {"text": "Visit\nObservation: the pump'
    assert cut_at_observation(text, unfinished=True) == (text, False)
    assert cut_at_observation(text).self_observed
    assert action(text).open


@pytest.mark.parametrize("rest", ["\nObserv", "\n**Observation", "\nObservations \n"])
def test_what_a_server_leaves_of_a_stop_is_no_part_of_the_turn(rest: str) -> None:
    assert without_leftover(f"Final Answer: It is on.{rest}") == "Final Answer: It is on."
    assert without_leftover(f"{rest} of lamps") == f"{rest} of lamps"


def test_an_answer_behind_a_sentence_is_read_if_there_is_nothing_else() -> None:
    turn = parse_turn("Thought: I know the final answer. Final Answer: It is on.")
    assert turn == Final("I know the final answer.", "It is on.")
    assert action("Thought: Soon. Final Answer: later.\nAction: Foo\nAction Input: {}").tool == "Foo"


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
        "<think></think>" * 70_000,
        "Observation:\n" * 80_000,
        "Action Input: {'\n" * 60_000,
        "Action: a\nAction Input: " + "{'a': \"" * 150_000,
        "</think>Final Answer: {" * 40_000,
        "{/* " * 250_000,
        "1. " * 300_000,
        "\u00a0" * 1_000_000,
    ],
)
def test_hostile_texts_are_read(text: str) -> None:
    # The whole suite has a time limit; quadratic scans of these would take minutes.
    parse_turn(text)
    parse_turn(text, final_anywhere=True)
    cut_at_observation(text)
    without_leftover(text)
    is_thinking(text)
    split_thinking(text)
