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
from toolemu.terminal import printable

FORMATS = ("table", "csv", "json")
NULL = "NULL"
"""A null in a table; csv leaves it empty, json has its own."""


def database_path(experiment: Experiment, store: ArtifactStore) -> Path:
    """Returns where the published database lies, for any DuckDB client to open.

    Raises:
        MissingArtifactError: The tables have not been made.
    """
    return store.get(Ref("tables")).path / f"{experiment.name}.duckdb"


def run_query(experiment: Experiment, store: ArtifactStore, sql: str, output: str, *, allow_files: bool = False) -> str:
    """Return the answer to `sql` as text that is safe for a terminal.

    Tables and CSV have a number in place of each character that is not printable; JSON has its own escapes, which hold
    every value.

    Args:
        experiment: The experiment.
        store: Its artifacts.
        sql: One statement.
        output: One of `FORMATS`.
        allow_files: Let the query read and write other files, and use extensions. Otherwise it can only read the
            published database.

    Raises:
        MissingArtifactError: The tables have not been made.
        FrontierError: The query is wrong, is not allowed, or the format is unknown.
    """
    if output not in FORMATS:
        raise FrontierError(f"--format {output}: expected one of {', '.join(FORMATS)}.", code="query.format")
    if not sql.strip():
        raise FrontierError("the query is empty; for example: 'SELECT * FROM frontier_points'.", code="query.empty")
    with open_database(database_path(experiment, store), confined=not allow_files) as database:
        try:
            if len(database.extract_statements(sql)) > 1:
                raise FrontierError("these are several queries; ask one at a time.", code="query.several")
            answer = database.execute(sql)
            names = [name for name, *_ in answer.description or ()]
            rows = answer.fetchall()
        except (duckdb.Error, RuntimeError) as error:
            if not _is_forbidden(error):
                raise FrontierError(f"the query failed: {error}", code="query.failed") from error
            raise FrontierError(
                f"the query is not allowed: {error} Queries read the published database and nothing else. "
                "--allow-files lets this one read and write other files and load extensions.",
                code="query.forbidden",
            ) from error
    return {"table": _table, "csv": _csv, "json": _json}[output](names, rows)


def _is_forbidden(error: Exception) -> bool:
    """Return whether DuckDB refused to reach out of the database, to change it, or to change its configuration."""
    refused = isinstance(error, duckdb.InvalidInputException) and ("locked" in str(error) or "read-only" in str(error))
    return refused or isinstance(error, duckdb.PermissionException)


def _safe(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return names and rows whose texts, nested ones included, can move no terminal's cursor."""
    safe = [[_shown(cell) for cell in row] for row in rows]
    return [printable(name) for name in names], safe


def _shown(cell: Any) -> Any:
    if isinstance(cell, str):
        return printable(cell, "\n\t")
    return printable(str(cell), "\n\t") if isinstance(cell, list | tuple | dict | bytes) else cell


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    names, rows = _safe(names, rows)
    # An id may look like a number: 12e4567890123456 is none.
    texts = [
        place for place, column in enumerate(zip(*rows, strict=True)) if any(isinstance(cell, str) for cell in column)
    ]
    return tabulate(rows, names, "pipe", floatfmt=".4g", missingval=NULL, disable_numparse=texts) + "\n"


def _csv(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    names, rows = _safe(names, rows)
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
    text = json.dumps(records, indent=2, ensure_ascii=False)
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text) + "\n"


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
