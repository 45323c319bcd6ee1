"""A bound for copies of what lies in a real S3 server: what goes, what stays, and who is asked first."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.copies import LIMIT
from tests.conftest import ROOT
from toolemu.errors import FrontierError

SIZE, ROOM = 1000, "0.0000025"
"""Bytes of an artifact; gigabytes for two of them and a half."""
NAMES = "abcdef"


def ref(name: str) -> Ref:
    return Ref.of("made", name=name)


def write(store: ArtifactStore, name: str) -> None:
    with store.write(ref(name), run_id="run", code_version="1", config={}, inputs={}) as draft:
        (draft.path / "content").write_text(name * SIZE)


def read(store: ArtifactStore, name: str) -> None:
    with store.reading():
        assert (store.get(ref(name)).path / "content").read_text() == name * SIZE


def copies(store: ArtifactStore) -> str:
    """Returns the names of those that are on this machine."""
    return "".join(name for name in NAMES if (store.directory(ref(name)) / "run" / "content").is_file())


@pytest.fixture
def store(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """A store with room for two copies on a machine that has none; there are six artifacts."""
    writer = ArtifactStore(bucket, "trial")
    for name in NAMES:
        write(writer, name)
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / "reader"))
    monkeypatch.setenv(LIMIT, ROOM)
    return ArtifactStore(bucket, "trial")


@contextmanager
def elsewhere(store: ArtifactStore, code: str) -> Iterator[subprocess.Popen[str]]:
    """Runs code in another process of the machine, with the `store` and `ref`; it is killed at the end of the block."""
    opening = f"""
        import time
        from dagster_project.artifacts import ArtifactStore
        from tests.artifacts.test_copies import NAMES, copies, read, ref
        store = ArtifactStore({store.location!r}, {store.experiment!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(opening) + textwrap.dedent(code)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_was_not_read_for_longest_goes_first_and_comes_back(store: ArtifactStore) -> None:
    for name, left in (("a", "a"), ("b", "ab"), ("a", "ab"), ("c", "ac"), ("b", "bc"), ("d", "bd")):
        read(store, name)
        assert copies(store) == left


def test_without_a_limit_all_copies_stay(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT)
    unbounded = ArtifactStore(store.location, "trial")
    for name in NAMES:
        read(unbounded, name)
    assert copies(unbounded) == NAMES


def test_what_is_written_here_counts_and_is_in_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    for name in NAMES:
        write(store, name)
        assert len(copies(store)) <= 2
    assert copies(store) == "ef"
    for name in NAMES:
        read(store, name)


def test_what_is_read_stays_until_its_reader_is_done(store: ArtifactStore) -> None:
    with store.reading():
        store.get_all([ref("a"), ref("b"), ref("c")])
        assert copies(store) == "abc", "who needs more than there is room for has it all"
        for name in "def":
            read(store, name)
        assert copies(store) == "abc"
    assert len(copies(store)) == 2, "then there is room again"


def test_what_is_read_outside_of_a_block_stays_while_the_process_lives(store: ArtifactStore) -> None:
    with elsewhere(store, "store.get(ref('a')); print('read', flush=True); time.sleep(100)") as other:
        assert said(other) == "read"
        for name in "bcde":
            read(store, name)
        assert copies(store) == "ae"
    read(store, "f")
    assert copies(store) == "ef", "a killed process reads nothing"


def test_a_limit_of_one_keeps_off_what_another_without_one_reads(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LIMIT)
    unbounded = ArtifactStore(store.location, "trial")
    with unbounded.reading():
        unbounded.get_all([ref("a"), ref("b"), ref("c")])
        read(store, "d")
        assert copies(store) == "abc"


def test_unfinished_work_and_drafts_are_no_copies(store: ArtifactStore) -> None:
    with store.write(ref("a"), run_id="next", code_version="2", config={}, inputs={}) as draft:
        draft.journal.mkdir(parents=True)
        for path in (draft.journal / "replies.jsonl", draft.path / "content"):
            path.write_bytes(bytes(10 * SIZE))
        kept = store.base / "reference_log_probabilities"
        kept.mkdir(parents=True)
        (kept / "values").write_bytes(bytes(10 * SIZE))
        for name in "bcd":
            read(store, name)
        assert copies(store) == "cd"
        assert (draft.journal / "replies.jsonl").is_file() and (draft.path / "content").is_file()
    assert (kept / "values").is_file()


READING = """
    import random
    rng = random.Random({seed})
    for _ in range(40):
        names = rng.sample(NAMES, 2)
        with store.reading():
            found = store.get_all([ref(name) for name in names])
            time.sleep(0.002)
            for name, artifact in zip(names, found.values(), strict=True):
                assert (artifact.path / "content").read_text()[:1] == name
    print("done", flush=True)
"""


def test_many_readers_at_once_always_find_what_they_read(store: ArtifactStore) -> None:
    with elsewhere(store, READING.format(seed=1)) as one, elsewhere(store, READING.format(seed=2)) as other:
        rng = random.Random(0)
        for _ in range(40):
            read(store, rng.choice(NAMES))
        assert (said(one), said(other)) == ("done", "done")
    read(store, "a")
    assert len(copies(store)) <= 2


@pytest.mark.parametrize("limit", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_an_error(bucket: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, limit)
    with pytest.raises(FrontierError, match=r"FRONTIER_CACHE_GB is .*: expected gigabytes, a number above 0"):
        ArtifactStore(bucket, "trial")
