"""How runs start and end, and whether the process of one is there: asked of real ones, and of one that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.hosted_user_process import recon_job_from_origin

from benchmarks.daemon import LOCATION, Place, wait_for
from dagster_project.operations.instance import OWNER_TAG, owner, process_of
from dagster_project.operations.launcher import WatchedRunLauncher
from tests.conftest import make_lab


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def health(instance: dg.DagsterInstance, tags: dict[str, str], pid: int | None) -> WorkerStatus:
    run = instance.create_run_for_job(dg.job(name="some")(lambda: None), tags=tags)
    if pid is not None:
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run)
    launcher = WatchedRunLauncher()
    launcher.register_instance(instance)
    assert launcher.supports_check_run_worker_health, "or run monitoring never asks"
    return launcher.check_run_worker_health(run).status


def here(host: str = "localhost") -> dict[str, str]:
    return {GRPC_INFO_TAG: json.dumps({"host": host, "socket": "/tmp/x"})}


def test_a_process_that_is_there(instance: dg.DagsterInstance) -> None:
    assert health(instance, here(), os.getpid()) is WorkerStatus.RUNNING
    assert health(instance, {OWNER_TAG: owner()}, None) is WorkerStatus.RUNNING


def test_a_process_that_is_gone(instance: dg.DagsterInstance) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    assert health(instance, here(), gone.pid) is WorkerStatus.NOT_FOUND
    host, pid, began = owner().split("|")
    assert health(instance, {OWNER_TAG: f"{host}|{pid}|{float(began) - 100}"}, None) is WorkerStatus.NOT_FOUND


def test_another_process_with_the_number_of_one_that_is_gone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time() + 60)  # it began after the run did
    assert health(instance, here(), os.getpid()) is WorkerStatus.NOT_FOUND


def test_processes_of_other_machines_are_left_alone(instance: dg.DagsterInstance) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    assert health(instance, here("far.example"), gone.pid) is WorkerStatus.RUNNING
    assert health(instance, {OWNER_TAG: "far|1|0"}, None) is WorkerStatus.RUNNING
    assert health(instance, here(), None) is WorkerStatus.RUNNING


class Launched(NamedTuple):
    """A run of an asset whose stand-in work takes longer than any test, while that is done."""

    instance: dg.DagsterInstance
    run: dg.DagsterRun
    process: psutil.Process


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launched]:
    monkeypatch.setattr("dagster_project.operations.launcher.TRAINING", ())  # nothing is trained
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # one of an earlier test has that test's environment
    lab = make_lab(tmp_path / "lab")
    place = Place(lab.directory, {**lab.environment, "FRONTIER_EXPERIMENT": "small.yaml", "STANDIN_SECONDS": "300"})
    place.prepare(LOCATION.format(module="benchmarks.standin", name="small"))
    for name in ("FRONTIER_DATA", "DAGSTER_HOME", "FRONTIER_EXPERIMENT", "STANDIN_SECONDS", "PYTHONPATH"):
        monkeypatch.setenv(name, place.environment[name])
    monkeypatch.chdir(lab.directory)
    monkeypatch.syspath_prepend(lab.directory)  # Dagster leaves out what comes first: a script's folder
    target = WorkspaceFileTarget([str(lab.directory / "workspace.yaml")])
    with (
        dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        run = created(instance, context.create_request_context())
        instance.run_launcher.launch_run(LaunchRunContext(run, context.create_request_context()))
        wait_for(lambda: bool(steps_started(instance, run.run_id)), 120, "the step")
        found = instance.get_run_by_id(run.run_id)
        assert found is not None and found.status is dg.DagsterRunStatus.STARTED
        process = process_of(found.tags[OWNER_TAG].partition("|")[2])
        assert process is not None
        yield Launched(instance, found, process)


@pytest.mark.slow
def test_a_run_is_a_fork_that_is_found_and_ends_when_it_is_told_to(launched: Launched) -> None:
    instance, run, process = launched
    assert GRPC_INFO_TAG not in run.tags, "Dagster's code server did not start it"
    assert process.parent() in psutil.Process().children(recursive=True)
    assert instance.run_launcher.terminate(run.run_id)
    wait_for(lambda: instance.get_runs()[0].is_finished, 60, "its end")
    assert instance.get_runs()[0].status is dg.DagsterRunStatus.CANCELED
    assert not instance.run_launcher.terminate(run.run_id), "there is nobody to ask any more"


@pytest.mark.slow
def test_a_step_does_not_outlive_its_run(launched: Launched) -> None:
    steps = launched.process.children()
    assert steps
    launched.process.kill()
    assert psutil.wait_procs(steps, timeout=60)[1] == [], "an orphan goes on, beside whoever tries the run again"


def created(instance: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext) -> dg.DagsterRun:
    """Returns a run of an asset that stands in for its work, as the daemon creates it."""
    (repository,) = workspace.get_code_location("small").get_repositories().values()
    remote = repository.get_full_job("__ASSET_JOB")
    selection = frozenset({dg.AssetKey(["small", "source_models"])})
    origin = remote.get_python_origin()
    job = recon_job_from_origin(origin).get_subset(asset_selection=selection)
    return instance.create_run_for_job(
        job.get_definition(),
        asset_selection=selection,
        tags={"dagster/partition": "eager"},
        remote_job_origin=remote.get_remote_origin(),
        job_code_origin=origin,
    )


def steps_started(instance: dg.DagsterInstance, run_id: str) -> list[dg.EventLogEntry]:
    return list(instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START))
