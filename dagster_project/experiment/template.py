"""A new experiment file, from the shipped miniature."""

from __future__ import annotations

from pathlib import Path

from dagster_project.experiment.names import valid_key
from dagster_project.experiment.spec import EXPERIMENTS
from toolemu.errors import FieldError, InputError


def write_template(name: str, directory: Path) -> Path:
    """Writes ``<name>.yaml`` below `directory` and returns its path.

    Raises:
        InputError: The name cannot be a key, or the file exists.
    """
    try:
        path = directory / f"{valid_key(name)}.yaml"
    except FieldError as error:
        raise InputError("NAME", "", f"{error}.", code=error.code) from error
    if path.exists() or (EXPERIMENTS / path.name).exists():
        raise InputError(path.name, "", "there is such an experiment already.", "Choose another name.")
    text = (EXPERIMENTS / "miniature.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("name: miniature", f"name: {name}", 1), encoding="utf-8")
    return path
