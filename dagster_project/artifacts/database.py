"""DuckDB files, opened alike everywhere."""

from __future__ import annotations

from pathlib import Path

import duckdb


def open_database(path: Path, *, read_only: bool = True) -> duckdb.DuckDBPyConnection:
    """Opens a DuckDB file, without the bar that DuckDB draws on the terminal when a query takes over two seconds."""
    database = duckdb.connect(str(path), read_only=read_only)
    return database.execute("SET enable_progress_bar = false")
