"""Names in the experiment file that refer to others: each must be there, or its misspelling would decide nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_names(place: str, names: Iterable[str], known: Iterable[str], meant: str) -> None:
    """Makes sure that every name is known.

    Args:
        place: Where in the file the names are.
        names: What is there.
        known: What may be.
        meant: What they refer to, in words.

    Raises:
        ValueError: One is not known; says which may have been meant, and which there are.
    """
    there = sorted({str(name) for name in known})
    for name in names:
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"{place} names {name!r}, which is no {meant}; {hint}there {f'are: {there}' if there else 'is none'}"
            )
