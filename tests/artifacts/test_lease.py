"""One command at a time over all machines of a real S3 server: who has an experiment, who waits, who takes over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore
from dagster_project.artifacts.lease import LOST_AFTER, BusyError
from dagster_project.artifacts.objects import ExistsError, ObjectStore, SilentStorageError
from tests.conftest import ROOT
from toolemu.errors import FrontierError

from .conftest import Machines

HOLDER = Path(__file__).with_name("holder.py")
FOLDER = ".trial.lease"
NEVER_S = "3600"
"""A test that would wait for so long fails."""


@contextmanager
def held(store: ArtifactStore, lost_after_s: str) -> Iterator[subprocess.Popen[str]]:
    """Gives a process that has the experiment, on the machine that was looked at last."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), LOST_AFTER: lost_after_s}
    with subprocess.Popen(
        [sys.executable, str(HOLDER), str(store.location), "trial"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def take(store: ArtifactStore) -> list[str]:
    """Has the experiment for a moment, and returns what was told on the way."""
    told: list[str] = []
    with store.being_made(told.append):
        store.check_held()
    return told


def objects_of(bucket: str) -> dict[str, bytes | None]:
    objects = ObjectStore(bucket)
    return {entry.key: objects.get(entry.key) for entry in objects.entries(FOLDER)}


def test_one_machine_at_a_time_and_the_next_when_it_ended(
    machine: Machines, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOST_AFTER, "6")
    first, second = machine("first"), machine("second")
    with first.being_made():
        told: list[str] = []
        who = rf"process {os.getpid()} of {socket.gethostname()}, since 2\d+-\d\d-\d\d \d\d:\d\d UTC"
        with pytest.raises(BusyError, match=rf"trial: {who}\. Wait until it ended"), second.being_made(told.append):
            raise AssertionError("both have it")
        (waiting,) = told
        assert waiting.startswith(f"A `frontier run trial` is under way on {bucket}/trial: process {os.getpid()} of ")
        assert waiting.endswith("Waiting up to 6 s for a sign of it.")
        first.check_held()
    assert take(second) == []
    assert take(first) == []
    assert list(objects_of(bucket)) == [f"{FOLDER}/000000003"], "one object stays of it"


def test_who_looks_is_told_and_changes_nothing(machine: Machines, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = machine("first"), machine("second")
    assert second.maker() == ""
    assert objects_of(bucket) == {}
    monkeypatch.setenv(LOST_AFTER, NEVER_S)
    with first.being_made():
        before = objects_of(bucket)
        assert first.maker() == f"A `frontier run trial` is under way on {bucket}/trial."
        assert f"unless its machine was lost: process {os.getpid()} of {socket.gethostname()}" in second.maker()
        assert objects_of(bucket) == before
    assert second.maker() == ""


def test_of_machines_that_come_at_once_one_has_it(machine: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOST_AFTER, "6")
    stores = [machine(f"m{number}") for number in range(5)]
    together, ended = threading.Barrier(len(stores)), threading.Event()
    inside, busy = [], []

    def contend(store: ArtifactStore) -> None:
        together.wait()
        try:
            with store.being_made():
                inside.append(store)
                assert ended.wait(60)
                store.check_held()
        except BusyError:
            busy.append(store)
        if len(busy) == len(stores) - 1:
            ended.set()

    threads = [threading.Thread(target=contend, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(busy)) == (1, len(stores) - 1)


def test_a_killed_process_is_followed_at_once_where_it_was(machine: Machines) -> None:
    store = machine("first")
    with held(store, NEVER_S) as process:
        process.kill()
        process.wait()
        assert store.maker() == ""
        assert take(store) == []


def test_a_lost_machine_is_followed_by_another(machine: Machines) -> None:
    with held(machine("first"), "1") as process:
        process.kill()
        process.wait()
        waiting, gone = take(machine("second"))
    assert f"process {process.pid} of" in waiting
    assert "that machine is taken for lost" in gone


def test_a_folder_that_machines_share_without_its_locks_gives_nothing_away(
    machine: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(machine("shared"), "6"), monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "another")
        elsewhere.setattr(ArtifactStore, "_lock", lambda store: ExitLock())
        with pytest.raises(BusyError, match="is under way"):
            take(machine("shared"))


class ExitLock(ExitStack):
    """A lock that everybody gets."""

    def acquire(self, timeout: float) -> ExitLock:
        return self


@pytest.mark.parametrize("ended", [False, True])
def test_who_slept_and_was_overtaken_stops(machine: Machines, ended: bool) -> None:
    """Even if the other has come to its end by then."""
    with held(machine("first"), "1") as process, ExitStack() as other:
        process.send_signal(signal.SIGSTOP)
        second = machine("second")
        other.enter_context(second.being_made())
        if ended:
            other.close()
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 1
        assert process.stderr is not None
        told = process.stderr.read()
        second.check_held()
    assert told.startswith("LostLeaseError: ")
    assert f"was taken over by process {os.getpid()} of {socket.gethostname()}" in told
    assert "had given no sign for 1 s" in told


def test_a_lease_that_is_removed_by_hand_is_lost(machine: Machines, bucket: str) -> None:
    with held(machine("first"), "1") as process:
        ObjectStore(bucket).delete(objects_of(bucket))
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert f"{bucket}/{FOLDER} was removed. This command stops" in process.stderr.read()
    assert take(machine("second")) == []


def test_a_store_that_is_away_for_a_while_takes_nothing(
    machine: Machines, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(LOST_AFTER, "0.6")
    store, asked, entries = machine("first"), threading.Semaphore(0), ObjectStore.entries

    def gone(self: ObjectStore, folder: str) -> object:
        asked.release()
        raise SilentStorageError("the network is gone")

    def back(self: ObjectStore, folder: str) -> object:
        asked.release()
        return entries(self, folder)

    with store.being_made():
        monkeypatch.setattr(ObjectStore, "entries", gone)
        for _ in range(12):
            assert asked.acquire(timeout=60)
        store.check_held()
        before = objects_of_key(bucket)
        monkeypatch.setattr(ObjectStore, "entries", back)
        for _ in range(3):
            assert asked.acquire(timeout=60)
        store.check_held()
        assert objects_of_key(bucket) != before, "it is renewed again"
    assert [record.getMessage() for record in caplog.records] == [
        "the lease cannot be renewed for now, and work goes on: the network is gone"
    ]


def objects_of_key(bucket: str) -> bytes | None:
    return ObjectStore(bucket).get(f"{FOLDER}/000000001")


@pytest.mark.parametrize("ended", [0, 1])
def test_whoever_is_late_with_a_number_has_nothing(
    machine: Machines, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its number, that number was made; or it was made, ended, and removed by who came next."""
    monkeypatch.setenv(LOST_AFTER, "6")
    late, put = machine("late"), ObjectStore.put
    others = [machine(f"other-{number}") for number in range(ended + 1)]
    with ExitStack() as last:

        def overtaken(self: ObjectStore, key: str, content: bytes, *, new: bool = False) -> str:
            monkeypatch.setattr(ObjectStore, "put", put)
            for other in others[:-1]:
                take(other)
            last.enter_context(others[-1].being_made())
            return put(self, key, content, new=new)

        monkeypatch.setattr(ObjectStore, "put", overtaken)
        with pytest.raises(BusyError):
            take(late)
        others[-1].check_held()


def test_a_number_that_was_made_though_the_answer_says_otherwise_counts(
    machine: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks again where an answer is lost, and finds what it made itself."""
    monkeypatch.setenv(LOST_AFTER, NEVER_S)
    put = ObjectStore.put

    def twice(self: ObjectStore, key: str, content: bytes, *, new: bool = False) -> str:
        tag = put(self, key, content, new=new)
        if new:
            raise ExistsError("it is there already")
        return tag

    monkeypatch.setattr(ObjectStore, "put", twice)
    assert take(machine("first")) == []


def test_what_is_no_lease_is_named(machine: Machines, bucket: str) -> None:
    ObjectStore(bucket).put(f"{FOLDER}/000000007", b"?")
    with pytest.raises(FrontierError, match=rf"{bucket}/{FOLDER}/000000007: no lease that is known here"):
        take(machine("first"))


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_wrong_time_is_named(machine: Machines, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOST_AFTER, text)
    with pytest.raises(FrontierError, match=f"FRONTIER_LOST_AFTER_S={text}: expected a number of seconds above 0"):
        take(machine("first"))
