"""Seeds by the daemon alone: a tick makes a whole seed, an outage in the middle costs nothing but time."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from benchmarks.daemon import Daemon, Place, held, in_training, most_at_once, wait_for
from dagster_project.experiment.assets import dagster_partition_key
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.pools import GPU, pool_of
from dagster_project.experiment.spec import load_experiment
from dagster_project.operations.state import State, states
from tests.conftest import SMALL, Lab, make_lab
from tests.operations.test_kills import contents
from tests.operations.test_run import store_of
from tests.operations.test_ui import WORKSPACE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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
        grid={**SMALL["grid"], "recipes": ["safe", "safe_then_help"], "seeds": [0]},  # type: ignore[dict-item]
        judges={"strict": SMALL["judges"]["strict"]},  # type: ignore[index]
        operations={"cron": "* * * * *", "gpu": True},
    )
    place = Place(lab.directory, {**lab.environment, "FRONTIER_EXPERIMENT": "small.yaml"})
    place.prepare(WORKSPACE, max_concurrent_runs=4, poll_interval_seconds=2, free_slots_after_run_end_seconds=2)
    place.dagster("schedule", "start", "seeds")
    graph = build_graph(load_experiment(str(lab.experiment)))
    with dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance:
        with Daemon(place) as daemon:
            wait_for(lambda: bool(in_training(instance)), 900, "a training")
            (killed, *_) = in_training(instance)
            daemon.kill()
        run = instance.get_run_by_id(killed)
        assert run is not None and run.status is dg.DagsterRunStatus.STARTED
        with Daemon(place):
            wait_for(lambda: ended(instance), 900, "the backfill's end")
            last = len(looks(instance))
            wait_for(lambda: len(looks(instance)) > last, 180, "a look at the seeds after the end")
        yield Seed(lab, instance, graph, killed)


def ended(instance: dg.DagsterInstance) -> bool:
    return all(backfill.status is BulkActionStatus.COMPLETED_SUCCESS for backfill in instance.get_backfills())


def looks(instance: dg.DagsterInstance) -> list[str]:
    """Returns what looking at the seeds came to, the latest first."""
    return [
        str(event.step_output_data.metadata["reason"].value)
        for run in instance.get_runs(dg.RunsFilter(job_name="seeds", statuses=[dg.DagsterRunStatus.SUCCESS]))
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)
        if (event := entry.dagster_event) is not None
    ]


def test_the_seed_is_whole_and_as_frontier_run_makes_it(seed: Seed, finished: Lab) -> None:
    assert {found.state for found in states(seed.graph, store_of(seed.lab)).values()} == {State.done}
    ours, theirs = contents(seed.lab), contents(finished)
    partitioned = {ref for ref in ours if ref.partition}
    assert {ref: ours[ref] for ref in partitioned} == {ref: theirs[ref] for ref in partitioned}


def test_one_backfill_did_it_and_the_next_tick_nothing(seed: Seed) -> None:
    (backfill,) = seed.instance.get_backfills()
    assert backfill.tags["frontier/seed"] == "0"
    found = looks(seed.instance)
    assert "no seed lacks anything" in found[0]
    assert "partitions to make" in found[-1]


def test_the_killed_run_was_found_and_made_again(seed: Seed) -> None:
    run = seed.instance.get_run_by_id(seed.killed_run)
    assert run is not None and run.status is dg.DagsterRunStatus.FAILURE
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
    made: dict[tuple[str, str | None], int] = {}
    for name in seed.graph.nodes:
        key = dg.AssetKey(["small", *name.split("/")])
        for record in seed.instance.fetch_materializations(key, limit=1000, ascending=True).records:
            made.setdefault((name, record.partition_key), record.storage_id)
    for node in seed.graph.nodes.values():
        for ref in node.refs():
            for source in node.inputs(ref):
                before = made[source.asset, dagster_partition_key(source)]
                assert before < made[ref.asset, dagster_partition_key(ref)]


def test_never_two_steps_had_the_gpu_with_four_runs_at_once(seed: Seed) -> None:
    experiment = seed.graph.experiment
    pooled = {f"small__{name.replace('/', '__')}" for name in seed.graph.nodes if pool_of(experiment, name) == GPU}
    (backfill,) = seed.instance.get_backfills()
    found = held(seed.instance, backfill.backfill_id, pooled)
    assert len(found) > len(pooled)
    assert all(earlier.end <= later.begin for earlier, later in itertools.pairwise(found))
    assert most_at_once(seed.instance) > 1, "no two runs were beside each other, so that says nothing"
