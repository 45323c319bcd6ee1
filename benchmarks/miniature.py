"""The whole miniature: wall time with one worker process (the baseline) and with one a core, and a second run.

Fresh data and a fresh Dagster home for each; peak memory is that of the largest process.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def frontier(home: Path, *arguments: str) -> float:
    """Returns the seconds that one command took, on data and a Dagster home below `home`."""
    environment = {**os.environ, "FRONTIER_DATA": str(home / "data"), "DAGSTER_HOME": str(home / "dagster")}
    command = [sys.executable, "-m", "dagster_project.cli", *arguments]
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Prints the figures."""
    times = {}
    for processes in (1, os.cpu_count() or 1):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            times[processes] = frontier(home, "run", "miniature", "--processes", str(processes))
            print(f"frontier run miniature --processes {processes}: {times[processes]:.0f} s", flush=True)
            again = frontier(home, "run", "miniature")
    print(f"ratio: {times[1] / min(times.values()):.2f}")
    print(f"the same again, nothing to do: {again:.1f} s")
    print(f"largest process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
