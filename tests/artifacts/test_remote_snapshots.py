"""Snapshots of unfinished work in a real S3 server: what is taken up elsewhere, what never is, and what is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref, unfinished
from dagster_project.artifacts.objects import ObjectStore, StorageError
from dagster_project.artifacts.snapshots import MARK, last_complete, mark_complete

from .conftest import Machines

REF = Ref.of("adapters", seed="0")
NAMES = ("adapter.bin", "optimizer.bin", "shards/0.bin")


class Lost(BaseException):
    """The work ends here, as if somebody had ended it."""


def write(folder: Path, number: int) -> Path:
    """Makes a complete snapshot."""
    snapshot = folder / f"step-{number}"
    for name in NAMES:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(f"{name} of {number}")
    mark_complete(snapshot)
    return snapshot


@contextmanager
def work(store: ArtifactStore, *, commit: bool = False) -> Iterator[Path]:
    """Gives the folder of snapshots of one partition's work, which is then ended, unless it is to commit."""
    try:
        with store.write(REF, run_id="run", code_version="1", config={}, inputs={}) as draft:
            (draft.path / "result.txt").write_text("done")
            yield draft.journal / "snapshots"
            if not commit:
                raise Lost
    except Lost:
        pass


def there(store: ArtifactStore) -> dict[str, str]:
    """Returns the keys of what is in the object store of snapshots, by their path below their folder."""
    keys = [entry.key for entry in ObjectStore(str(store.location)).entries("trial")]
    return {key.partition("/snapshots/")[2]: key for key in keys if "/snapshots/" in key}


def found(folder: Path) -> str | None:
    """Returns the name of the snapshot that work would go on from."""
    last = last_complete(folder)
    return last.name if last else None


