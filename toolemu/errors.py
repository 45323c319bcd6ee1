"""The errors a reader can act on: every one names the file, the place, what was expected and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)

UNSHOWN = "unshown"
"""The type of a pydantic error whose value no message repeats, since it may be a secret."""


class FrontierError(Exception):
    """Anything wrong that the user can mend; shown without a traceback by the command line."""


class PassingError(FrontierError):
    """Something outside that may mend itself, such as a server that is down: trying again later makes sense."""


class InputError(FrontierError):
    """A file the user gave is wrong.

    Args:
        path: The file.
        place: Where in it, for instance ``line 3`` or ``[2] 'Toolkits'``; empty for the file as a whole.
        problem: What is wrong and what was expected.
        remedy: What to do about it.
    """

    def __init__(self, path: object, place: str, problem: str, remedy: str = "") -> None:
        self.path, self.place, self.problem, self.remedy = str(path), place, problem, remedy
        where = f"{path}: {place}" if place else str(path)
        super().__init__(f"{where}: {problem}" + (f" {remedy}" if remedy else ""))


def shorten(value: object, limit: int = 80) -> str:
    """Returns ``repr(value)`` cut to `limit` characters, so that an error message stays readable."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def validation_problem(error: ValidationError) -> tuple[str, str]:
    """Turns pydantic's first complaint into (place, problem), with the value that was found.

    What a validator of ours says of a whole record names what is wrong in it, and stands alone.
    """
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the whole record"
    problem = first["msg"]
    if first["type"] == "value_error":
        problem = problem.removeprefix("Value error, ")
    if first["type"] != UNSHOWN and not (first["type"] == "value_error" and isinstance(first["input"], dict)):
        problem += f", found {shorten(first['input'])}"
    more = f" ({error.error_count() - 1} more problems)" if error.error_count() > 1 else ""
    return f"'{place}'", f"{problem}{more}."


def validate_record(model: type[T], value: Any, path: Path | object, place: str, remedy: str = "") -> T:
    """Validates `value` as `model`, or raises `InputError` that names `path`, `place` and the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        where, problem = validation_problem(error)
        raise InputError(path, f"{place} {where}".strip(), problem, remedy) from error
