"""Seeds by the daemon alone: a tick makes a whole seed, an outage in the middle costs nothing but time."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.tags import BACKFILL_ID_TAG

from dagster_project.artifacts import Ref
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.pools import GPU, pool_of
from dagster_project.experiment.spec import load_experiment
from dagster_project.operations.state import State, states
from tests.conftest import SMALL, Lab, make_lab
from tests.operations.daemon import Daemon, dagster, prepare, wait_for
from tests.operations.test_kills import contents
from tests.operations.test_run import store_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ENDS = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)


class Seed(NamedTuple):
    """A lab in which the daemon made a seed, was killed on the way, and looked at the seeds again at the end."""

    lab: Lab
    instance: dg.DagsterInstance
    graph: Graph
    killed_run: str


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seed]:
    lab = make_lab(
        tmp_path_factory.mktemp("daemon") / "lab",
        grid={**SMALL["grid"], "seeds": [0]},  # type: ignore[dict-item]
        operations={"cron": "* * * * *", "gpu": True},
    )
    prepare(lab, max_concurrent_runs=4, poll_interval_seconds=2, free_slots_after_run_end_seconds=2)
    dagster(lab, "schedule", "start", "seeds")
    graph = build_graph(load_experiment(str(lab.experiment)))
    with dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance:
        with Daemon(lab) as daemon:
            wait_for(lambda: bool(training(instance)), 600, "a training")
            (killed, *_) = training(instance)
            daemon.kill()
        assert instance.get_run_by_id(killed).status is dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
        with Daemon(lab):
            wait_for(
                lambda: all(found.is_finished for found in instance.get_runs()) and ended(instance), 900, "the end"
            )
            last = len(looks(instance))
            wait_for(lambda: len(looks(instance)) > last, 180, "a look at the seeds after the end")
        yield Seed(lab, instance, graph, killed)


def training(instance: dg.DagsterInstance) -> list[str]:
    """Returns the runs in which an adapter is being trained."""
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return [
        run.run_id
        for run in started
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
        if "adapters" in (entry.step_key or "")
    ]


def ended(instance: dg.DagsterInstance) -> bool:
    return all(backfill.status is BulkActionStatus.COMPLETED_SUCCESS for backfill in instance.get_backfills())


def looks(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Returns the finished runs of the job that looks at the seeds, the latest first."""
    return list(instance.get_runs(dg.RunsFilter(job_name="seeds", statuses=[dg.DagsterRunStatus.SUCCESS])))


def test_the_seed_is_whole_and_as_frontier_run_makes_it(seed: Seed, finished: Lab) -> None:
    assert {found.state for found in states(seed.graph, store_of(seed.lab)).values()} == {State.done}
    ours, theirs = contents(seed.lab), contents(finished)
    partitioned = {ref for ref in ours if ref.partition}
    assert {ref: ours[ref] for ref in partitioned} == {ref: theirs[ref] for ref in partitioned}


def test_one_backfill_did_it_and_the_next_tick_nothing(seed: Seed) -> None:
    (backfill,) = seed.instance.get_backfills()
    assert backfill.tags["frontier/seed"] == "0"
    reasons = [
        json.dumps(entry.dagster_event.step_output_data.metadata["reason"].value)  # type: ignore[union-attr]
        for run in looks(seed.instance)
        for entry in seed.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)
    ]
    assert "no seed lacks anything" in reasons[0]
    assert "partitions to make" in reasons[-1]


def test_the_killed_run_was_found_and_made_again(seed: Seed) -> None:
    assert seed.instance.get_run_by_id(seed.killed_run).status is dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
    assert any(run.parent_run_id == seed.killed_run for run in seed.instance.get_runs())


def test_no_partition_was_made_twice_with_different_content(seed: Seed) -> None:
    for name, node in seed.graph.nodes.items():
        versions = defaultdict(set)
        key = dg.AssetKey(["small", *name.split("/")])
        for record in seed.instance.fetch_materializations(key, limit=1000).records:
            made = record.asset_materialization
            assert made is not None and made.tags is not None
            versions[made.partition].add(made.tags["dagster/data_version"])
        assert len(versions) == len(node.refs())
        assert all(len(found) == 1 for found in versions.values()), name


def test_runs_came_in_the_order_of_the_graph(seed: Seed) -> None:
    made = {}
    for name in seed.graph.nodes:
        key = dg.AssetKey(["small", *name.split("/")])
        for record in seed.instance.fetch_materializations(key, limit=1000, ascending=True).records:
            made.setdefault((name, record.partition_key), record.storage_id)
    for name, node in seed.graph.nodes.items():
        for ref in node.refs():
            for source in node.inputs(ref):
                assert made[source.asset, keys(source)] < made[name, keys(ref)]


def keys(ref: Ref) -> str | None:
    return "|".join(key for _, key in ref.partition) or None


def test_never_two_steps_had_the_gpu_with_four_runs_at_once(seed: Seed) -> None:
    experiment = seed.graph.experiment
    pooled = {"small__" + name.replace("/", "__") for name in seed.graph.nodes if pool_of(experiment, name) == GPU}
    held, most = [], 0
    for run in seed.instance.get_runs(
        dg.RunsFilter(tags={BACKFILL_ID_TAG: seed.instance.get_backfills()[0].backfill_id})
    ):
        entries = list(seed.instance.all_logs(run.run_id))
        for entry in entries:
            if entry.step_key in pooled and entry.dagster_event and entry.dagster_event.is_step_start:
                end = next(
                    (
                        other.timestamp
                        for other in entries
                        if other.step_key == entry.step_key
                        and other.timestamp > entry.timestamp
                        and other.dagster_event
                        and other.dagster_event.event_type in ENDS
                    ),
                    entry.timestamp,  # of the killed one it is known only that it had the GPU then
                )
                held.append((entry.timestamp, end))
        most = max(most, at_once(seed.instance, entries[0].timestamp))
    held.sort()
    assert len(held) > len(pooled)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(held))
    assert most > 1, "runs never were beside each other, so that says nothing"


def at_once(instance: dg.DagsterInstance, moment: float) -> int:
    """Returns how many runs were under way."""
    records = instance.get_run_records(limit=1000)
    return sum(
        bool(record.start_time and record.end_time and record.start_time <= moment < record.end_time)
        for record in records
    )
