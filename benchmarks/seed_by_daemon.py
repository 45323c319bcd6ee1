"""A seed of the shipped miniature by Dagster's daemon alone, from an empty folder, with a `kill -9` of everything.

``python -m benchmarks.seed_by_daemon [DATA]``; DATA is a data folder with a run of the miniature by `frontier run`, to
compare with.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import dagster as dg
import yaml

from benchmarks.daemon import IMPATIENT, make_place, make_through_an_outage, tell
from dagster_project.artifacts import ArtifactStore
from dagster_project.experiment.spec import experiment_path

SEED = 0
TIMEOUT_S = 3600.0


def miniature() -> dict[str, object]:
    """Returns the shipped miniature with one seed, a GPU to take turns on, and a look at the seeds every minute."""
    shipped = yaml.safe_load(experiment_path("miniature").read_text(encoding="utf-8"))
    grid = {**shipped["grid"], "seeds": [SEED]}
    return {**shipped, "grid": grid, "operations": {"gpu": True, "cron": "* * * * *"}}


def compare(ours: ArtifactStore, theirs: ArtifactStore) -> None:
    """Prints how many partitions of ours another store has with the same content."""
    made = {manifest.ref: manifest.sha256 for manifest in ours.manifests() if manifest.partition}
    other = {manifest.ref: manifest.sha256 for manifest in theirs.manifests()}
    equal = sum(other.get(ref) == content for ref, content in made.items())
    print(
        f"{equal} of {len(made)} partitions equal those of `frontier run`; {len(made.keys() - other.keys())} it has not"
    )


def main() -> None:
    """Prints what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        place, graph = make_place(Path(folder) / "seed", miniature(), **IMPATIENT)
        with dg.DagsterInstance.from_config(place.environment["DAGSTER_HOME"]) as instance:
            tell(place, graph, instance, make_through_an_outage(place, instance, TIMEOUT_S))
        if len(sys.argv) > 1:
            ours = ArtifactStore(Path(place.environment["FRONTIER_DATA"]), "miniature")
            compare(ours, ArtifactStore(Path(sys.argv[1]), "miniature"))


if __name__ == "__main__":
    main()
