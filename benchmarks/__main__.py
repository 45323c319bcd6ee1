"""Runs benchmarks by name, all by default: ``python -m benchmarks [NAME …]``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NEEDS_ARGUMENT = {
    "parse_published": "a tree of the paper's released runs as its argument",
}
NEEDS_RUNS = {"published"}
"""Run only where $PUBLISHED_RUNS names the folder of the paper's released runs."""


def main() -> None:
    """Runs what the command line names."""
    modules = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    names = [path.stem for path in modules if "__main__" in path.read_text(encoding="utf-8")]  # others help these
    asked = sys.argv[1:] or [name for name in names if name not in NEEDS_ARGUMENT]
    if not set(asked) <= set(names):
        sys.exit(
            f"benchmarks: {', '.join(names)}. Alone: " + "; ".join(f"{k} takes {v}" for k, v in NEEDS_ARGUMENT.items())
        )
    if not sys.argv[1:] and "PUBLISHED_RUNS" not in os.environ:
        print(f"left out, since PUBLISHED_RUNS is not set: {', '.join(sorted(NEEDS_RUNS))}")
        asked = [name for name in asked if name not in NEEDS_RUNS]
    for name in asked:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
