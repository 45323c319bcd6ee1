"""DuckDB files, opened alike everywhere."""

from __future__ import annotations

from pathlib import Path

import duckdb

CONFINED = {"enable_external_access": "false", "autoinstall_known_extensions": "false", "lock_configuration": "true"}
"""Settings with which a query reaches no file, network or extension; the last one makes them final."""


def open_database(path: Path, *, read_only: bool = True, confined: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file, without the bar that DuckDB draws on the terminal when a query takes over two seconds.

    Args:
        path: The file.
        read_only: Refuse changes of the file.
        confined: Refuse access to everything outside the file, for queries of strangers.
    """
    database = duckdb.connect(str(path), read_only=read_only).execute("SET enable_progress_bar = false")
    for name, value in CONFINED.items() if confined else ():
        database.execute(f"SET {name} = {value}")
    return database
