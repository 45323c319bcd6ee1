"""One backfill over the next seed that lacks something: the whole sub-graph of that seed, in Dagster's hands.

The daemon launches its runs in the order of the graph. Two calls at once launch one: the backfill's id follows from
what it is for, and Dagster takes an id once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import dagster as dg
import orjson
from sqlalchemy.exc import IntegrityError

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.failures import failures
from dagster_project.dagster_internals import PRIORITY_TAG
from dagster_project.dagster_internals.backfills import (
    BULK_ACTION_TERMINAL_STATUSES,
    AssetGraph,
    AssetGraphSubset,
    AssetKeyPartitionKey,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)
from dagster_project.experiment.assets import AssetFactory, dagster_partition_key
from dagster_project.experiment.causes import PASSING
from dagster_project.experiment.graph import Graph
from dagster_project.operations.instance import create_pools
from dagster_project.operations.state import PartitionState, Plan, State, make_plan, states

EXPERIMENT_TAG = "frontier/experiment"
SEED_TAG = "frontier/seed"
WORK_TAG = "frontier/work"
"""Of a backfill: a hash of what was missing when it was launched."""
PRIORITY = "-10"
"""Of its runs in the queue: what a person launches goes first."""


class SeedWork(NamedTuple):
    """What is to be made for a seed: its missing partitions, what they need, and what follows from them cheaply."""

    seed: int
    refs: tuple[Ref, ...]

    @property
    def digest(self) -> str:
        """A hash of it."""
        return hashlib.sha256(orjson.dumps([str(ref) for ref in self.refs])).hexdigest()[:16]


class Launch(NamedTuple):
    """What came of a look at the seeds: the backfill launched, if any, and why that or none."""

    backfill_id: str | None
    reason: str


def next_seed(graph: Graph, current: Mapping[Ref, PartitionState], seeds: Collection[int] = ()) -> SeedWork | None:
    """Returns the work for the first seed of the experiment file, or of `seeds`, that lacks partitions.

    Raises:
        FrontierError: `seeds` names one that the experiment does not have.
    """
    for seed in seeds or graph.experiment.grid.seeds:
        plan = make_plan(graph, dict(current), seeds=[seed])
        if any(current[ref].state is State.missing for ref in _refs(plan)):
            return SeedWork(seed, _refs(plan))
    return None


def _refs(plan: Plan) -> tuple[Ref, ...]:
    return tuple(ref for unit in plan.units for ref in unit.refs)


def launch_seed(
    instance: dg.DagsterInstance,
    asset_graph: AssetGraph,
    graph: Graph,
    store: ArtifactStore,
    seeds: Collection[int] = (),
    check: Callable[[Sequence[Ref]], None] = lambda refs: None,
) -> Launch:
    """Launches a backfill over the next seed, unless one of the experiment is under way or there is nothing to make.

    Args:
        instance: Dagster's instance.
        asset_graph: The experiment's assets, as Dagster has them.
        graph: The experiment's graph.
        store: Its artifacts.
        seeds: Only these; given by a person, who wants it tried again whatever came of the last time.
        check: Called with what is to be made before that is launched; raises what stands against it.
    """
    busy = active_backfill(instance, graph.experiment.name)
    if busy is not None:
        return Launch(None, f"backfill {busy} is under way; one at a time")
    work = next_seed(graph, states(graph, store), seeds)
    if work is None:
        return Launch(None, "no seed lacks anything")
    earlier = _earlier(instance, graph.experiment.name, work.seed)
    if not seeds:
        futile = _futile(store, earlier, work)
        if futile:
            return Launch(None, futile)
    check(work.refs)
    create_pools(instance, (node.pool for node in graph.nodes.values()))
    backfill = _backfill(instance, asset_graph, graph, work, len(earlier))
    try:
        instance.add_backfill(backfill)
    except IntegrityError:
        return Launch(None, f"backfill {backfill.backfill_id} was launched by somebody else at the same moment")
    return Launch(backfill.backfill_id, f"seed {work.seed}: {len(work.refs)} partitions to make")


def active_backfill(instance: dg.DagsterInstance, experiment: str) -> str | None:
    """Returns a backfill that is under way over assets of an experiment, whoever launched it."""
    under_way = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=under_way)):
        if any(key.path[0] == experiment for key in backfill.asset_selection or ()):
            return backfill.backfill_id
    return None


def _earlier(instance: dg.DagsterInstance, experiment: str, seed: int) -> list[PartitionBackfill]:
    """Returns the backfills that were launched for a seed, the latest first."""
    tags = {EXPERIMENT_TAG: experiment, SEED_TAG: str(seed)}
    # Dagster's own filter by tags finds, on some databases, only backfills that have launched runs.
    found = [backfill for backfill in instance.get_backfills() if tags.items() <= backfill.tags.items()]
    return sorted(found, key=lambda backfill: backfill.backfill_timestamp, reverse=True)


def _futile(store: ArtifactStore, earlier: list[PartitionBackfill], work: SeedWork) -> str:
    """Says why the same would come of launching the same again; empty if something else may.

    What failed for a cause that may pass is worth another try; so is anything of which a part was made.
    """
    if not earlier or earlier[0].tags.get(WORK_TAG) != work.digest:
        return ""
    last = earlier[0]
    if last.status is BulkActionStatus.CANCELED:
        return f"backfill {last.backfill_id} over seed {work.seed} was cancelled; launch the job by hand to go on"
    since = [failure for failure in failures(store) if failure.failed_at.timestamp() >= last.backfill_timestamp]
    lasting = [failure for failure in since if failure.ref in work.refs and failure.cause not in PASSING]
    if not lasting:
        return ""
    return (
        f"backfill {last.backfill_id} over seed {work.seed} made nothing, since {lasting[0].ref.label} failed "
        f"({lasting[0].cause}): {lasting[0].message} Mend it, and launch the job by hand with this seed."
    )


def _backfill(
    instance: dg.DagsterInstance,
    asset_graph: AssetGraph,
    graph: Graph,
    work: SeedWork,
    attempt: int,
) -> PartitionBackfill:
    experiment = graph.experiment
    keys = {
        AssetKeyPartitionKey(AssetFactory.key_of(experiment, ref.asset), dagster_partition_key(ref))
        for ref in work.refs
    }
    digest = hashlib.sha256(orjson.dumps([experiment.name, work.seed, attempt])).hexdigest()[:8]
    backfill: PartitionBackfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=f"seed_{work.seed}_{digest}",  # at most 32 characters; the UI shows what is before a dash
        backfill_timestamp=time.time(),
        tags={
            EXPERIMENT_TAG: experiment.name,
            SEED_TAG: str(work.seed),
            WORK_TAG: work.digest,
            PRIORITY_TAG: PRIORITY,
        },
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset.from_asset_partition_set(keys, asset_graph),
        title=f"{experiment.name}, seed {work.seed}",
        description=None,
        run_config=None,
    )
    return backfill
