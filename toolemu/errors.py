"""Errors that a reader can act on. Each names the file, the place, what was expected and what to do, and has a code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

from toolemu.secret_names import without_secrets

T = TypeVar("T", bound=BaseModel)


class HiddenValueError(ValueError):
    """A field's value is wrong, and no message repeats it, since it may hold a secret; for validators of pydantic.

    Args:
        message: What is wrong, what was expected, what to do; pydantic adds the field's place.
        code: The error's code; see `FrontierError`.
    """

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


UNSHOWN = "unshown"
"""The type of a pydantic error whose value no message repeats, since it may be a secret."""


class FrontierError(Exception):
    """Anything wrong that the user can mend; shown without a traceback by the command line.

    Args:
        message: What is wrong and where, what was expected, what to do.
        code: Which error this is, such as ``archive.too-large``. Every code has an entry in ``docs/errors.md``. Without
            one, the class's `default_code` applies.

    Attributes:
        code: The error's code. Programs and tests compare this, never the message.
    """

    default_code: ClassVar[str] = "general"

    def __init__(self, message: str = "", *, code: str = "") -> None:
        self.code = code or self.default_code
        super().__init__(message)


class PassingError(FrontierError):
    """Something outside that may mend itself, such as a server that is down: trying again later makes sense."""


class InputError(FrontierError):
    """A file the user gave is wrong.

    Args:
        path: The file.
        place: Where in it, for instance ``line 3`` or ``[2] 'Toolkits'``; empty for the file as a whole.
        problem: What is wrong and what was expected.
        remedy: What to do about it.
        code: The error's code; see `FrontierError`.
    """

    default_code = "input"

    def __init__(self, path: object, place: str, problem: str, remedy: str = "", *, code: str = "") -> None:
        self.path, self.place, self.problem, self.remedy = str(path), place, problem, remedy
        where = f"{path}: {place}" if place else str(path)
        super().__init__(f"{where}: {problem}" + (f" {remedy}" if remedy else ""), code=code)


class FieldError(ValueError):
    """A value in a record is wrong. Raise it in a pydantic validator; `validate_record` passes its code on.

    Args:
        problem: What is wrong, what was expected and what to do.
        code: The error's code; see `FrontierError`.
    """

    def __init__(self, problem: str, *, code: str) -> None:
        self.code = code
        super().__init__(problem)


def shorten(value: object, limit: int = 80) -> str:
    """Return ``repr(value)`` cut to `limit` characters, so that an error message stays readable."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        text = f"a {type(value).__name__} that is too deep or too long to show"
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
    hidden = first["type"] == UNSHOWN or isinstance(first.get("ctx", {}).get("error"), HiddenValueError)
    if not hidden and not (first["type"] == "value_error" and isinstance(first["input"], dict)):
        name = str(first["loc"][-1]) if first["loc"] else ""
        problem += f", found {shorten(without_secrets(first['input'], name))}"
    more = f" ({error.error_count() - 1} more problems)" if error.error_count() > 1 else ""
    return f"'{place}'", f"{problem}{more}."


def validate_record(
    model: type[T], value: Any, path: Path | object, place: str, remedy: str = "", *, context: object = None
) -> T:
    """Validates `value` as `model`, or raises `InputError` that names `path`, `place` and the field.

    Validators find `context` in what pydantic gives them.
    """
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        where, problem = validation_problem(error)
        code = getattr(error.errors()[0].get("ctx", {}).get("error"), "code", "")
        raise InputError(path, f"{place} {where}".strip(), problem, remedy, code=code) from error
