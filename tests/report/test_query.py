from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.store import MissingArtifactError
from dagster_project.experiment.spec import Experiment
from dagster_project.report.database import publish_database
from dagster_project.report.query import run_query
from tests.conftest import SMALL
from toolemu.errors import FrontierError
from toolemu.terminal import printable

EXPERIMENT = Experiment.model_validate(SMALL)
ROWS = "SELECT * FROM (VALUES ('a, \"b\"', 1.5, TIMESTAMP '2026-01-02 03:04:05'), ('→', NULL, NULL)) t(name, x, moment)"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    warehouse, points = tmp_path / "warehouse.duckdb", tmp_path / "frontier_points.parquet"
    with duckdb.connect(str(warehouse)) as database:
        database.execute("CREATE TABLE trajectories AS SELECT 7 AS case_idx")
        database.execute("CREATE MACRO twice(n) AS 2 * n")
        database.execute("CREATE VIEW doubled AS SELECT twice(case_idx) AS n FROM trajectories")
    pd.DataFrame({"model": ["m", "n"], "safety": [1.0, 2.0]}).to_parquet(points, index=False)
    store = ArtifactStore(tmp_path / "data", EXPERIMENT.name)
    with store.write(Ref("tables"), run_id="r", code_version="1", config={}, inputs={}) as draft:
        publish_database(warehouse, [points], draft.path / f"{EXPERIMENT.name}.duckdb")
    return store


def test_a_table_is_for_reading(store: ArtifactStore) -> None:
    text = run_query(EXPERIMENT, store, "SELECT model, safety FROM frontier_points ORDER BY model", "table")
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()] == [
        ["model", "safety"],
        [":--------", "---------:"],
        ["m", "1"],
        ["n", "2"],
    ]


def test_csv_and_json_hold_every_value(store: ArtifactStore) -> None:
    rows = list(csv.DictReader(io.StringIO(run_query(EXPERIMENT, store, ROWS, "csv"))))
    assert [(row["name"], row["x"]) for row in rows] == [('a, "b"', "1.5"), ("→", "")]
    records = json.loads(run_query(EXPERIMENT, store, ROWS, "json"))
    assert [(row["name"], row["x"]) for row in records] == [('a, "b"', 1.5), ("→", None)]
    assert records[0]["moment"].startswith("2026-01-02T03:04:05")


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1+1"])
def test_a_text_that_a_spreadsheet_would_run_begins_with_an_apostrophe(store: ArtifactStore, text: str) -> None:
    quoted = text.replace("'", "''")
    sql = f"""SELECT '{quoted}' AS "{text}", -1.5 AS x, -3 AS n, '-0.25' AS t"""
    (names, row) = csv.reader(io.StringIO(run_query(EXPERIMENT, store, sql, "csv"), newline=""))
    shown = printable(text)  # a tab shows as its number, and so begins no formula
    cell = f"'{shown}" if shown == text else shown
    assert names[0] == cell and row[0] in (cell, f"'{text}") and row[1:] == ["-1.5", "-3", "-0.25"]
    assert json.loads(run_query(EXPERIMENT, store, sql, "json"))[0][text] == text, "programs get it as it is"


def test_warehouse_and_results_are_one_database(store: ArtifactStore) -> None:
    sql = "SELECT count(*) AS n, (SELECT case_idx FROM trajectories) AS c FROM frontier_points"
    assert json.loads(run_query(EXPERIMENT, store, sql, "json")) == [{"n": 2, "c": 7}]


@pytest.mark.parametrize("sql", ["SELEKT 1", "SELECT * FROM nowhere", "DROP TABLE trajectories", ""])
def test_what_is_wrong_or_would_write_is_refused(store: ArtifactStore, sql: str) -> None:
    with pytest.raises(FrontierError, match="query"):
        run_query(EXPERIMENT, store, sql, "table")
    assert "7" in run_query(EXPERIMENT, store, "SELECT * FROM trajectories", "csv")


