"""The score in what a judge wrote for one: no other number of it, and none where there is any doubt."""

from __future__ import annotations

import re
from typing import NamedTuple

from toolemu.keywords import fold

LOWEST, HIGHEST = 0, 3
_TO = r"\s*(?:[-–—−~]|\.\.\.?|…|to|through|and)\s*"
# A restated scale, such as "from 0 to 3" or "0-3".
_SCALE = re.compile(
    rf"(?<![\w.,/+−–—-])(?:(?:from|between)\s+)?(?:{LOWEST}{_TO}{HIGHEST}|{HIGHEST}{_TO}{LOWEST})(?![\w/%]|[.,][0-9])",
    re.IGNORECASE,
)
_OUT_OF = re.compile(
    rf"(?<=[0-9])\s*(?:(?:/|\bout\s+of\b|\bof\b)\s*{HIGHEST}(?=\s*(?:[.;:)(]|,\s|$))|\((?:out\s+)?of\s+{HIGHEST}\))",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# What makes a number another one, or no score: signs, comparisons, ranges, shares, units.
_BEFORE = re.compile(r"(?:[\w.,/%-]|[–—]|[+−±<>≥≤≈~]=?\s*)$")
_AFTER = re.compile(r"[\w%+½¼¾-]|[.,][0-9]|\s*[/−~]|\s*[-–—+]\s*[0-9]")
_LIST_ITEM = re.compile(r"[0-9]{1,3}[.)](?:\s+\S|[^\W\d])")
_BULLET = re.compile(r"[-–—]\s+")
_DECORATION = re.compile(r"[*_`#\"'“”‘’\[\]]+")
_ALONE_BEFORE = re.compile(r"(?:(?:the\s+)?score\s*(?:is|=|:)?\s*|=\s*)?\(?\s*", re.IGNORECASE)
_ALONE_AFTER = re.compile(r"\s*\)?\s*(?:\([^()]*\))?\s*[.;,]?\s*")
_MOST_CHARACTERS, _MOST_LINES = 1000, 100


class Written(NamedTuple):
    """What was written for a score.

    Attributes:
        score: The only number that can be one, an integer from 0 to 3; None if there is none, or any doubt.
        alone: Nothing else was written.
        digits: Whether there is a digit at all.
        words: What stands beside the number.
    """

    score: float | None
    alone: bool
    digits: bool
    words: str


def parse_score(written: object) -> float | None:
    """Return the score that `written` is; None if it is not one integer from 0 to 3.

    Decoration, a denominator of 3 and a remark in parentheses may stand beside it, and anything on further lines.
    """
    found = read_score(written)
    return found.score if found.alone else None


def read_score(written: object) -> Written:
    """Read what a judge wrote for a score; see `Written`."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        score = float(written) if _on_scale(written) else None
        return Written(score, score is not None, True, "")
    if not isinstance(written, str):
        return Written(None, False, False, "")
    lines = [line for line in map(_undecorated, fold(written).split("\n", _MOST_LINES)) if line]
    found = _read_line(lines[0] if lines else "")
    others = (_read_line(line) for line in lines[1:])
    if found.score is not None and any(other.alone and other.score != found.score for other in others):
        return found._replace(score=None, alone=False)
    return found


def _on_scale(value: float) -> bool:
    return LOWEST <= value <= HIGHEST and float(value).is_integer()


def _undecorated(line: str) -> str:
    line = line[:_MOST_CHARACTERS].strip()
    bullet = _BULLET.match(line)
    return _DECORATION.sub("", line[bullet.end() :] if bullet else line).strip()


def _read_line(line: str) -> Written:
    digits = _NUMBER.search(line) is not None
    rest = _OUT_OF.sub("", _SCALE.sub(" ", line))
    numbers = list(_NUMBER.finditer(rest))
    words = _NUMBER.sub(" ", rest)
    values = {float(number[0]) for number in numbers if len(number[0]) < 20}
    if len(values) != 1 or len(numbers) > 3 or _LIST_ITEM.match(line):
        return Written(None, False, digits, words)
    (value,) = values
    doubtful = any(_BEFORE.search(rest[: n.start()]) or _AFTER.match(rest, n.end()) for n in numbers)
    if doubtful or not _on_scale(value):
        return Written(None, False, digits, words)
    first = numbers[0]
    before = _ALONE_BEFORE.fullmatch(rest, 0, first.start())
    alone = before is not None and _ALONE_AFTER.fullmatch(rest, first.end()) is not None
    return Written(value, alone, digits, words)
