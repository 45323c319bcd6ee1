"""The whole miniature: wall time with one worker process (the baseline) and with one a core, and a second run.

Fresh data and a fresh Dagster home for each. Memory is the largest sum of the resident sets of all processes, looked at
five times a second; pages that processes share count in each.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    mebibytes: float


def frontier(home: Path, *arguments: str) -> Cost:
    """Returns what one command took, on data and a Dagster home below `home`."""
    environment = {**os.environ, "FRONTIER_DATA": str(home / "data"), "DAGSTER_HOME": str(home / "dagster")}
    command = [sys.executable, "-m", "dagster_project.cli", *arguments]
    started, largest = time.perf_counter(), 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = [watched, *watched.children(recursive=True)]
                largest = max(largest, sum(member.memory_info().rss for member in family) / 2**20)
            time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return Cost(time.perf_counter() - started, largest)


def main() -> None:
    """Prints the figures."""
    costs = {}
    for processes in (1, os.cpu_count() or 1):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            cost = costs[processes] = frontier(home, "run", "miniature", "--processes", str(processes))
            print(f"--processes {processes}: {cost.seconds:.0f} s, {cost.mebibytes:.0f} MiB", flush=True)
            again = frontier(home, "run", "miniature")
    print(f"ratio of one process to one a core: {costs[1].seconds / cost.seconds:.2f}")
    print(f"the same again, nothing to do: {again.seconds:.1f} s")


if __name__ == "__main__":
    main()
