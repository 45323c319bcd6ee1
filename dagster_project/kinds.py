"""Registries of kinds: what stands under `kind:` in an experiment file, and the class that it means.

A kind is a configuration class with its implementation, in one module. Shipped kinds are named by module, so that only
those in use are imported. An installed package adds its own by an entry point in the group ``safety_frontier.<group>``.
An experiment file can also name any importable class: ``kind: python, object: package.module:Class``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationInfo

from toolemu.errors import FieldError

T = TypeVar("T", bound=BaseModel)
PYTHON = "python"


def source_version(kind: type) -> str:
    """Return a hash of the source file of a class, 12 hexadecimal digits."""
    return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()[:12]


def word_by_endpoint(section: Mapping[str, Any]) -> str:
    """Return the kind of a model or judge whose section does not say it: behind an endpoint, or of the toy world."""
    return "openai" if "endpoint" in section else "miniature"


class Registry(Generic[T]):
    """The kinds of one group.

    Args:
        group: The group's name, as in the experiment file: `judges`.
        base: The class that every kind derives from.
        shipped: ``module:Class`` by the word that stands in the experiment file.
        word_of: Returns the word of a section that does not say its kind; by default it must.
    """

    def __init__(
        self,
        group: str,
        base: type[T],
        shipped: Mapping[str, str],
        word_of: Callable[[Mapping[str, Any]], str] = lambda section: "",
    ) -> None:
        self._group, self._base, self._shipped, self._word_of = group, base, shipped, word_of

    @functools.cached_property
    def places(self) -> dict[str, str]:
        """``module:Class`` of every kind by its word: those shipped, and those of installed packages."""
        found = {point.name: point.value for point in entry_points(group=f"safety_frontier.{self._group}")}
        return {**found, **self._shipped}

    def read(self, value: Any, info: ValidationInfo) -> T:
        """Return the section of an experiment file as an object of its kind. Meant as a pydantic validator.

        Args:
            value: The section, or the object.
            info: The context in which the kind's fields are validated, see `Places`.

        Raises:
            ValidationError: A field of the kind is wrong.
            FieldError: There is no such kind, or its class cannot be had.
        """
        return (
            value
            if isinstance(value, self._base)
            else self.kind_of(value).model_validate(dict(value), context=info.context)
        )

    def imported(self) -> T:
        """Return what stands for something that was imported."""
        return self.kind_of({"kind": "imported"}).model_validate({})

    def word(self, section: Mapping[str, Any]) -> str:
        """Return the word of a section's kind; empty if the section says none and there is no default."""
        return str(section.get("kind", self._word_of(section)))

    def kind_of(self, value: Any) -> type[T]:
        """Return the class of a section of an experiment file.

        Raises:
            FieldError: There is no such kind, or its class cannot be had.
        """
        if not isinstance(value, Mapping):
            known = ", ".join(self.places)
            raise FieldError(f"expected a section with fields, one of them `kind`: {known}", code="kind.unknown")
        word = self.word(value)
        if word == PYTHON:
            place = value.get("object")
            if not isinstance(place, str):
                problem = "kind: python needs `object`, such as my_package.my_module:MyClass"
                raise FieldError(problem, code="kind.object")
            return self._class(place)
        if word not in self.places:
            known = ", ".join([*self.places, PYTHON])
            problem = f"there is no kind {word!r}; known: {known}" if word else f"`kind` is missing: {known}"
            raise FieldError(problem, code="kind.unknown")
        return self._class(self.places[word])

    def _class(self, place: str) -> type[T]:
        module, _, name = place.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            problem = f"{place} cannot be imported ({error}); give it as package.module:Class"
            raise FieldError(problem, code="kind.object") from None
        if not (isinstance(found, type) and issubclass(found, self._base)):
            problem = f"{place} is no {self._base.__name__}; derive it from {self._base.__module__}"
            raise FieldError(problem, code="kind.object")
        return found
