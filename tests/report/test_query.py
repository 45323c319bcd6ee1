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

EXPERIMENT = Experiment.model_validate(SMALL)
ROWS = "SELECT * FROM (VALUES ('a, \"b\"', 1.5, TIMESTAMP '2026-01-02 03:04:05'), ('→', NULL, NULL)) t(name, x, moment)"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    warehouse, points = tmp_path / "warehouse.duckdb", tmp_path / "frontier_points.parquet"
    with duckdb.connect(str(warehouse)) as database:
        database.execute("CREATE TABLE trajectories AS SELECT 7 AS case_idx")
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
    assert (names[0], row) == (f"'{text}", [f"'{text}", "-1.5", "-3", "-0.25"])
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
