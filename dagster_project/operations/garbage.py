"""`frontier gc`: what takes room and is needed by nothing, found and removed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from dagster_project.artifacts import ArtifactStore, Manifest
from dagster_project.artifacts.lease import Tell
from dagster_project.artifacts.store import JOURNAL
from dagster_project.experiment.graph import WEIGHTS, Graph
from dagster_project.experiment.nodes import Kind
from dagster_project.experiment.retention import idle_merged, weights_of
from dagster_project.operations.instance import fail_orphaned_runs, orphaned_runs
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
        unnamed: Folders that no manifest names, with their bytes: runs left by crashes, or replaced by later runs and
            read by nothing that counts; journals of what is made by now.
        merged: Merged models of which everything that reads them is made, if the experiment keeps only what is needed.
    """

    unnamed: dict[Path, int]
    merged: list[Manifest]

    @property
    def bytes(self) -> int:
        """What goes with all of it."""
        return sum(self.unnamed.values()) + sum(map(weights_of, self.merged))


def find_garbage(graph: Graph, store: ArtifactStore) -> Garbage:
    """Returns what nothing needs. Trajectories, verdicts and adapters that a manifest names are never among it.

    What is being written is, since nothing names it yet: see `under_way`.
    """
    merged = [manifest.ref for manifest in store.manifests() if graph.kind_of(manifest) is Kind.merged]
    keep_all = graph.experiment.trainer.keep_merged == "all"
    return Garbage(
        store.garbage(ref for node in graph.nodes.values() for ref in node.refs()),
        [] if keep_all else idle_merged(graph, store, merged),
    )


def collect_garbage(
    graph: Graph, store: ArtifactStore, instance: dg.DagsterInstance, tell: Tell = lambda line: None
) -> Garbage:
    """Removes what nothing needs, and returns what that was.

    Args:
        graph: The experiment's.
        store: Where it is.
        instance: Dagster's.
        tell: Is told what is waited for.

    Raises:
        FrontierError: Something of the experiment is being made, whose drafts nothing names yet.
    """
    store.check()
    with store.being_made(tell):
        fail_orphaned_runs(instance)
        writing = _runs_under_way(graph, instance)
        if writing:
            raise FrontierError(f"{writing} Wait until it ended.")
        found = find_garbage(graph, store)
        store.check_held()
        store.collect(found.unnamed)
        for manifest in found.merged:
            store.release(manifest, WEIGHTS)
        return found


def under_way(graph: Graph, store: ArtifactStore, instance: dg.DagsterInstance) -> str:
    """Returns, as a sentence, what is making something of the experiment just now; empty if nothing is."""
    return store.maker() or _runs_under_way(graph, instance)


def _runs_under_way(graph: Graph, instance: dg.DagsterInstance) -> str:
    name, gone = graph.experiment.name, {run.run_id for run in orphaned_runs(instance)}
    runs = instance.get_runs(RunsFilter(statuses=UNFINISHED))
    found = [run.run_id for run in runs if run.run_id not in gone and _is_of(run, name)]
    return f"{name}: {len(found)} runs are under way ({found[0]} …)." if found else ""


def _is_of(run: dg.DagsterRun, name: str) -> bool:
    """Whether a run makes something of an experiment; of one that does not say what it makes, that is assumed."""
    return run.asset_selection is None or any(key.path[0] == name for key in run.asset_selection)


def told(found: Garbage, store: ArtifactStore, *, dry_run: bool, writing: str = "") -> list[str]:
    """Returns a line for everything that nothing needs, and one that sums up.

    Args:
        found: What nothing needs.
        store: Where it is.
        dry_run: Whether it is still there.
        writing: What `under_way` says.
    """
    rows = [
        (
            f"{path.relative_to(store.root)}: "
            + ("it is made" if path.parent.name == JOURNAL else "no manifest names it"),
            size,
        )
        for path, size in found.unnamed.items()
    ]
    rows += [(f"{one.ref.label}: weights that nothing unfinished reads", weights_of(one)) for one in found.merged]
    done = "would be removed (--dry-run)" if dry_run else "removed"
    return [
        *(f"{size / 1e6:>10,.1f} MB  {what}" for what, size in rows),
        f"{found.bytes / 1e6:,.1f} MB in {len(rows)} places {done}.",
        *([writing, "What it writes is among these, and nothing is removed until it ended."] if writing else []),
    ]
