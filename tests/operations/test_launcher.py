"""Is the process of a run there? Asked of real processes, and of one that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from dagster_project.operations.instance import OWNER_TAG, owner
from dagster_project.operations.launcher import WatchedRunLauncher


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
