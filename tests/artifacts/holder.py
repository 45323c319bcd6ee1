"""Has an experiment until it is told to let go, loses it, or is killed. Usage: holder.py LOCATION EXPERIMENT"""

from __future__ import annotations

import select
import sys

from dagster_project.artifacts import ArtifactStore
from toolemu.errors import FrontierError

store = ArtifactStore(*sys.argv[1:])
try:
    with store.being_made():
        sys.stdout.write("held\n")
        sys.stdout.flush()
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            store.check_held()
except FrontierError as error:
    sys.exit(f"{type(error).__name__}: {error}")
