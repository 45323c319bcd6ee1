"""Holds a server until it is told to let go, or killed. Usage: holder.py FOLDER WEIGHTS IDLE_AFTER_S"""

from __future__ import annotations

import sys
from pathlib import Path

from dagster_project.serving.leases import leased
from dagster_project.serving.settings import ServerSettings, server_of
from dagster_project.serving.state import Servers

folder, weights, idle = sys.argv[1:]
server = server_of(Path(weights), "base", ServerSettings(idle_after_s=float(idle)))
with leased(Servers(Path(folder)), [server]) as addresses:
    address = addresses[server.key]
    sys.stdout.write(f"{address.url} {address.key.get_secret_value()}\n")
    sys.stdout.flush()
    sys.stdin.readline()
