"""JSON objects in what language models write, with the usual slips mended.

Every scan is linear in the text, or is tried a bounded number of times: a reply may hold anything.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"
_MOST_WRAPPINGS = 3
_MOST_RESCANS, _FREE = 2, 20_000
_DEEPEST = 200
_OPENING = re.compile(
    r"[\s*]*+(?:(?:`++|~~~++)[ \t]*+(?:[A-Za-z][\w+#.-]{0,20}+(?=[\s{\"']))?+)?+[\s`*]*+(?:json\b)?+[\s`:]*+",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"\s*+(?:```|~~~)|`{1,2}+")
_BRACES = "{\uff5b"
_BRACE = re.compile(f"[{_BRACES}]")
_FOLLOWS = r"\s*+(?:[,:}\]\uff0c\uff1a\uff5d\uff3d]|\Z)"


def _delimited(opening: str, closing: str) -> str:
    """Return the expression of a string whose delimiter may occur in it: one ends it only before what may follow it."""
    return rf"[{opening}](?:[^{closing}\\]++|\\.|[{closing}](?!{_FOLLOWS}))*+[{closing}]"


_TOKEN = re.compile(
    rf"""(?P<space>[\s{INVISIBLE}]++ | //[^\n]*+ | \#[^\n]*+ | /\*(?:[^*]++|\*(?!/))*+\*/)
    | [uUbB]?(?P<triple>\"\"\".*?\"\"\" | '''.*?''')
    | [uUbB]?(?P<string>"(?:[^"\\]++|\\.)*+"
        | {_delimited("'", "'")}
        | {_delimited("“”„‟＂«»", "“”‟＂«»")}
        | {_delimited("‘’‚‛", "’‘‛")})
    | (?P<mark>[{{}}\[\]:,｛｝［］：，])
    | (?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![\w.]))
    | (?P<word>[^\W\d][\w$-]*+)""",
    re.DOTALL | re.VERBOSE,
)
QUOTES = "\"'“”„‟＂«»‘’‚‛"
_KEY_FOLLOWS = re.compile(r"\s*+[:：]")
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}
_PLAIN = dict(zip("｛｝［］：，", "{}[]:,", strict=True))
_CLOSER = {"{": "}", "[": "]"}
_ESCAPE = re.compile(
    r"\\(?:(?P<json>[\"\\/bfnrt]|u[0-9a-fA-F]{4})|(?P<code>x[0-9a-fA-F]{2}|U[0-9a-fA-F]{8})|.)|\"", re.DOTALL
)


class Object(NamedTuple):
    """A JSON object in a text, or where none could be read.

    Attributes:
        text: The object as strict JSON: as written, if it is that. Empty if there is none.
        end: Where it ends in the text, the end of a code fence included; how far it was read if there is none.
        complete: Whether there is one.
        mended: Whether it was written in another way than JSON has it.
        open: The text ends inside a string of the object.
    """

    text: str
    end: int
    complete: bool
    mended: bool = False
    open: bool = False


def refuse_constant(name: str) -> NoReturn:
    """Keep Python's decoder from taking NaN and Infinity for JSON: its `parse_constant`."""
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def read_object(text: str, start: int = 0) -> Object:
    """Read the JSON object that begins at `start`, perhaps in a code fence or in quotes, and mend usual slips.

    Usual slips are Python's dictionaries and words, trailing commas, comments, bare keys, typographic quotes and
    full-width punctuation as delimiters, line breaks in strings, backslashes that begin no escape, and JSON in a JSON
    string.
    """
    opening = _OPENING.match(text, start)
    found = _read(text, opening.end() if opening else start, _MOST_WRAPPINGS)
    closing = _CLOSING.match(text, found.end) if found.complete else None
    return found._replace(end=closing.end()) if closing else found


def _read(text: str, start: int, wrappings: int) -> Object:
    first = text[start : start + 1] or " "
    if first in QUOTES and wrappings:
        return _unwrapped(text, start, wrappings)
    if first not in _BRACES:
        return Object("", start, False)
    try:
        _, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return _mended(text, start)
    return Object(text[start:end], end, True)


