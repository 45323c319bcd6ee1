"""Dagster's daemon in tests: the real one, in a process group of its own, that looks at backfills every two seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType

from tests.conftest import Lab

WORKSPACE = """
load_from:
  - python_module: {module_name: dagster_project.definitions, attribute: experiment, location_name: small}
"""
DAEMON = (
    "import dagster._daemon.backfill as backfills; backfills.DEFAULT_DAEMON_INTERVAL_SECONDS = 2;"
    "from dagster._daemon.cli import main; main()"
)


def wait_for(happened: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.5)


def environment(lab: Lab) -> dict[str, str]:
    return {**lab.environment, "FRONTIER_EXPERIMENT": "small.yaml"}


def prepare(lab: Lab, **settings: int) -> None:
    """Writes the lab's workspace and Dagster home, in which some settings of dagster.yaml have other numbers."""
    (lab.directory / "workspace.yaml").write_text(WORKSPACE)
    opened = "from dagster_project.operations.instance import open_instance; open_instance()"
    subprocess.run([sys.executable, "-c", opened], env=environment(lab), cwd=lab.directory, check=True)
    path = lab.directory / "home" / "dagster.yaml"
    lines = path.read_text().splitlines()
    for name, value in settings.items():
        (place,) = (index for index, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        lines[place] = f"{lines[place].partition(':')[0]}: {value}"
    path.write_text("\n".join(lines))


def dagster(lab: Lab, *arguments: str) -> None:
    """Runs Dagster's command line in the lab."""
    command = [sys.executable, "-m", "dagster", *arguments, "-w", "workspace.yaml"]
    subprocess.run(command, env=environment(lab), cwd=lab.directory, check=True, capture_output=True)


class Daemon:
    """The daemon of a lab with its code server and all its runs, while its block lasts."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __enter__(self) -> Daemon:
        self._log = (self._lab.directory / "daemon.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, "run", "-w", "workspace.yaml"],
            cwd=self._lab.directory,
            env=environment(self._lab),
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
