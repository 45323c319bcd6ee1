"""Models of which only trajectories are there."""

from __future__ import annotations

from typing import ClassVar, Literal

from dagster_project.models.kind import ModelKind


class ImportedModel(ModelKind):
    """A source model whose trajectories were imported. No asset makes or asks it."""

    imported: ClassVar[bool] = True

    kind: Literal["imported"] = "imported"
