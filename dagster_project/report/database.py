"""The published database: the warehouse and every result table in one DuckDB file, for any client to open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from dagster_project.artifacts.database import open_database
from dagster_project.results.schema import comment


def publish_database(warehouse: Path, tables: Iterable[Path], target: Path) -> None:
    """Writes warehouse and result tables (Parquet files, named like their tables) to `target`, replaced atomically.

    Comments in it say what tables and columns mean.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.copyfile(warehouse, partial)
    with open_database(partial, read_only=False) as database:
        for path in tables:
            database.execute(f'CREATE TABLE "{path.stem}" AS FROM read_parquet($path)', {"path": str(path)})
        comment(database)
    partial.replace(target)
