"""The environment of imported runs: nobody acts in it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from dagster_project.environments.kind import MAX_CASES, EnvironmentKind, World
from dagster_project.experiment.names import Key, Seed
from toolemu.errors import FrontierError


class ImportedWorld(EnvironmentKind):
    """The paper's released runs, or others in their format, imported: nothing is made, everything is counted again."""

    imported: ClassVar[bool] = True

    kind: Literal["imported"]
    cases: int = Field(144, ge=2, le=MAX_CASES, description="How many cases the runs are on; half are held out.")
    seeds: tuple[Seed, ...] = Field((0, 1, 2), description="Seeds of the pairs where no trained agent names any.")
    pairs_judges: dict[Key, str] = Field({}, description="Labels in the agents' names, to judges' names in files'.")
    paths: tuple[Path, ...] = Field((), exclude=True, description="Trees or archives to import; or give --source.")
    sources: dict[str, str] = Field({}, description="The trees' names and fingerprints; computed, never in the file.")

    def open(self) -> World:
        """Raise an error, since imported runs hold no toolkits to act with."""
        raise FrontierError("The experiment is imported; there is no world to act in.", code="world.imported")
