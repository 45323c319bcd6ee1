"""Where Dagster's records and the artifacts go: by the environment, and told before anything runs if it cannot be."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_postgres import PostgresEventLogStorage

from dagster_project.operations.event_log import OpenedEventLog
from dagster_project.operations.instance import open_instance
from tests.conftest import make_lab
from tests.servers import BUCKET
from toolemu.errors import FrontierError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_new_home_is_in_postgresql_where_the_environment_names_one(
    home: Path, postgresql: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in postgresql.items():
        monkeypatch.setenv(name, value)
    with open_instance() as instance:
        assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
        instance.add_dynamic_partitions("frontier", ["here"])
    assert "a secret" not in (home / "dagster.yaml").read_text(), "the settings name the variables alone"
    assert not list(home.rglob("*.db"))
    with dg.DagsterInstance.from_config(str(home)) as plain:
        assert plain.get_dynamic_partitions("frontier") == ["here"], "Dagster's own processes read the same"
    for changes, message in (
        ({"FRONTIER_POSTGRES_PASSWORD": "wrong"}, r"cannot be used: .*password authentication failed"),
        ({"FRONTIER_POSTGRES_USER": ""}, "FRONTIER_POSTGRES_USER"),
    ):
        with monkeypatch.context() as patched, pytest.raises(FrontierError, match=f"(?s){message}"):
            for name, value in changes.items():
                patched.setenv(name, value) if value else patched.delenv(name)
            open_instance()


def test_a_home_in_sqlite_is_not_taken_for_one_in_postgresql(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_instance() as instance:
        assert isinstance(instance.event_log_storage, OpenedEventLog)
    assert "storage" not in yaml.safe_load((home / "dagster.yaml").read_text())
    monkeypatch.setenv("FRONTIER_POSTGRES_HOST", "127.0.0.1")
    with pytest.raises(FrontierError, match=r"SQLite, but FRONTIER_POSTGRES_HOST is set.*dagster-postgresql\.yaml"):
        open_instance()


@pytest.mark.slow
def test_a_wrong_place_stops_a_run_before_it_starts(s3: dict[str, str], tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    for command, location, message in (
        ("run", "s3://nowhere/data", "there is no such bucket"),
        ("status", "s3://nowhere/data", "there is no such bucket"),
        ("run", "ftp://somewhere/data", "expected a local path, or s3://bucket/prefix"),
    ):
        places = {**s3, "FRONTIER_DATA": location, "FRONTIER_CACHE": str(tmp_path / "cache")}
        done = lab._replace(settings=places).frontier(command, "small.yaml", check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert message in done.stderr
        assert not (lab.directory / "home").exists(), "Dagster was not even started"
    good = {**s3, "FRONTIER_DATA": f"s3://{BUCKET}/wrong-host", "FRONTIER_CACHE": str(tmp_path / "cache")}
    nobody = {**good, "FRONTIER_POSTGRES_HOST": "127.0.0.1", "FRONTIER_POSTGRES_PORT": "9"}
    missing = {name: "x" for name in ("FRONTIER_POSTGRES_USER", "FRONTIER_POSTGRES_PASSWORD")}
    settings = {**nobody, **missing, "FRONTIER_POSTGRES_DATABASE": "x"}
    done = lab._replace(settings=settings).frontier("run", "small.yaml", check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "Dagster's database cannot be used" in done.stderr
