"""A trained agent's stages as one adapter over its source model, for a server that has the source model already."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from dagster_project.artifacts import Artifact
from dagster_project.collect.weights import model_folder
from dagster_project.models import ModelKind
from dagster_project.serving.adapters import ServedAdapter
from dagster_project.training.concatenate import check_fits, check_servable, concatenate_adapters


def own_adapter(base: Path, section: ModelKind, pinned: Artifact) -> ServedAdapter:
    """Returns an adapter that was trained elsewhere.

    Raises:
        InputError: It is not of `base`, or no server can load it.
    """
    folder = model_folder(section, pinned.path)
    check_servable(folder)
    check_fits(base, folder)
    name = f"adapter@{pinned.manifest.sha256[:16]}"
    return ServedAdapter(name, lambda out: shutil.copytree(folder, out, dirs_exist_ok=True))


def served_adapter(base: Path, stages: Sequence[Artifact]) -> ServedAdapter:
    """Returns the adapter that does what a chain of merged stages does, up to rounding.

    Args:
        base: The source model's weights.
        stages: The stages' adapters, in order.
    """
    hashes = " ".join(stage.manifest.sha256 for stage in stages)
    name = f"adapter@{hashlib.sha256(hashes.encode()).hexdigest()[:16]}"
    folders = [stage.path for stage in stages]
    if len(folders) == 1:
        return ServedAdapter(name, lambda out: shutil.copytree(folders[0], out, dirs_exist_ok=True))
    return ServedAdapter(name, lambda out: concatenate_adapters(base, folders, out))
