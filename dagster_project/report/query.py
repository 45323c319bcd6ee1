"""Read-only SQL on an experiment's published database."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
from tabulate import tabulate

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.database import open_database
from dagster_project.experiment.spec import Experiment
from toolemu.errors import FrontierError
from toolemu.tables import plain_cell

FORMATS = ("table", "csv", "json")
NULL = "NULL"
"""A null in a table; csv leaves it empty, json has its own."""


def database_path(experiment: Experiment, store: ArtifactStore) -> Path:
    """Returns where the published database lies, for any DuckDB client to open.

    Raises:
        MissingArtifactError: The tables have not been made.
    """
    return store.get(Ref("tables")).path / f"{experiment.name}.duckdb"


def run_query(experiment: Experiment, store: ArtifactStore, sql: str, output: str) -> str:
    """Returns the answer to `sql` as text.

    Raises:
        MissingArtifactError: The tables have not been made.
        FrontierError: The query is wrong, would write, or the format is unknown.
    """
    if output not in FORMATS:
        raise FrontierError(f"--format {output}: expected one of {', '.join(FORMATS)}.")
    if not sql.strip():
        raise FrontierError("the query is empty; for example: 'SELECT * FROM frontier_points'.")
    with open_database(database_path(experiment, store)) as database:
        try:
            if len(database.extract_statements(sql)) > 1:
                raise FrontierError("these are several queries; ask one at a time.")
            answer = database.execute(sql)
            names = [name for name, *_ in answer.description or ()]
            rows = answer.fetchall()
        except duckdb.Error as error:
            raise FrontierError(f"the query failed: {error}") from error
    return {"table": _table, "csv": _csv, "json": _json}[output](names, rows)


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    # An id may look like a number: 12e4567890123456 is none.
    texts = [
        place for place, column in enumerate(zip(*rows, strict=True)) if any(isinstance(cell, str) for cell in column)
    ]
    return tabulate(rows, names, "pipe", floatfmt=".4g", missingval=NULL, disable_numparse=texts) + "\n"


def _csv(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = []
    for row in (names, *rows):
        file = io.StringIO()
        # With this line end the writer quotes both of its characters inside cells.
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([plain_cell(cell) if isinstance(cell, str) else cell for cell in row])
        lines.append(file.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def _json(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    records = [dict(zip(names, map(_in_json, row), strict=True)) for row in rows]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def _in_json(value: Any) -> Any:
    """Returns a value in JSON's types; `NaN` and infinities, for which it has none, as texts."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() | Decimal():
            number = float(value)
            return number if math.isfinite(number) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(number), "NaN")
        case list() | tuple():
            return [_in_json(item) for item in value]
        case dict():
            return {str(name): _in_json(item) for name, item in value.items()}
        case date() | time():
            return value.isoformat()
    return str(value)
