"""Read-only SQL on an experiment's published database."""

from __future__ import annotations

from pathlib import Path

import duckdb
import orjson
from pandas.api.types import is_numeric_dtype

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.database import open_database
from dagster_project.experiment.spec import Experiment
from toolemu.errors import FrontierError

FORMATS = ("table", "csv", "json")


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
            large = [place for place, (_, kind, *_) in enumerate(answer.description or ()) if kind == "HUGEINT"]
            table = answer.df()
        except duckdb.Error as error:
            raise FrontierError(f"the query failed: {error}") from error
    for place in large:  # sums of whole numbers, which DuckDB hands over as floating ones
        table.isetitem(place, table.iloc[:, place].astype("Int64"))
    if output == "csv":
        return str(table.to_csv(index=False))
    if output == "json":
        records = orjson.loads(table.to_json(orient="records", date_format="iso"))
        return orjson.dumps(records, option=orjson.OPT_INDENT_2).decode() + "\n"
    # An id may look like a number: 12e4567890123456 is none.
    texts = [place for place, kind in enumerate(table.dtypes) if not is_numeric_dtype(kind)] if len(table) else False
    return str(table.to_markdown(index=False, floatfmt=".4g", disable_numparse=texts)) + "\n"
