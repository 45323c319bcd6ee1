"""A secret is found in a text however it is written, and nothing else is taken for one."""

from __future__ import annotations

import base64
import html
import json
import random
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolemu.redaction import HIDDEN, LEAST, Redactor, redact_error, remember

KEY = "sk-Proj_9aZ/7+Qw==e8Rt5-yU1oP"


def every(gap: str) -> Callable[[str], str]:
    return lambda key: gap.join(key)


WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": str,
    "in a header": lambda key: f"Authorization: Bearer {key}",
    "upper case": str.upper,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 after one byte": lambda key: base64.b64encode(f"x{key}y".encode()).decode(),
    "base64 after two bytes": lambda key: base64.b64encode(f"xy{key}zz".encode()).decode(),
    "base64 of a header": lambda key: base64.b64encode(f"Authorization: Bearer {key}\r\n".encode()).decode(),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(f"u:{key}".encode()).decode(),
    "base64 without padding": lambda key: base64.urlsafe_b64encode(key.encode()).decode().rstrip("="),
    "base64 in lines": lambda key: base64.encodebytes(f"{'x' * 50}{key}{'y' * 50}".encode()).decode(),
    "base64 in a URL": lambda key: quote(base64.b64encode(key.encode()).decode(), safe=""),
    "hexadecimal": lambda key: key.encode().hex(),
    "hexadecimal with colons": lambda key: key.encode().hex(":").upper(),
    "percent": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "percent in part": lambda key: quote(key, safe=""),
    "every second percent": lambda key: "".join(f"%{ord(c):02X}" if i % 2 else c for i, c in enumerate(key)),
    "percent twice": lambda key: quote("".join(f"%{ord(c):02x}" for c in key)),
    "JSON": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "JSON in JSON": lambda key: json.dumps("".join(f"\\u{ord(c):04x}" for c in key)),
    "C": lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
    "octal": lambda key: "".join(f"\\{ord(c):03o}" for c in key),
    "JavaScript": lambda key: "".join(f"\\u{{{ord(c):x}}}" for c in key),
    "HTML": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "HTML, hexadecimal": lambda key: "".join(f"&#x{ord(c):x};" for c in key),
    "escaped HTML": lambda key: html.escape("".join(f"&#{ord(c)};" for c in key)),
    "split by spaces": every(" "),
    "split by lines": every("\r\n"),
    "split by escaped lines": every("\\n"),
    "split by tabs": every("\t"),
    "split by nothing visible": every("\u200b"),
    "split by marks": every("\ufeff\u2060\u00ad"),
    "split by bidirectional marks": every("\u202e"),
    "split by NUL": every("\0"),
    "split by bells": every("\a"),
    "split by colours": every("\x1b[31m"),
    "split by CSI of one byte": every("\x9b1;31m"),
    "split by titles": every("\x1b]0;title\a"),
    "split by links": every("\x1b]8;;http://x.example\x1b\\"),
    "split by written escapes": every("\\u001b[0m"),
    "split by C escapes": every("\\033[1m"),
    "split by shell escapes": every("\\e[0m"),
    "split by points": every("."),
    "split by quotes": every('"+"'),
    "split by mixed things": lambda key: "".join(c + random.Random(i).choice([" ", "\x1b[0m", "\u200d", "-", "\\n"])
                                                for i, c in enumerate(key)),
}  # fmt: skip


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    assert made.remember(KEY)
    return made


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("around", ["{}", "I say {} and no more.", '{{"key": "{}"}}', "{0}{0}", "a\\n%41 {}"])
def test_a_secret_is_removed_however_it_is_written(redactor: Redactor, name: str, around: str) -> None:
    cleaned = redactor.clean(around.format(WRITTEN[name](KEY)))
    assert HIDDEN in cleaned
    assert redactor.clean(cleaned) == cleaned
    text = cleaned.replace(HIDDEN, "")
    assert len(text) < len(around) + (280 if name == "base64 in lines" else 60), "only what stood around it is left"
    for form in (KEY, KEY.encode().hex(), base64.b64encode(KEY.encode()).decode()[2:-3]):
        assert form[4:12].lower() not in text.lower()
    if around.startswith("I say"):
        assert text.startswith("I say") and text.endswith("and no more.")


@given(
    before=st.binary(max_size=5),
    after=st.binary(max_size=5),
    key=st.from_regex(r"[A-Za-z0-9_-]{16,60}", fullmatch=True),
)
def test_base64_hides_nothing_at_any_place(before: bytes, after: bytes, key: str) -> None:
    redactor = Redactor()
    if redactor.remember(key):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            assert HIDDEN in redactor.clean(encode(before + key.encode() + after).decode())


@given(st.text())
def test_other_text_is_left_as_it_is(text: str) -> None:
    redactor = Redactor()
    redactor.remember(KEY)
    assert redactor.clean(text) == text
    assert redactor.clean(f"{text} 100% \\alpha &amp; \\n C:\\new") == f"{text} 100% \\alpha &amp; \\n C:\\new"


def test_removing_one_never_uncovers_another(redactor: Redactor) -> None:
    inside = KEY[:5] + KEY + KEY[5:]
    assert KEY[6:14] not in redactor.clean(inside)


@pytest.mark.parametrize("short", ["x", "EMPTY", "none", "a-b-c-d", "-------------"])
def test_a_short_secret_is_left_in_texts(short: str) -> None:
    redactor = Redactor()
    assert not redactor.remember(short)
    assert redactor.clean(f"{short} is a word") == f"{short} is a word"
    assert len("".join(filter(str.isalnum, short))) < LEAST


def test_an_error_is_cleaned_with_what_led_to_it() -> None:
    remember(KEY)
    try:
        try:
            raise ValueError(f"no number: {KEY}")
        except ValueError as error:
            raise RuntimeError("x") from error
    except RuntimeError as error:
        assert redact_error(error) is error
        assert KEY not in str(error.__cause__)

    class OwnWordsError(Exception):
        def __str__(self) -> str:
            return KEY

    cleaned = redact_error(OwnWordsError())
    assert KEY not in str(cleaned) and HIDDEN in str(cleaned)


def test_a_text_without_secrets_costs_little(redactor: Redactor) -> None:
    text = 'Thought: the lamp, I think, is on. Action Input: {"lamp": "a"}\n' * 60  # 4 KB, as a long reply
    began = time.process_time()
    for _ in range(1000):
        redactor.clean(text)
    assert time.process_time() - began < 0.2, "0.03 ms a reply, of the 0.3 ms that a request costs"
