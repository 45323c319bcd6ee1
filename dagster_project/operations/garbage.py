"""`frontier gc`: what takes room and is needed by nothing, found and removed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from filelock import Timeout

from dagster_project.artifacts import ArtifactStore, Manifest
from dagster_project.experiment.graph import WEIGHTS, Graph
from dagster_project.experiment.retention import MERGED, idle_merged, weights_of
from dagster_project.operations.instance import fail_orphaned_runs
from toolemu.errors import FrontierError

UNFINISHED = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.MANAGED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


class Garbage(NamedTuple):
    """What nothing needs.

    Attributes:
        unnamed: Folders of runs that no manifest names, with their bytes: left by crashes, or replaced by later runs
            and read by nothing that counts.
        merged: Merged models of which everything that reads them is made, if the experiment keeps only what is needed.
    """

    unnamed: dict[Path, int]
    merged: list[Manifest]

    @property
    def bytes(self) -> int:
        """What goes with all of it."""
        return sum(self.unnamed.values()) + sum(map(weights_of, self.merged))


def find_garbage(graph: Graph, store: ArtifactStore) -> Garbage:
    """Returns what nothing needs. Trajectories, verdicts and adapters that a manifest names are never among it."""
    merged = [manifest.ref for manifest in store.manifests() if manifest.asset.endswith(MERGED)]
    keep_all = graph.experiment.trainer.keep_merged == "all"
    return Garbage(
        store.garbage(ref for node in graph.nodes.values() for ref in node.refs()),
        [] if keep_all else idle_merged(graph, store, merged),
    )


def collect_garbage(graph: Graph, store: ArtifactStore, instance: dg.DagsterInstance) -> Garbage:
    """Removes what nothing needs, and returns what that was.

    Raises:
        FrontierError: Something of the experiment is being made, whose drafts nothing names yet.
    """
    name = graph.experiment.name
    store.check()
    try:
        with store.being_made():
            fail_orphaned_runs(instance)
            writing = [run.run_id for run in instance.get_runs(RunsFilter(statuses=UNFINISHED)) if _is_of(run, name)]
            if writing:
                raise FrontierError(f"{name}: {len(writing)} runs are under way ({writing[0]}). Wait until they ended.")
            found = find_garbage(graph, store)
            store.collect(found.unnamed)
            for manifest in found.merged:
                store.release(manifest, WEIGHTS)
            return found
    except Timeout:
        raise FrontierError(f"A `frontier run {name}` is under way on {store.place()}. Wait until it ended.") from None


def _is_of(run: dg.DagsterRun, name: str) -> bool:
    """Whether a run makes something of an experiment; of one that does not say what it makes, that is assumed."""
    return run.asset_selection is None or any(key.path[0] == name for key in run.asset_selection)


def told(found: Garbage, store: ArtifactStore, *, dry_run: bool) -> list[str]:
    """Returns a line for everything that nothing needs, and one that sums up."""
    rows = [(f"{path.relative_to(store.root)}: no manifest names it", size) for path, size in found.unnamed.items()]
    rows += [(f"{one.ref.label}: weights that nothing unfinished reads", weights_of(one)) for one in found.merged]
    done = "would be removed (--dry-run)" if dry_run else "removed"
    return [
        *(f"{size / 1e6:>10,.1f} MB  {what}" for what, size in rows),
        f"{found.bytes / 1e6:,.1f} MB in {len(rows)} places {done}.",
    ]
