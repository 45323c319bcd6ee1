"""Copies of artifacts on this machine: which there are, who reads them, and which go when they take too much room.

Every run's folder that was downloaded, or uploaded from here, has a mark: an empty file as old as its last use. A
reader keeps a list of what it reads, locked for as long, so that a killed process's counts no more. Lists are written,
and copies removed, under one lock: what a reader has put on its list stays, or is missing and is downloaded again.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock

from toolemu.errors import FrontierError

LIMIT = "FRONTIER_CACHE_GB"
"""Environment variable: gigabytes that copies may take; without it there is no limit."""
FOLDER, MARKS, READERS, LOCK = ".copies", "marks", "readers", "lock"


class Copies:
    """The copies below one folder.

    Args:
        root: The folder.

    Raises:
        FrontierError: The limit in the environment is no number.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, root / FOLDER
        self._limit = _limit()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever is used in the block is in use until its end; outside of one, until the process ends."""
        with self._lock():
            reader = _Reader(self._folder / READERS)
        token = _reading.set(reader)
        try:
            yield
        finally:
            _reading.reset(token)
            with self._lock():
                reader.close()
            self.make_room()

    def use(self, runs: Iterable[Path]) -> None:
        """Notes that runs' folders are read now; none of them is removed while they are."""
        names = [run.relative_to(self._root) for run in runs]
        with self._lock():
            reader = _reading.get()
            if reader is None or reader.folder != self._folder / READERS:
                reader = _until_the_end(self._folder / READERS)
            reader.add(names)
            self._mark(names)

    def add(self, run: Path) -> None:
        """Notes that a run's folder, which was made here, is a copy now."""
        with self._lock():
            self._mark([run.relative_to(self._root)])

    def forget(self, folder: Path) -> None:
        """Notes that what was copied to a folder, or below it, is no copy any more."""
        mark = self._folder / MARKS / folder.relative_to(self._root)
        with self._lock():
            if mark.is_dir():
                shutil.rmtree(mark)
            else:
                mark.unlink(missing_ok=True)

    def make_room(self, needed: int = 0) -> None:
        """Removes the copies that were not used for longest, until there is room for so many bytes within the limit.

        What somebody reads stays, and so does what is no copy: drafts, and unfinished work.
        """
        if self._limit is None:
            return
        with self._lock():
            marks = [path for path in (self._folder / MARKS).rglob("*") if path.is_file()]
            used = {mark: mark.stat().st_mtime_ns for mark in marks}
            sizes = {mark: bytes_below(self._copy(mark)) for mark in marks}
            left, held = sum(sizes.values()) + needed, self._held()
            for mark in sorted(marks, key=used.__getitem__):
                if left <= self._limit:
                    return
                if self._copy(mark) not in held:
                    shutil.rmtree(self._copy(mark), ignore_errors=True)
                    mark.unlink()
                    left -= sizes[mark]

    def _copy(self, mark: Path) -> Path:
        return self._root / mark.relative_to(self._folder / MARKS)

    def _mark(self, names: Iterable[Path]) -> None:
        now = time.time_ns()  # the file system's own clock ticks every few milliseconds
        for name in names:
            mark = self._folder / MARKS / name
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            os.utime(mark, ns=(now, now))

    def _held(self) -> set[Path]:
        """Returns what is on the lists of readers that are still there; other lists go."""
        held: set[Path] = set()
        for path in (self._folder / READERS).glob("*"):
            with path.open(encoding="utf-8") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    held |= {self._root / line for line in file.read().splitlines()}
                else:
                    path.unlink()
        return held

    def _lock(self) -> FileLock:
        (self._folder / READERS).mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / LOCK)


class _Reader:
    """A list, on disk for other processes, of what is read; to be made and changed under the lock of the copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / uuid.uuid4().hex
        self._file = self._path.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def add(self, names: Iterable[Path]) -> None:
        self._file.writelines(f"{name.as_posix()}\n" for name in names)
        self._file.flush()

    def close(self) -> None:
        self._path.unlink()
        self._file.close()


_reading: ContextVar[_Reader | None] = ContextVar("reading", default=None)


@functools.cache
def _until_the_end(folder: Path) -> _Reader:
    """Returns the list of what this process reads outside of any block."""
    return _Reader(folder)


def bytes_below(folder: Path) -> int:
    """Returns the size of everything below a folder; what goes meanwhile is left out."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(place, name).stat().st_size
    return size


def _limit() -> float | None:
    text = os.environ.get(LIMIT)
    if not text:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = 0
    if not limit > 0:
        raise FrontierError(f"{LIMIT} is {text!r}: expected gigabytes, a number above 0. Mend it, or leave it out.")
    return limit * 1e9
