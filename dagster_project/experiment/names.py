"""Names: what they may hold, when two are too alike, and whether those that refer to others are there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from toolemu.errors import FieldError

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MAX_KEY = 60
MAX_PARTITION = 180
"""The most characters of an agent's key: it is the name of a folder, with more around it."""


def valid_key(name: str) -> str:
    """Return a name if it can be a partition's key in Dagster and a folder everywhere.

    Raises:
        FieldError: It cannot. Dagster takes `...` for a range of partitions.
    """
    if not KEY.fullmatch(name) or len(name) > MAX_KEY or "..." in name:
        raise FieldError(
            f"{name!r} cannot be a name here. Use at most {MAX_KEY} letters (A-Z), digits, '_', '.' and '-', a letter "
            "or digit first, and no '...'",
            code="experiment.name",
        )
    return name


Key = Annotated[str, AfterValidator(valid_key)]
"""A name that can be a partition's key."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""What NumPy and the tables' INTEGER columns take; they are asked long after the file was read."""


def alike(name: str) -> str:
    """Return what names share that Dagster's steps, or file systems that ignore capitals, do not tell apart."""
    return re.sub(r"[-.]", "_", name).lower()


def check_distinct(place: str, names: Iterable[str]) -> None:
    """Raise `FieldError` if two names are the same, or differ in nothing but capitals, '-', '_' and '.'."""
    seen: dict[str, str] = {}
    for name in names:
        if alike(name) in seen:
            raise FieldError(
                f"{place} holds {seen[alike(name)]!r} and {name!r}, which differ in nothing but capitals, '-', '_' or "
                "'.'; rename one",
                code="experiment.names-alike",
            )
        seen[alike(name)] = name


def check_names(place: str, names: Iterable[str], known: Iterable[str], meant: str) -> None:
    """Makes sure that every name is known.

    Args:
        place: Where in the file the names are.
        names: What is there.
        known: What may be.
        meant: What they refer to, in words.

    Raises:
        FieldError: One is not known; says which may have been meant, and which there are.
    """
    there = sorted({str(name) for name in known})
    for name in names:
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise FieldError(
                f"{place} names {name!r}, which is no {meant}; {hint}there {f'are: {there}' if there else 'is none'}",
                code="experiment.unknown-name",
            )
