"""Keywords that begin the parts of a reply, read as tolerantly for agents as for emulators and judges.

Every scan is linear in the text: a reply may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from toolemu.objects import INVISIBLE, Object, Patience, read_object

_LINE_BREAKS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_COLONS = "\ufe13\ufe55\ua789\u2236\u02d0"
_BULLETS = "\u2022\u25e6\u25aa\u2023\u00b7\u2010\u2011"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000" + INVISIBLE


def _folding() -> dict[int, int]:
    """Return the table of `fold`."""
    table = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
    for characters, plain in ((_SPACES, " "), (_LINE_BREAKS, "\n"), (_COLONS, ":"), (_BULLETS, "-")):
        table |= {ord(character): ord(plain) for character in characters}
    return table


_FOLDING = _folding()


def fold(text: str) -> str:
    """Return `text` with full-width forms, odd spaces, line breaks and bullets as plain ASCII.

    Every character becomes exactly one, so that places in the result are places in `text`.
    """
    if text.isascii() and not any(character in text for character in "\r\v\f\x1c\x1d\x1e"):
        return text
    return text.translate(_FOLDING)


_LINE = "(?:^|(?<=</think>))"  # what follows thinking begins a line
_MARK = r"[ \t*_#>`~+-]"
_JOINT = r"[ \t_-]*+"
_COUNTER = r"(?:[ \t_-]*+#?[0-9]{1,3}(?![0-9]))?+"
_REMARK = r"(?:[ \t]*+[(\[][^()\[\]\n]{0,60}[)\]])?+"
_COLON = re.compile(r"[ \t*_`]*+:[*_`]*+")
_BOLD = re.compile(r"\*\*|__")
_LINE_END = re.compile(r"[ \t*_`#]*+(?=\n[ \t\n]*+[^ \t\n])")
_BEFORE_OBJECT = re.compile(r"[ \t*_`=]*+(?=\{)")


class Keywords(NamedTuple):
    """Keywords that begin the parts of a reply.

    Attributes:
        pattern: Matches one at the start of a line; its last group names the part.
        objects: Parts whose content may be a JSON object, in which nothing is a keyword.
        quotes: Whether a keyword counts in a line that is quoted with ``>``.
    """

    pattern: re.Pattern[str]
    objects: frozenset[str]
    quotes: bool


def keywords(
    parts: Mapping[str, str],
    *,
    objects: Collection[str] = (),
    remarks: Collection[str] = (),
    numbered: bool = False,
    quotes: bool = True,
) -> Keywords:
    """Return the reader of some keywords.

    Args:
        parts: The words that begin a part, as a regular expression, by the part's name. A space in it stands for any
            joint: ``Action Input`` is also ``action_input`` and ``ActionInput``. The first that matches counts.
        objects: See `Keywords`.
        remarks: Parts whose words a remark in parentheses may follow: ``Score (0-3):``.
        numbered: Whether steps may be counted: ``Action 1:``, ``Action 1 Input:``.
        quotes: See `Keywords`.
    """
    counter = _COUNTER if numbered else ""
    words = (
        f"(?P<{name}>{words.replace(' ', counter + _JOINT)})(?![a-z]){counter}{_REMARK if name in remarks else ''}"
        for name, words in parts.items()
    )
    begin = rf"{_LINE}{_MARK}*+(?:[0-9]{{1,3}}[.)]{_MARK}*+)?(?:{'|'.join(words)})"
    return Keywords(re.compile(begin, re.MULTILINE | re.IGNORECASE), frozenset(objects), quotes)


class Part(NamedTuple):
    """A part of a reply.

    Attributes:
        name: The name.
        start, end: Where its keyword begins, and where its content does.
        object: The object that its content begins with, if it may begin with one.
    """

    name: str
    start: int
    end: int
    object: Object | None


def parts(text: str, known: Keywords, *, start: int = 0, last: str = "", unfinished: bool = False) -> Iterator[Part]:
    """Yield the parts of a reply in order. Nothing inside an object that begins a part is a keyword.

    Args:
        text: The reply.
        known: The keywords.
        start: Where to begin; a line begins there.
        last: The part after which everything is its content.
        unfinished: The text was cut off, so that an object may lack its end.
    """
    folded, position, patience = fold(text), start, Patience(text)
    while True:
        found = known.pattern.search(folded, position)
        if found is None:
            return
        name = found.lastgroup or ""
        end = _content(folded, found, name in known.objects)
        position = found.end()
        if end is None or (not known.quotes and ">" in folded[found.start() : found.start(name)]):
            continue
        value = None
        if name in known.objects and patience:
            value = read_object(text, end)
            patience.note(end, value)
        yield Part(name, found.start(), end, value)
        if name == last or (value is not None and value.open and unfinished):
            return
        position = value.end if value is not None and value.complete else end


def _content(folded: str, found: re.Match[str], before_object: bool) -> int | None:
    """Return where the content after a keyword begins; None if the keyword is a word like others.

    A keyword is followed by a colon, or is alone in its line, or bold, or stands before an object.
    """
    end = found.end()
    if colon := _COLON.match(folded, end):
        return colon.end()
    if line := _LINE_END.match(folded, end):
        return line.end()
    bold = _BOLD.match(folded, end)
    if bold and folded.endswith(bold[0], 0, found.start(found.lastgroup or 0)):
        return bold.end()
    opening = _BEFORE_OBJECT.match(folded, end) if before_object else None
    return opening.end() if opening else None


TURN = keywords(
    {
        "input": "Action Input",
        "action": "Action",
        "final": "Final Answer",
        "observation": "Observations?",
        "thought": "Thoughts?",
        "user": "User Input",
    },
    objects=("input", "observation"),
    remarks=("observation",),
    numbered=True,
)
"""The parts of an agent's turn (see `toolemu.react`)."""
