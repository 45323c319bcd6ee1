"""Dagster's run launcher, which also notices when the process of a run is gone."""

from __future__ import annotations

import re
import socket

import psutil
from dagster import DagsterEventType, DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from dagster_project.operations.instance import OWNER_TAG, is_alive

STARTED_PROCESS = re.compile(r"Started process for run \(pid: (\d+)\)")
"""What Dagster's code server writes into a run's log; it keeps the process nowhere else."""
LOCAL = ("localhost", "127.0.0.1", socket.gethostname())
CLOCK_S = 2.0


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's own, whose runs stay STARTED for ever when everything is killed at once, and backfills with them.

    With this one, Dagster's run monitoring finds them, marks them failed and has them tried again. Only processes of
    this machine can be looked for; a run of another one counts as running.
    """

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
            return is_alive(rest) if host == socket.gethostname() else None
        if not any(f'"{place}"' in run.tags.get(GRPC_INFO_TAG, "") for place in LOCAL):
            return None
        for entry in self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
            found = STARTED_PROCESS.search(entry.dagster_event.message or "" if entry.dagster_event else "")
            if found:
                return _ran_at(int(found[1]), entry.timestamp)
        return None


def _ran_at(pid: int, moment: float) -> bool:
    """Says whether the process with this number is the one that had it at `moment` (seconds since the epoch)."""
    try:
        process = psutil.Process(pid)
        return bool(process.create_time() <= moment + CLOCK_S and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
