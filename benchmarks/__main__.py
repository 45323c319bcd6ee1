"""Runs benchmarks by name, all by default: ``python -m benchmarks [NAME …]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NEEDS_DATA = {"parse_published": "a tree of the paper's released runs as its argument"}


def main() -> None:
    """Runs what the command line names."""
    names = [path.stem for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))]
    asked = sys.argv[1:] or [name for name in names if name not in NEEDS_DATA]
    if not set(asked) <= set(names):
        sys.exit(
            f"benchmarks: {', '.join(names)}. Alone: " + "; ".join(f"{k} takes {v}" for k, v in NEEDS_DATA.items())
        )
    for name in asked:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
