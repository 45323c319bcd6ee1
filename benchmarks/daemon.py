"""Dagster's daemon for tests and benchmarks: the real one, with everything it starts, and what its event log shows."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG

DAEMON = (
    "import dagster._daemon.backfill as backfills; backfills.DEFAULT_DAEMON_INTERVAL_SECONDS = 2;"
    "from dagster._daemon.cli import main; main()"
)
"""Looks at backfills every two seconds and not every thirty, or most of the time would be waiting."""
ENDS = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)


def wait_for(happened: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns when something has happened.

    Raises:
        TimeoutError: It did not, for so long.
    """
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.5)


class Place(NamedTuple):
    """A folder with a `workspace.yaml`, a Dagster home, and the environment of what runs there."""

    directory: Path
    environment: Mapping[str, str]

    def prepare(self, workspace: str, **settings: int) -> None:
        """Writes the workspace, and a Dagster home in which some settings of dagster.yaml have other numbers."""
        (self.directory / "workspace.yaml").write_text(workspace)
        self.run("-c", "from dagster_project.operations.instance import open_instance; open_instance()")
        path = Path(self.environment["DAGSTER_HOME"]) / "dagster.yaml"
        lines = path.read_text().splitlines()
        for name, value in settings.items():
            (place,) = (index for index, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
            lines[place] = f"{lines[place].partition(':')[0]}: {value}"
        path.write_text("\n".join(lines))

    def run(self, *arguments: str) -> None:
        """Runs Python here."""
        subprocess.run(
            [sys.executable, *arguments], cwd=self.directory, env=self.environment, check=True, capture_output=True
        )

    def dagster(self, *arguments: str) -> None:
        """Runs Dagster's command line here."""
        self.run("-m", "dagster", *arguments, "-w", "workspace.yaml")


class Daemon:
    """The daemon of a place with its code server and all its runs, while its block lasts."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __enter__(self) -> Daemon:
        self._log = (self._place.directory / "daemon.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, "run", "-w", "workspace.yaml"],
            cwd=self._place.directory,
            env=self._place.environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._log.close()

    def kill(self) -> None:
        """Kills everything at once, as an outage does."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(url: str) -> bool:
    """Says whether a server answers at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def webserver(place: Place, port: int) -> Iterator[tuple[str, float]]:
    """Serves Dagster's UI of a place; gives its address and the seconds that its start took."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_webserver", "-w", "workspace.yaml", "-p", str(port)],
        cwd=place.directory,
        env=place.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/server_info"), 120, "the web server")
        yield f"http://127.0.0.1:{port}", time.perf_counter() - started
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def in_training(instance: dg.DagsterInstance) -> list[str]:
    """Returns the runs in which an adapter is being trained."""
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return [
        run.run_id
        for run in started
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
        if "adapters" in (entry.step_key or "")
    ]


class Held(NamedTuple):
    """A step had a place in a pool, from and to these seconds since the epoch."""

    begin: float
    end: float
    run_id: str


def held(instance: dg.DagsterInstance, backfill_id: str, steps: Collection[str]) -> list[Held]:
    """Returns when these steps of a backfill were under way, in order; a killed one only has a beginning."""
    return sorted(_held(instance, backfill_id, steps))


def _held(instance: dg.DagsterInstance, backfill_id: str, steps: Collection[str]) -> Iterator[Held]:
    for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id})):
        begun: dict[str, float] = {}
        for entry in instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_START, *ENDS}):
            event, step = entry.dagster_event, entry.step_key
            if event is None or step not in steps:
                continue
            if event.is_step_start:
                begun[step] = entry.timestamp
            else:
                yield Held(begun.pop(step), entry.timestamp, run.run_id)
        yield from (Held(begin, begin, run.run_id) for begin in begun.values())


def most_at_once(instance: dg.DagsterInstance) -> int:
    """Returns how many runs were under way at the same time, at most."""
    spans = [
        (record.start_time, record.end_time)
        for record in instance.get_run_records(limit=5000)
        if record.start_time and record.end_time
    ]
    return max((sum(begin <= moment < end for begin, end in spans) for moment, _ in spans), default=0)
