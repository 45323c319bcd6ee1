"""The published database as its readers find it: explained, documented, there while runs write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore
from dagster_project.artifacts.database import open_database
from dagster_project.experiment.spec import load_experiment
from dagster_project.report.database import publish_database
from dagster_project.report.query import database_path
from dagster_project.results.schema import page
from tests.conftest import ROOT, Import, Lab


def database_of(lab: Lab) -> Path:
    experiment = load_experiment(str(lab.experiment))
    return database_path(experiment, ArtifactStore(lab.directory / "data", experiment.name))


def test_every_table_and_column_says_what_it_is(finished: Lab, imported: Import) -> None:
    for lab in (finished, imported.lab):
        with open_database(database_of(lab)) as database:
            tables = database.execute("SELECT table_name FROM duckdb_tables() WHERE comment IS NULL").fetchall()
            columns = database.execute(
                "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
            ).fetchall()
        assert (tables, columns) == ([], [])


def test_the_documentation_is_the_databases_own(imported: Import) -> None:
    with open_database(database_of(imported.lab)) as database:
        generated = page(database)
    assert generated == (ROOT / "docs" / "warehouse.md").read_text(encoding="utf-8"), (
        "run: python -m dagster_project.results.schema DATABASE > docs/warehouse.md"
    )


def test_a_reader_goes_on_reading_while_a_new_one_is_published(finished: Lab, tmp_path: Path) -> None:
    target = tmp_path / "published.duckdb"
    publish_database(database_of(finished), [], target)
    with open_database(target) as reader:
        before = reader.execute("SELECT count(*) FROM trajectories").fetchone()
        publish_database(database_of(finished), [], target)
        assert reader.execute("SELECT count(*) FROM trajectories").fetchone() == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_the_notebook_answers_for_any_experiment(finished: Lab) -> None:
    pytest.importorskip("marimo", reason="needs the extra view: pip install 'safety-frontier[view]'")
    script = (
        "import json, runpy, sys; sys.argv = ['questions.py', '--', '--experiment', 'small.yaml']; "
        f"app = runpy.run_path({str(ROOT / 'docs' / 'questions.py')!r})['app']; "
        "_, found = app.run(); "
        "print(json.dumps({name: len(found[name]) for name in ('claims', 'kept', 'lines', 'landed', 'endings')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=finished.directory,
        env=finished.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.strip().splitlines()[-1])
    assert all(counts.values()), counts