def test_the_last_complete_snapshot_is_taken_up_on_another_machine(
    machine: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    one = machine("one")
    with work(one) as folder:
        for number in (9, 10):
            expected = write(folder, number)
        (folder / "step-11").mkdir()
        (folder / "step-11" / NAMES[0]).write_text("half of")
    assert there(one).keys() == {f"step-10/{name}" for name in (*NAMES, MARK)}
    with work(machine("two")) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["step-10"]
        for name in (*NAMES, MARK):
            assert (folder / "step-10" / name).read_bytes() == (expected / name).read_bytes()
        write(folder, 12)
    assert there(one).keys() == {f"step-12/{name}" for name in (*NAMES, MARK)}
    with work(machine("one"), commit=True) as folder:
        assert found(folder) == "step-12"
    assert not [entry.key for entry in ObjectStore(str(one.location)).entries("trial") if "journal" in entry.key]
    assert caplog.text == ""


def test_snapshots_are_uploaded_while_work_goes_on_each_once(
    machine: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: list[str] = []
    upload = ObjectStore.upload

    def noted(self: ObjectStore, path: Path, key: str) -> None:
        uploaded.append(key.partition("/snapshots/")[2])
        upload(self, path, key)

    monkeypatch.setattr(ObjectStore, "upload", noted)
    store = machine("one")
    with monkeypatch.context() as patched:
        patched.setattr(unfinished, "EVERY_S", 0.02)
        with work(store) as folder:
            write(folder, 1)
            wait_for(lambda: f"step-1/{MARK}" in there(store))
            write(folder, 2)
            wait_for(lambda: f"step-2/{MARK}" in there(store) and f"step-1/{MARK}" not in there(store))
    with work(store) as folder:
        assert found(folder) == "step-2"
    with work(store, commit=True) as folder:
        write(folder, 3)
    of_snapshots = sorted(name for name in uploaded if name)
    assert of_snapshots == [f"step-{number}/{name}" for number in (1, 2) for name in NAMES]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda objects, keys: objects.delete([keys[MARK]]), "it was not uploaded to its end"),
        (lambda objects, keys: objects.put(keys[MARK], b"[{"), "its mark cannot be read"),
        (
            lambda objects, keys: objects.put(keys[NAMES[2]], b"altered"),
            "shards/0.bin is missing there, or was altered",
        ),
        (lambda objects, keys: objects.delete([keys[NAMES[0]]]), "adapter.bin is missing there, or was altered"),
    ],
    ids=["no mark", "half a mark", "altered", "missing"],
)
def test_what_is_torn_is_passed_over_with_a_word(
    machine: Machines,
    spoil: Callable[[ObjectStore, dict[str, str]], None],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = machine("one")
    objects = ObjectStore(str(store.location))
    with work(store) as folder:
        earlier = write(folder, 9)
        write(folder, 10)
    keys = {name.removeprefix("step-10/"): key for name, key in there(store).items()}
    for name in (*NAMES, MARK):  # as when the machine was lost before what came earlier was deleted
        objects.put(keys[name].replace("step-10", "step-9"), (earlier / name).read_bytes())
    spoil(objects, keys)
    with work(machine("two")) as folder:
        assert found(folder) == "step-9"
        assert not (folder / "step-10").exists()
        assert f"snapshots/step-10 is not taken up: {problem}." in caplog.text
        assert caplog.text.count("not taken up") == 1
        write(folder, 11)
    assert there(store).keys() == {f"step-11/{name}" for name in (*NAMES, MARK)}, "and goes with the next"


def test_work_that_came_further_here_goes_on_from_there(machine: Machines) -> None:
    store = machine("one")
    with work(store) as folder:
        write(folder, 1)
    late = write(folder, 2)  # the machine was lost before the upload, and is back
    with work(store) as folder:
        assert last_complete(folder) == late
    assert f"step-2/{MARK}" in there(store)


def test_a_store_that_fails_does_not_fail_the_work(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upload = ObjectStore.upload

    def failing(self: ObjectStore, path: Path, key: str) -> None:
        if "optimizer" in key and "step-1/" in key:
            raise StorageError("the network is slow today")
        upload(self, path, key)

    monkeypatch.setattr(ObjectStore, "upload", failing)
    monkeypatch.setattr(unfinished, "EVERY_S", 0.02)
    store = machine("one")
    with work(store) as folder:
        write(folder, 1)
        wait_for(lambda: caplog.text.count("unfinished work is not copied for now: the network is slow today") > 1)
        assert f"step-1/{MARK}" not in there(store)
        write(folder, 2)
        wait_for(lambda: f"step-2/{MARK}" in there(store))
    with work(machine("two")) as folder:
        assert found(folder) == "step-2"


def test_a_snapshot_that_goes_while_it_is_uploaded_is_no_fault(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upload = ObjectStore.upload

    def overtaken(self: ObjectStore, path: Path, key: str) -> None:
        if "step-1/" in key:
            shutil.rmtree(folder / "step-1", ignore_errors=True)
        upload(self, path, key)

    monkeypatch.setattr(ObjectStore, "upload", overtaken)
    store = machine("one")
    with work(store) as folder:
        write(folder, 1)
    assert f"step-1/{MARK}" not in there(store)
    with work(store) as folder:
        write(folder, 2)
    assert found(folder) == "step-2"
    assert f"step-2/{MARK}" in there(store)
    assert "not copied" not in caplog.text


def test_what_no_longer_matches_its_mark_is_not_uploaded(machine: Machines) -> None:
    """As while a snapshot is written once more, in place of one that could not be gone on from."""
    store = machine("one")
    with work(store) as folder:
        (write(folder, 1) / NAMES[2]).write_text("half of another")
    assert there(store) == {}
    with work(store) as folder:
        write(folder, 1)
    assert f"step-1/{MARK}" in there(store)


def test_snapshots_of_what_is_made_are_garbage_wherever_they_were_written(machine: Machines) -> None:
    """A machine that was given up may upload after another one committed."""
    with work(machine("second"), commit=True):
        pass
    store = machine("lost")
    with work(store) as folder:
        write(folder, 1)
    store = machine("another")
    garbage = store.garbage()
    assert sum(garbage.values()) > 0
    store.collect(garbage)
    assert there(store) == {}


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
