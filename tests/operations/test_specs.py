"""Specifications follow the experiment file, and Dagster's own marks of staleness with them."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from benchmarks.standin import StandInFactory
from dagster_project.artifacts import Ref
from dagster_project.definitions import build_definitions
from dagster_project.operations.specs import SPECS, stale_specs
from dagster_project.operations.state import State, states
from tests.conftest import SMALL
from tests.operations.conftest import InstanceLab

AGENT, SEED = "eager:safe:strict:0.1", "0"
CHANGED = {"training": {**SMALL["training"], "learning_rate": 1e-3}}  # type: ignore[dict-item]


def run(lab: InstanceLab, definitions: dg.Definitions, asset: str) -> None:
    """Makes the agent's partition of an asset in process, as Dagster does."""
    job = definitions.resolve_implicit_global_asset_job_def()
    key = dg.AssetKey(["small", *asset.split("/")])
    assert job.execute_in_process(partition_key=f"{AGENT}|{SEED}", asset_selection=[key], instance=lab.instance).success


def make_inputs(lab: InstanceLab, ref: Ref) -> None:
    """Makes what a partition reads and is not there, with what that reads."""
    for source in lab.graph.nodes[ref.asset].sources(ref):
        if lab.store.manifest(source) is None:
            make_inputs(lab, source)
            lab.make(source.asset, **dict(source.partition))


def status(lab: InstanceLab, asset: str) -> StaleStatus:
    """Returns how Dagster's UI marks the agent's partition of an asset."""
    graph = lab.repository.asset_graph
    resolver = CachingStaleStatusResolver(lab.instance, graph, LoadingContextForTest(lab.instance))
    return resolver.get_status(dg.AssetKey(["small", *asset.split("/")]), f"{AGENT}|{SEED}")


def test_a_changed_parameter_is_shown_without_a_person_doing_anything(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.standin.SECONDS", 0)
    lab = InstanceLab(tmp_path, instance)
    assert not lab.look_of(SPECS).run_requests, "the first specifications belong to their seed"
    node = lab.graph.nodes["stage_1/adapters"]
    ref = Ref.of(node.name, agent=AGENT, seed=SEED)
    run(lab, build_definitions(lab.experiment), "agent_specs")
    make_inputs(lab, ref)
    run(lab, build_definitions(lab.experiment, StandInFactory), node.name)
    assert status(lab, node.name) is StaleStatus.FRESH

    changed = InstanceLab(tmp_path, instance, **CHANGED)
    assert stale_specs(changed.graph, changed.store) == [Ref.of("agent_specs", agent=AGENT, seed=SEED)]
    assert status(changed, node.name) is StaleStatus.FRESH, "that is what Dagster sees by itself"
    (request,) = changed.look_of(SPECS).run_requests
    assert request.job_name in (None, SPECS)
    assert changed.repository.get_job(SPECS).execute_in_process(instance=instance).success
    assert stale_specs(changed.graph, changed.store) == []
    assert status(changed, "agent_specs") is StaleStatus.FRESH
    assert status(changed, node.name) is StaleStatus.STALE
    assert states(changed.graph, changed.store)[ref].state is State.stale
    assert not changed.look_of(SPECS).run_requests
    assert changed.store.manifest(ref) == lab.store.manifest(ref), "nothing that was trained is made again"


def launch(lab: InstanceLab, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """Returns the run that the daemon would launch for what the sensor asks for, in a status."""
    return lab.instance.create_run_for_job(lab.repository.get_job(SPECS), tags=dict(request.tags), status=status)


def test_a_run_that_fails_is_followed_by_another_and_no_change_is_lost(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    first = InstanceLab(tmp_path, instance)
    run(first, build_definitions(first.experiment), "agent_specs")
    lab = InstanceLab(tmp_path, instance, **CHANGED, operations={"retry_after_s": 0})
    (request,) = lab.look_of(SPECS).run_requests
    begun = launch(lab, request, dg.DagsterRunStatus.STARTED)
    beside = lab.look_of(SPECS)
    assert not beside.run_requests and "is making them" in beside.skip_message, "one at a time"
    instance.report_run_failed(begun, "its process is gone")
    (again,) = lab.look_of(SPECS).run_requests
    instance.report_run_canceled(launch(lab, again, dg.DagsterRunStatus.STARTED))
    assert "was cancelled" in lab.look_of(SPECS).skip_message
    assert lab.repository.get_job(SPECS).execute_in_process(instance=instance, tags=dict(again.tags)).success
    assert stale_specs(lab.graph, lab.store) == []
    for said in ("as the experiment file says", "is as it was"):
        assert said in lab.look_of(SPECS).skip_message


def test_after_runs_that_failed_there_is_more_and_more_time(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    first = InstanceLab(tmp_path, instance)
    run(first, build_definitions(first.experiment), "agent_specs")
    lab = InstanceLab(tmp_path, instance, **CHANGED, operations={"retry_after_s": 1000})
    (request,) = lab.look_of(SPECS).run_requests
    for least in (1000, 2000):
        instance.report_run_failed(launch(lab, request, dg.DagsterRunStatus.STARTED), "no room on the disk")
        waits = lab.look_of(SPECS)
        assert not waits.run_requests
        left = re.search(r"another one follows in (\d+) s", waits.skip_message)
        assert left and least - 500 < int(left[1]) <= least
