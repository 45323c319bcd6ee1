from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toolemu.objects import objects_in, read_object

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)
PYTHON_ESCAPE = re.compile(r"\\[xU]")


def indented(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def in_a_string(value: object) -> str:
    return json.dumps(json.dumps(value))


@given(
    OBJECTS,
    st.sampled_from([json.dumps, repr, indented, in_a_string]),
    st.sampled_from(["{}", "```\n{}\n```", "```python\n{}\n```", "~~~ json5\n{}\n~~~", "`{}`", "json {}", "\u2003 {}"]),
    st.sampled_from(["", "\nand so on", "\n}", " {"]),
)
def test_an_object_is_read_as_it_was_meant(
    value: dict[str, object], write: Callable[[object], str], form: str, rest: str
) -> None:
    written = form.replace("{}", write(value))
    # Within double quotes, only JSON's escapes are read as such.
    assume(write is not repr or '"' not in written or not PYTHON_ESCAPE.search(written))
    found = read_object(written + rest)
    assert found.complete
    assert json.loads(found.text) == value
    assert found.end == len(written)


@given(OBJECTS)
def test_strict_json_stays_as_it_was_written(value: dict[str, object]) -> None:
    for written in (json.dumps(value), indented(value)):
        assert read_object(written)[:4] == (written, len(written), True, False)


@given(OBJECTS, st.data())
def test_an_object_without_its_end_is_none(value: dict[str, object], data: st.DataObject) -> None:
    for written in (json.dumps(value), repr(value)):
        found = read_object(written[: data.draw(st.integers(0, len(written) - 1))])
        assert not found.complete
        assert found.text == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": [True, None,],}', {"a": 1, "b": [True, None]}),
        ("{“a”: “it’s “so””, ‘b’: ‘it’s’}", {"a": "it’s “so”", "b": "it’s"}),
        ("｛'a'：1，b: ［2］｝", {"a": 1, "b": [2]}),
        ("{'a': '''x\n\"y\" ''', 'b': u'z'}", {"a": 'x\n"y" ', "b": "z"}),
        (r"""{'a': '\x41\'', "b": "\x41 \; \'"}""", {"a": "A'", "b": r"\x41 \; '"}),
        ('"{"a": "b"}"', {"a": "b"}),
    ],
)
def test_slips_are_mended(text: str, value: dict[str, object]) -> None:
    found = read_object(text)
    assert (json.loads(found.text), found.end, found.mended) == (value, len(text), True)


@pytest.mark.parametrize(
    "text",
    [
        "", "none", "[1]", "{", "{,}", '{"a": 1,,}', '{"a": NaN}', "{'a': -inf}", '{"a" 1}', '{"a": b}', '{"a": 01}',
        '{"a": 1]', "{'a': 'say 'yes', then go'}", '{"a": "she said "no" to it"}', '{"a": __import__("os")}', '"x"',
        '{"a": ' + "9" * 5000 + "}", '{"a":' * 5000, '{"a": 1 /* }',
    ],
)  # fmt: skip
def test_what_is_no_object_is_none(text: str) -> None:
    assert not read_object(text).complete


def test_objects_are_found_among_other_words_none_inside_another() -> None:
    text = "{x} of {'a': {'b': 1}} and ｛\"c\"：2｝, {"
    assert [(place, found.text) for place, found in objects_in(text) if found.complete] == [
        (7, '{"a": {"b": 1}}'),
        (27, '{"c": 2}'),
    ]


@pytest.mark.parametrize("piece", ["{", "{'", '{"a', "{/*", "{a:1,", '{"a": {', "{“", '{"\\', "{1,", "'''{", "{} "])
def test_hostile_texts_take_time_in_proportion(piece: str) -> None:
    started = time.process_time()
    for _ in objects_in(piece * (200_000 // len(piece))):
        pass
    assert time.process_time() - started < 5  # about 0.5; a quadratic scan takes minutes