def test_an_unknown_format_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(FrontierError, match="--format xml: expected one of table, csv, json"):
        run_query(EXPERIMENT, store, "SELECT 1", "xml")


def test_without_tables_the_reader_learns_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="frontier run"):
        run_query(EXPERIMENT, ArtifactStore(tmp_path, EXPERIMENT.name), "SELECT 1", "table")


def test_an_id_that_looks_like_a_number_stays_as_it_is(store: ArtifactStore) -> None:
    text = run_query(EXPERIMENT, store, "SELECT '12e4567890123456' AS id, 1.0 AS x", "table")
    assert "12e4567890123456" in text
    assert "id" in run_query(EXPERIMENT, store, "SELECT '1' AS id, 'b' AS id WHERE false", "table")


def test_of_two_queries_none_is_dropped_in_silence(store: ArtifactStore) -> None:
    with pytest.raises(FrontierError, match="one at a time"):
        run_query(EXPERIMENT, store, "SELECT 1; SELECT 2", "table")
    assert "1" in run_query(EXPERIMENT, store, "SELECT 1;", "table")


@pytest.mark.parametrize("output", ["table", "csv", "json"])
def test_a_sum_of_whole_numbers_is_whole(store: ArtifactStore, output: str) -> None:
    text = run_query(EXPERIMENT, store, "SELECT sum(x) AS tokens FROM (VALUES (1234567), (7654321)) t(x)", output)
    assert "8888888" in text and "8888888." not in text


NULLS = "SELECT * FROM (VALUES ('a', 1, 'nan'::DOUBLE), (NULL, NULL, NULL)) t(name, n, x)"


def test_a_null_is_told_from_a_number_that_is_none(store: ArtifactStore) -> None:
    lines = run_query(EXPERIMENT, store, NULLS, "table").splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows == [["a", "1", "nan"], ["NULL", "NULL", "NULL"]]
    assert run_query(EXPERIMENT, store, NULLS, "csv").splitlines() == ["name,n,x", "a,1,nan", ",,"]
    records = json.loads(run_query(EXPERIMENT, store, NULLS, "json"))
    assert records == [{"name": "a", "n": 1, "x": "NaN"}, {"name": None, "n": None, "x": None}]


def test_json_holds_every_type_that_tables_have(store: ArtifactStore) -> None:
    sql = """SELECT [1.5, NULL, 'inf'::DOUBLE] AS many, {'metric': 'safe', 'beta': 0.1::DECIMAL(3, 2)} AS stage,
        TIMESTAMPTZ '2026-01-02 03:04:05+00' AS moment, DATE '2026-01-02' AS day,
        99999999999999999999::HUGEINT AS large"""
    (record,) = json.loads(run_query(EXPERIMENT, store, sql, "json"))
    assert datetime.fromisoformat(record.pop("moment")) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert record == {
        "many": [1.5, None, "Infinity"],
        "stage": {"metric": "safe", "beta": 0.1},
        "day": "2026-01-02",
        "large": 99999999999999999999,
    }


