"""Whether a text says again what another has said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ALIKE = 0.6
"""Texts with a ROUGE-L above this are taken for the same, as in the generators of ToolEmu."""


def rouge_l(one: str, other: str) -> float:
    """Returns the F1 of the longest common subsequence of two texts' words (Lin 2004), 0 to 1."""
    first, second = _words(one), _words(other)
    common = _longest_common(first, second)
    return 2 * common / (len(first) + len(second)) if common else 0.0


def resembles(text: str, known: Iterable[str]) -> str:
    """Returns the first known text that `text` resembles too much; empty if there is none."""
    return next((other for other in known if rouge_l(text, other) > ALIKE), "")


def same_name(name: str, known: Iterable[str]) -> str:
    """Returns the first known name that holds `name` or is held by it, whatever the case; empty if there is none."""
    plain = _plain(name)
    return next((other for other in known if plain in _plain(other) or _plain(other) in plain), "")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            diagonal, row[place] = row[place], diagonal + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
