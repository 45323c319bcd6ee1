"""Dagster's run launcher, whose runs start at once, and which notices when the process of a run is gone.

Dagster starts every run as a new Python, which imports for seconds what the last one had imported, too, and PyTorch for
seconds more. Here a run is a fork of one process beside the daemon that has imported the libraries, and nothing of this
project: its code and the experiment file are read anew by every run, so that reloading a code location is enough.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import sys

import psutil
from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DefaultRunLauncher,
    deserialize_value,
    serialize_value,
)

from dagster_project.artifacts.processes import process_context, share_cores
from dagster_project.dagster_internals.runs import (
    GRPC_INFO_TAG,
    MODULES,
    CheckRunHealthResult,
    ExecuteRunArgs,
    GrpcServerCodeLocation,
    LaunchRunContext,
    WorkerStatus,
    execute_run,
)
from dagster_project.operations.instance import OWNER_TAG, create_pools, owner, process_of

STARTED_PROCESS = re.compile(r"Started process for run \(pid: (\d+)\)")
"""What Dagster's code server writes into a run's log; it keeps the process nowhere else."""
LOCAL = ("localhost", "127.0.0.1", socket.gethostname())
CLOCK_S = 2.0
LIBRARIES = (
    "alembic",  # Dagster's databases
    *MODULES,
    "duckdb",
    "jinja2",
    "pandas",
    "pyarrow.parquet",
    "rich.console",
    "scipy.stats",
)
"""What every run imports sooner or later."""
TRAINING = ("peft", "torch", "transformers.models.llama", "trl.trainer.dpo_trainer")
"""What trainings and models in process import, too."""


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's own, with two things more.

    Runs of code locations of this Python on this machine are forks; others start as Dagster starts them.

    Runs of Dagster's stay STARTED for ever when everything is killed at once, and backfills with them. With this one,
    Dagster's run monitoring finds them, marks them failed and has them tried again. Only processes of this machine can
    be looked for; a run of another one counts as running.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run, with the pools of its steps created first."""
        concurrency = context.dagster_run.run_op_concurrency
        create_pools(self._instance, (concurrency and concurrency.all_pools) or ())
        if not _is_of_this_python(context):
            super().launch_run(context)
            return
        run = context.dagster_run
        assert run.job_code_origin is not None
        arguments = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref())
        libraries = list(LIBRARIES)
        if not shutil.which("nvidia-smi"):  # where there is a GPU: CUDA does not survive a fork of who asked for it
            libraries += TRAINING
            share_cores()
        process_context(libraries).Process(target=execute, args=(serialize_value(arguments),)).start()

    def terminate(self, run_id: str) -> bool:
        """Asks a run to end; returns whether there is somebody to ask."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or run.remote_job_origin is None or OWNER_TAG not in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        host, _, rest = run.tags[OWNER_TAG].partition("|")
        process = process_of(rest) if host == socket.gethostname() else None
        if process is not None:
            process.terminate()
        return process is not None

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring can ask: yes."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Returns whether the process of a run is there."""
        there = self._is_there(run)
        status = WorkerStatus.NOT_FOUND if there is False else WorkerStatus.RUNNING
        return CheckRunHealthResult(status, "" if there is not False else "its process is gone")

    def _is_there(self, run: DagsterRun) -> bool | None:
        """Returns whether the process of a run is there; None where that cannot be known."""
        host, _, rest = run.tags.get(OWNER_TAG, "").partition("|")
        if host:
            return process_of(rest) is not None if host == socket.gethostname() else None
        if not any(f'"{place}"' in run.tags.get(GRPC_INFO_TAG, "") for place in LOCAL):
            return None
        for entry in self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
            found = STARTED_PROCESS.search(entry.dagster_event.message or "" if entry.dagster_event else "")
            if found:
                return _ran_at(int(found[1]), entry.timestamp)
        return None


def execute(arguments: str) -> None:
    """Makes a run in this process, as `dagster api execute_run` does with the same arguments.

    Before that it notes that the run is this process's, to be found there.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what the daemon was begun with may ignore it
    args = deserialize_value(arguments, ExecuteRunArgs)
    assert args.instance_ref is not None
    with DagsterInstance.from_ref(args.instance_ref) as instance:
        instance.add_run_tags(args.run_id, {OWNER_TAG: owner()})
    execute_run(arguments)


def _is_of_this_python(context: LaunchRunContext) -> bool:
    """Says whether a run's code location is on this machine and is run by the Python that asks."""
    run = context.dagster_run
    if context.workspace is None or run.remote_job_origin is None or run.job_code_origin is None:
        return False
    location = context.workspace.get_code_location(run.remote_job_origin.location_name)
    local = isinstance(location, GrpcServerCodeLocation) and location.host in LOCAL
    origin = run.job_code_origin.repository_origin
    return local and origin.executable_path == sys.executable and origin.container_image is None


def _ran_at(pid: int, moment: float) -> bool:
    """Says whether the process with this number is the one that had it at `moment` (seconds since the epoch)."""
    try:
        process = psutil.Process(pid)
        return bool(process.create_time() <= moment + CLOCK_S and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
