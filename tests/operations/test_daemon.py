"""Seeds by the daemon alone: a tick makes a whole seed, an outage in the middle costs nothing but time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

import dagster as dg
import pytest

from benchmarks.daemon import (
    LOCATION,
    Place,
    gpu_steps,
    held,
    looks,
    make_through_an_outage,
    most_at_once,
    overlaps,
    ticks,
    too_early,
    unlike,
)
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.spec import load_experiment
from dagster_project.operations.instance import OWNER_TAG
from dagster_project.operations.schedules import SEEDS
from dagster_project.operations.state import State, states
from tests.conftest import SMALL, Lab, make_lab
from tests.operations.test_kills import contents
from tests.operations.test_run import store_of
from tests.servers import postgresql_programs, postgresql_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Seed(NamedTuple):
    """A lab in which the daemon made a seed, was killed on the way, and looked at the seeds again at the end."""

    lab: Lab
    instance: dg.DagsterInstance
    graph: Graph
    killed_run: str


@pytest.fixture(scope="module", params=["files", "postgresql"])
def records(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where Dagster keeps its records: its own files, as on a laptop, or a PostgreSQL of this module's own."""
    programs = postgresql_programs() if request.param == "postgresql" else None
    if request.param == "postgresql" and programs is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    with postgresql_server(programs) if programs else nullcontext({}) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.items():
            patch.setenv(name, value)
        yield request.param


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory, records: str) -> Iterator[Seed]:
    lab = make_lab(
        tmp_path_factory.mktemp("daemon") / "lab",
        grid={**SMALL["grid"], "recipes": ["safe", "safe_then_help"], "seeds": [0]},  # type: ignore[dict-item]
        judges={"strict": SMALL["judges"]["strict"]},  # type: ignore[index]
        operations={"cron": "* * * * *", "gpu": True},
    )
    place = Place(lab.directory, {**lab.environment, "FRONTIER_EXPERIMENT": "small.yaml"})
    workspace = LOCATION.format(module="dagster_project.definitions", name="small")
    place.prepare(workspace, max_concurrent_runs=4, poll_interval_seconds=2, free_slots_after_run_end_seconds=2)
    graph = build_graph(load_experiment(str(lab.experiment)))
    with dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance:
        assert ("Postgres" in type(instance.run_storage).__name__) == (records == "postgresql")
        outage = make_through_an_outage(place, instance, 900)
        yield Seed(lab, instance, graph, outage.run_id)


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
    assert ticks(seed.instance, SEEDS)["SKIPPED"], "while it was under way, no run said so"


def test_the_killed_run_was_found_and_made_again(seed: Seed) -> None:
    run = seed.instance.get_run_by_id(seed.killed_run)
    assert run is not None and run.status is dg.DagsterRunStatus.FAILURE
    assert any(run.parent_run_id == seed.killed_run for run in seed.instance.get_runs())


def test_every_run_was_a_fork(seed: Seed) -> None:
    assert all(OWNER_TAG in run.tags for run in seed.instance.get_runs())


def test_no_partition_was_made_twice_with_different_content(seed: Seed) -> None:
    assert unlike(seed.instance, seed.graph) == []


def test_runs_came_in_the_order_of_the_graph(seed: Seed) -> None:
    assert too_early(seed.instance, seed.graph) == []


def test_never_two_steps_had_the_gpu_with_four_runs_at_once(seed: Seed) -> None:
    (backfill,) = seed.instance.get_backfills()
    found = held(seed.instance, backfill.backfill_id, gpu_steps(seed.graph))
    assert len(found) > len(gpu_steps(seed.graph))
    assert overlaps(found) == 0
    assert most_at_once(seed.instance) > 1, "no two runs were beside each other, so that says nothing"