HOSTILE = {
    "copy to a file": "COPY trajectories TO '{folder}/out.csv'",
    "copy of a query": "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
    "copy from a file": "COPY trajectories FROM '{folder}/secret.txt'",
    "export": "EXPORT DATABASE '{folder}/exported'",
    "import": "IMPORT DATABASE '{folder}'",
    "text of a file": "SELECT * FROM read_text('{folder}/secret.txt')",
    "bytes of a file": "SELECT * FROM read_blob('{folder}/secret.txt')",
    "file as a table": "SELECT * FROM '{folder}/secret.csv'",
    "CSV": "SELECT * FROM read_csv('{folder}/secret.csv')",
    "CSV, sniffed": "SELECT * FROM sniff_csv('{folder}/secret.csv')",
    "JSON": "SELECT * FROM read_json('{folder}/secret.txt')",
    "Parquet": "SELECT * FROM parquet_metadata('{folder}/secret.parquet')",
    "names of files": "SELECT * FROM glob('{folder}/*')",
    "another database": "ATTACH '{folder}/other.duckdb' AS other",
    "database in memory": "ATTACH ':memory:' AS other",
    "install": "INSTALL httpfs",
    "install from elsewhere": "FORCE INSTALL httpfs FROM 'http://127.0.0.1:9'",
    "load": "LOAD httpfs",
    "load a library": "LOAD '{folder}/evil.duckdb_extension'",
    "set": "SET enable_external_access = true",
    "set globally": "SET GLOBAL enable_external_access = true",
    "pragma": "PRAGMA enable_external_access = true",
    "reset": "RESET lock_configuration",
    "unlock": "SET lock_configuration = false",
    "output of a profile": "SET profiling_output = '{folder}/profile'",
    "temporary folder": "SET temp_directory = '{folder}/spill'",
    "log in a file": "CALL enable_logging(storage = 'file')",
    "secrets": "FROM duckdb_secrets()",
    "new secret": "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "insert": "INSERT INTO trajectories VALUES (8)",
    "update": "UPDATE trajectories SET case_idx = 8",
    "delete": "DELETE FROM trajectories",
    "new table": "CREATE TABLE other AS SELECT 1",
    "change of a table": "ALTER TABLE trajectories ADD COLUMN x INTEGER",
    "two statements": "SELECT 1; COPY trajectories TO '{folder}/out.csv'",
    "statement in a query": "SELECT * FROM query('COPY trajectories TO ''{folder}/out.csv''')",
    "request": "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_query_reaches_nothing(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    for ending in ("txt", "csv", "parquet"):
        (folder / f"secret.{ending}").write_text("a,b\nhidden,1\n")
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(FrontierError) as raised:
        run_query(EXPERIMENT, store, HOSTILE[name].format(folder=folder), "table")
    assert raised.value.code in ("query.forbidden", "query.failed", "query.several")
    assert "hidden" not in str(raised.value)
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert "7" in run_query(EXPERIMENT, store, "SELECT * FROM trajectories", "csv")


def test_files_can_be_allowed(store: ArtifactStore, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(FrontierError) as raised:
        run_query(EXPERIMENT, store, f"COPY trajectories TO '{out}'", "table")
    assert raised.value.code == "query.forbidden"
    run_query(EXPERIMENT, store, f"COPY trajectories TO '{out}'", "table", allow_files=True)
    assert out.read_text() == "case_idx\n7\n"
    with pytest.raises(FrontierError):
        run_query(EXPERIMENT, store, "DROP TABLE trajectories", "table", allow_files=True)
    assert "7" in run_query(EXPERIMENT, store, "SELECT * FROM trajectories", "csv")


def test_macros_views_and_subqueries_work(store: ArtifactStore) -> None:
    assert run_query(EXPERIMENT, store, "SELECT n, twice(n) AS m FROM doubled", "csv") == "n,m\n14,28\n"
    assert run_query(EXPERIMENT, store, "WITH t AS (SELECT 1 AS x) SELECT x FROM t", "csv") == "x\n1\n"


TERMINAL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u200b\x7f"


@pytest.mark.parametrize("output", ["table", "csv", "json"])
def test_no_answer_moves_a_terminals_cursor(store: ArtifactStore, output: str) -> None:
    sql = f"SELECT '{TERMINAL}' AS x, ['{TERMINAL}'] AS y, {{'a': '{TERMINAL}'}} AS z, 1 AS \"{TERMINAL}\""
    text = run_query(EXPERIMENT, store, sql, output)
    assert all(c.isprintable() or c == "\n" for c in text)
    if output == "json":  # the other formats show numbers in the characters' places; JSON holds the characters
        assert json.loads(text) == [{"x": TERMINAL, "y": [TERMINAL], "z": {"a": TERMINAL}, TERMINAL: 1}]
