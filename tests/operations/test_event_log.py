"""The event log with its databases kept open: Dagster's own reads what it writes, and many may write at once."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage

from dagster_project.operations.event_log import OpenedEventLog
from dagster_project.operations.instance import open_instance
from tests.conftest import ROOT

KEY = dg.AssetKey(["made", "here"])


def entry(run_id: str, partition: str) -> EventLogEntry:
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
        event_specific_data=StepMaterializationData(dg.AssetMaterialization(KEY, partition=partition)),
        job_name="job",
    )
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=logging.INFO,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        job_name="job",
        dagster_event=event,
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def dagsters_own(home: Path) -> SqliteEventLogStorage:
    return SqliteEventLogStorage(str(home / "history" / "runs"))


def partitions(records: list[EventLogEntry]) -> list[str | None]:
    found = (record.asset_materialization for record in records)
    return [event.partition for event in found if event is not None]


def test_dagster_reads_what_a_run_wrote(home: Path) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def made(context):  # type: ignore[no-untyped-def] # Dagster reads the annotation, which here would be a text
        context.log.info("a line of its own")
        return dg.MaterializeResult(metadata={"length": len(context.partition_key)})

    with open_instance() as instance:
        assert isinstance(instance.event_log_storage, OpenedEventLog)
        runs = [dg.materialize([made], instance=instance, partition_key=key).run_id for key in ("a", "b")]
    with dg.DagsterInstance.from_config(str(home)) as plain:
        assert type(plain.event_log_storage) is SqliteEventLogStorage
        assert plain.get_materialized_partitions(dg.AssetKey("made")) == {"a", "b"}
        for run_id, partition in zip(runs, ("a", "b"), strict=True):
            events = plain.all_logs(run_id)
            (event,) = [event for event in events if event.asset_materialization]
            assert partitions([event]) == [partition]
            assert any("a line of its own" in event.user_message for event in events)
            assert events[-1].dagster_event_type is DagsterEventType.RUN_SUCCESS
    with open_instance() as again:
        assert len(again.all_logs(runs[0])) == len(events), "and the other way round"


def test_threads_that_write_at_once_lose_nothing(home: Path) -> None:
    """Half of them to one run, as an import's report does beside the run of a worker, half to runs of their own."""
    shared = str(uuid.uuid4())
    names = {f"t{thread}": shared if thread % 2 else str(uuid.uuid4()) for thread in range(6)}
    failures: list[BaseException] = []
    with open_instance() as instance:

        def write(name: str) -> None:
            try:
                for number in range(15):
                    instance.event_log_storage.store_event(entry(names[name], f"{name}-{number}"))
            except BaseException as failure:  # noqa: BLE001 - a thread's failure is this test's
                failures.append(failure)

        threads = [threading.Thread(target=write, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    storage = dagsters_own(home)
    assert storage.get_materialized_partitions(KEY) == {f"{name}-{number}" for name in names for number in range(15)}
    for run_id in set(names.values()):
        writers = [name for name, wrote in names.items() if wrote == run_id]
        logged = partitions(list(storage.get_logs_for_run(run_id)))
        assert sorted(map(str, logged)) == sorted(f"{name}-{number}" for name in writers for number in range(15))
        for name in writers:
            assert [p for p in logged if str(p).startswith(name)] == [f"{name}-{number}" for number in range(15)]


WRITER = """
import sys
from dagster_project.operations.instance import open_instance
from tests.operations.test_event_log import entry
name, run_id = sys.argv[1:]
with open_instance() as instance:
    for number in range(25):
        instance.event_log_storage.store_event(entry(run_id, f"{name}-{number}"))
"""


def test_processes_that_write_at_once_lose_nothing(home: Path) -> None:
    """On a home that is not there yet, all to one run, Dagster's own storage reading meanwhile."""
    run_id = str(uuid.uuid4())
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, name, run_id], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in ("p", "q", "r")
    ]
    for process in processes:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    expected = {f"{name}-{number}" for name in ("p", "q", "r") for number in range(25)}
    storage = dagsters_own(home)
    assert storage.get_materialized_partitions(KEY) == expected
    assert set(partitions(list(storage.get_logs_for_run(run_id)))) == expected


@pytest.mark.skipif(not hasattr(psutil.Process, "num_fds"), reason="counts file descriptors")
def test_open_files_do_not_grow_with_the_runs(home: Path) -> None:
    def write_runs(count: int) -> list[str]:
        runs = [str(uuid.uuid4()) for _ in range(count)]
        for run_id in runs:
            storage.store_event(entry(run_id, run_id))
            assert partitions(list(storage.get_logs_for_run(run_id))) == [run_id]
        return runs

    with open_instance() as instance:
        storage = instance.event_log_storage
        early = write_runs(4)
        before = psutil.Process().num_fds()
        write_runs(25)
        assert psutil.Process().num_fds() <= before + 2
        assert partitions(list(storage.get_logs_for_run(early[0]))) == [early[0]], "an earlier run opens again"


@pytest.mark.parametrize("setting", ["storage", "event_log_storage"])
def test_storage_that_dagster_yaml_names_is_used(home: Path, tmp_path: Path, setting: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    settings: dict[str, object] = {"storage": {"sqlite": {"base_dir": str(elsewhere)}}}
    if setting == "event_log_storage":
        consolidated = {
            "module": "dagster._core.storage.event_log",
            "class": "ConsolidatedSqliteEventLogStorage",
            "config": {"base_dir": str(elsewhere)},
        }
        settings = {"event_log_storage": consolidated}
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}, **settings}))
    run_id = str(uuid.uuid4())
    with open_instance() as instance:
        assert not isinstance(instance.event_log_storage, OpenedEventLog)
        instance.event_log_storage.store_event(entry(run_id, "x"))
    assert any(elsewhere.rglob("*.db")), "it is there that events went"
    assert not list((home / "history" / "runs").glob(f"{run_id}*"))
    with dg.DagsterInstance.from_config(str(home)) as plain:
        assert plain.get_materialized_partitions(KEY) == {"x"}
