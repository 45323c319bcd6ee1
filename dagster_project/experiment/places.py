"""Paths in an experiment file: relative to it, or to a folder that a variable of the environment names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import ValidationInfo

from toolemu.errors import InputError
from toolemu.secret_names import is_secret_variable


class Places:
    """Where an experiment file lies: the context in which its fields are validated.

    Attributes:
        folder: The folder of the file.
    """

    def __init__(self, file: Path) -> None:
        self.folder, self._file = file.parent, file
        self._expanded: dict[str, str] = {}

    def find(self, field: str, text: str) -> Path:
        """Return the file or folder that a field names; ``$NAME`` in it stands for a variable of the environment.

        Raises:
            InputError: There is no such variable, it is for a secret, or there is no such file.
        """
        for name in re.findall(r"\$(\w+)", text):
            if is_secret_variable(name):
                raise InputError(
                    self._file,
                    f"'{field}'",
                    f"names the variable {name}, which is for a secret, and not for a path.",
                    "Name a path; keys go into variables that `key` of an endpoint names.",
                    code="experiment.secret-in-path",
                )
            if name not in os.environ:
                raise InputError(
                    self._file,
                    f"'{field}'",
                    f"needs the environment variable {name}, which is not set.",
                    "Set it to the folder that the file's comment names.",
                    code="experiment.variable",
                )
            if len(os.environ[name]) > 1:
                self._expanded[os.environ[name]] = f"${name}"
        path = self.folder / re.sub(r"\$(\w+)", lambda found: os.environ[found[1]], text)
        if "$" in text and not path.exists():
            problem = f"there is no file or folder {text}."
            raise InputError(self._file, f"'{field}'", problem, "Set its variable.", code="experiment.no-file")
        return path

    def hide(self, error: InputError) -> InputError:
        """Return an error without the values of the variables that paths name."""
        parts = [error.path, error.place, error.problem, error.remedy]
        for value, name in sorted(self._expanded.items(), key=lambda item: -len(item[0])):
            parts = [part.replace(value, name) for part in parts]
        return InputError(*parts, code=error.code)


def located(info: ValidationInfo, field: str, value: str | Path) -> Path:
    """Return the path that a field of an experiment file names. Meant for pydantic validators of kinds.

    Args:
        info: What pydantic gives the validator.
        field: The field's place in the file, for errors.
        value: What stands there; a path, if it did not come from a file.

    Raises:
        InputError: See `Places.find`.
    """
    if isinstance(value, str) and isinstance(info.context, Places):
        return info.context.find(field, value)
    return Path(value)
