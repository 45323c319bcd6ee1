"""An imported experiment as it stands: what it is to import, and what it has imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.environments.imported import ImportedWorld
from dagster_project.experiment.graph import CODE_VERSIONS, IMPORT
from dagster_project.experiment.imported import read_inventory
from dagster_project.experiment.spec import Experiment
from dagster_project.published.sources import fingerprints
from toolemu.errors import FrontierError

SOURCES = "FRONTIER_SOURCES"
"""Environment variable with the paths to import, for Dagster's UI, where there is no `--source`."""


def open_experiment(experiment: Experiment, store: ArtifactStore, sources: Sequence[Path] = ()) -> Experiment:
    """Returns an experiment with its sources and its inventory filled in; one that is not imported as it is.

    Args:
        experiment: As in its file.
        store: Its artifacts.
        sources: What to import; empty: `$FRONTIER_SOURCES`, or what the file names.

    Raises:
        FrontierError: Sources are given and the experiment imports nothing, or a source is not there.
    """
    world = experiment.world
    if not isinstance(world, ImportedWorld):
        if sources:
            raise FrontierError(f"--source: {experiment.name} imports nothing; its agents are run here.")
        return experiment
    given = os.environ.get(SOURCES, "").split(os.pathsep)
    paths = tuple(sources) or tuple(Path(path) for path in given if path) or world.paths
    manifest = store.manifest(Ref(IMPORT))
    known = manifest is not None and manifest.code_version == CODE_VERSIONS[IMPORT]  # others have another inventory
    inventory = read_inventory(store.get(Ref(IMPORT)).path) if known else None
    if paths:
        world = world.model_copy(update={"paths": paths, "sources": fingerprints(paths)})
    elif manifest is not None:
        world = world.model_copy(update={"sources": manifest.config["sources"]})
    experiment = experiment.model_copy(update={"world": world})
    return experiment if inventory is None else experiment.with_inventory(inventory)


def check_sources(experiment: Experiment) -> None:
    """Raises a FrontierError if an imported experiment has nothing to import."""
    if isinstance(experiment.world, ImportedWorld) and not experiment.world.paths:
        hint = f"Say what: frontier run {experiment.argument} --source PATH …"
        raise FrontierError(f"{experiment.name}: there is nothing to import. {hint}")