def _unwrapped(text: str, start: int, wrappings: int) -> Object:
    """Read an object that is in quotes, whether or not its own quotes are escaped."""
    bare = _read(text, start + 1, 0)
    if bare.complete:
        closing = text[bare.end : bare.end + 1] or " "
        return bare._replace(end=bare.end + (closing in QUOTES), mended=True)
    token = _TOKEN.match(text, start)
    if token is None or token["string"] is None:
        return Object("", bare.end if token else len(text), False, open=token is None)
    content = json.loads(_string(token["string"][1:-1], token["string"][0])).strip()
    inner = _read(content, 0, wrappings - 1)
    if not inner.complete or inner.end != len(content):
        return Object("", token.end(), False)
    return Object(inner.text, token.end(), True, mended=True)


def _mended(text: str, start: int) -> Object:
    """Read an object token by token, and write each as JSON has it; Python's decoder then says whether it is one."""
    written, closers, position = list[str](), list[str](), start
    while True:
        token = _TOKEN.match(text, position)
        if token is None:
            ends_in_string = text[position : position + 1] in tuple(QUOTES)
            unclosed = ends_in_string or text.startswith("/*", position)
            return Object("", len(text) if unclosed else position, False, open=ends_in_string)
        position = token.end()
        kind, symbol = token.lastgroup, token[token.lastgroup or 0]
        if kind == "mark":
            symbol = _PLAIN.get(symbol, symbol)
            if symbol in "]}":
                if closers.pop() != symbol:
                    return Object("", position, False)
                if written[-1] == ", " and len(written) > 1 and written[-2] not in ("{", "["):
                    written.pop()
            elif symbol in "[{":
                closers.append(_CLOSER[symbol])
                if len(closers) > _DEEPEST:
                    return Object("", position, False)
            written.append(f"{symbol} " if symbol in ",:" else symbol)
            if not closers:
                return _checked("".join(written), position)
        elif kind in ("string", "triple"):
            width = 3 if kind == "triple" else 1
            written.append(_string(symbol[width:-width], symbol[0]))
        elif kind == "number":
            written.append(symbol)
        elif kind == "word":
            key = written[-1] in ("{", ", ") and _KEY_FOLLOWS.match(text, position)
            word = json.dumps(symbol) if key else _WORDS.get(symbol.lower())
            if word is None:
                return Object("", position, False)
            written.append(word)


def _checked(written: str, end: int) -> Object:
    try:
        json.loads(written, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return Object("", end, False)
    return Object(written, end, True, mended=True)


def _string(content: str, quote: str) -> str:
    r"""Return the JSON of a string.

    A backslash that begins no JSON escape (a shell command's, mostly) is kept as one, except before a quote or a line
    break. In Python's strings, ``\x41`` is a character.
    """

    def mend(found: re.Match[str]) -> str:
        escape = found[0]
        if escape == '"':
            return '\\"'
        if found["json"]:
            return escape
        if found["code"] and quote == "'" and int(escape[2:], 16) <= sys.maxunicode:
            return json.dumps(chr(int(escape[2:], 16)))[1:-1]
        if escape[1] in QUOTES:
            return escape[1]
        return "\\n" if escape[1] == "\n" else "\\" + escape

    return json.dumps(json.loads(f'"{_ESCAPE.sub(mend, content)}"', strict=False))


class Patience:
    """Ends the search for objects in a text whose unreadable ones have cost too much, so that it stays linear."""

    def __init__(self, text: str) -> None:
        self._left = _MOST_RESCANS * len(text) + _FREE
        self._least = len(text) // 1000  # Python's decoder counts the lines before what it cannot read

    def __bool__(self) -> bool:
        return self._left > 0

    def note(self, start: int, found: Object) -> None:
        """Take account of how far was read from `start`."""
        if not found.complete and found.end > start:
            self._left -= max(found.end - start, self._least)


def objects_in(text: str) -> Iterator[tuple[int, Object]]:
    """Yield the objects of a text with their places, none of them inside another, and the unreadable ones, too."""
    patience, position = Patience(text), 0
    while patience and (brace := _BRACE.search(text, position)):
        found = _read(text, brace.start(), 0)
        patience.note(brace.start(), found)
        yield brace.start(), found
        position = found.end if found.complete else brace.end()
