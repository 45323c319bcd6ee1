"""Dagster's instance: its home is made once, under a lock, and runs of dead processes are not left hanging."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import psutil
import yaml
from filelock import FileLock

from dagster_project.artifacts.private import make_folder
from dagster_project.dagster_internals import InstanceRef
from dagster_project.operations.storage import STORAGES, check_storage, database_faults, write_settings

OWNER_TAG = "frontier/owner"
NO_COMPUTE_LOGS = {
    "compute_logs": {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
}


def dagster_home() -> Path:
    """Returns Dagster's home: `$DAGSTER_HOME`, or `.dagster` in the working directory."""
    return Path(os.environ.get("DAGSTER_HOME") or ".dagster").resolve()


def instance_reference() -> InstanceRef:
    """Returns what says where the instance is, without opening it; its home is made first if it is not there.

    Raises:
        FrontierError: The home keeps its records elsewhere than the environment asks for.
    """
    home = dagster_home()
    make_folder(home)
    os.environ["DAGSTER_HOME"] = str(home)
    with _changing(home):
        if not (home / "dagster.yaml").exists():
            write_settings(home / "dagster.yaml")
    overrides: dict[str, object] = dict(NO_COMPUTE_LOGS)
    settings = yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8")) or {}
    check_storage(home / "dagster.yaml", settings)
    if not STORAGES & settings.keys():
        overrides["event_log_storage"] = {
            "module": "dagster_project.operations.event_log",
            "class": "OpenedEventLog",
            "config": {"base_dir": str(home / "history" / "runs")},
        }
    with database_faults():
        return InstanceRef.from_dir(str(home), overrides=overrides)


def open_instance() -> dg.DagsterInstance:
    """Returns the instance, its home and its databases made first if they are not there.

    Two processes that start on a fresh home at once would corrupt it, hence the lock.

    Raises:
        FrontierError: The database that the home names, or the environment asks for, cannot be used.
    """
    reference = instance_reference()
    with _changing(dagster_home()), database_faults():
        instance = dg.DagsterInstance.from_ref(reference)
        instance.get_runs_count()
        instance.all_asset_keys()
        instance.get_dynamic_partitions("frontier")
    return instance


def _changing(home: Path) -> FileLock:
    return FileLock(home / ".frontier.lock")


def create_pools(instance: dg.DagsterInstance, names: Iterable[str | None]) -> None:
    """Create the pools that the instance does not have yet, with the default limit of dagster.yaml.

    Dagster creates a pool when a step first asks for it. Two steps that ask at the same time then both create it: in
    SQLite the pool gets twice its limit, and in PostgreSQL one of the two runs fails. Calling this before runs start
    avoids both.

    Args:
        instance: Dagster's instance.
        names: Names of pools; None is ignored.
    """
    storage = instance.event_log_storage
    known = {pool.name for pool in storage.get_pool_limits()}
    for name in sorted({name for name in names if name is not None} - known):
        storage.initialize_concurrency_limit_to_default(name)


def owner() -> str:
    """Returns the value of a run's owner tag: host, process, and when the process started."""
    process = psutil.Process()
    return f"{socket.gethostname()}|{process.pid}|{process.create_time():.2f}"


def fail_orphaned_runs(instance: dg.DagsterInstance) -> int:
    """Marks unfinished runs of processes that are gone as failed, and returns how many there were."""
    runs = orphaned_runs(instance)
    for run in runs:
        instance.report_run_failed(run, message="The process of this run is gone.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(runs)


def orphaned_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Returns the unfinished runs of processes that are gone.

    Only runs whose process of this host is known, so never one of a living process or another machine.
    """
    unfinished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    )
    found = []
    for run in instance.get_runs(unfinished):
        host, _, rest = run.tags.get(OWNER_TAG, "").partition("|")
        if host == socket.gethostname() and process_of(rest) is None:
            found.append(run)
    return found


def process_of(identity: str) -> psutil.Process | None:
    """Returns a process, by its number and when it started, as `owner` writes them after the host; None: it is gone."""
    pid, _, created = identity.partition("|")
    try:
        process = psutil.Process(int(pid))
        there = abs(process.create_time() - float(created)) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError):
        return None
    return process if there else None
