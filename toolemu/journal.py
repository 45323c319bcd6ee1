"""Many tasks at once, each record journaled as it is finished: a crash costs no more than what was under way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import orjson
from filelock import FileLock, Timeout
from pydantic import BaseModel

from toolemu.errors import FrontierError
from toolemu.jsonl import encode, read_jsonl

Task = TypeVar("Task")
Record = TypeVar("Record", bound=BaseModel)

# A power cut loses at most the records of this time; a killed process loses none.
_SYNC_SECONDS = 0.5
# The lock of a killed process is free at once, that of one which is just ending soon.
_LOCK_SECONDS = 2.0

_logger = logging.getLogger(__name__)


class JournalBusyError(FrontierError):
    """Another process is writing the same journal."""


class AppendFile:
    """A file open for appending lines that survive the death of the process."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab")
        self._synced = time.monotonic()

    def append(self, line: bytes) -> None:
        """Writes one line, its end included."""
        self._file.write(line)
        self._file.flush()
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        """Makes sure that everything is on disk, and closes the file."""
        try:
            self._sync()
        finally:
            self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, ``<name>.lock`` beside it; makes its folder if need be.

    Raises:
        JournalBusyError: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout as error:
        raise JournalBusyError(f"{path}: another process is at this work. Wait for it to end, or end it.") from error
    try:
        yield
    finally:
        lock.release()


def drop_torn_line(path: Path) -> None:
    """Cuts off a last line that a kill or a power cut left unfinished; its task is then done again."""
    good = 0
    with path.open("r+b") as file:
        for line in file:
            if not _is_whole(line):
                # A bad line with others after it was not left by a crash: whoever reads it next complains.
                if not file.read(1):
                    _logger.warning("%s: the last line was never finished and is cut off", path)
                    file.truncate(good)
                return
            good += len(line)


def _is_whole(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        # After a power cut, the end of a file can hold zeros instead of what was written.
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _resume(
    journal: Path,
    model: type[Record],
    record_key: Callable[[Record], str],
    wanted: Container[str],
    again: Callable[[Record], bool],
) -> dict[str, Record]:
    """Returns the first lasting record of each wanted task, and says what else the journal holds."""
    done: dict[str, Record] = {}
    if not journal.exists():
        return done
    drop_torn_line(journal)
    others = doubled = 0
    for record in read_jsonl(journal, model):
        name = record_key(record)
        if name not in wanted:
            others += 1
        elif again(record):
            continue
        elif name in done:
            doubled += 1
        else:
            done[name] = record
    if others or doubled:
        _logger.warning("%s: ignored %d records of other tasks and %d doubled ones", journal, others, doubled)
    return done


async def run_journaled(
    tasks: Sequence[Task],
    key: Callable[[Task], str],
    work: Callable[[Task], Awaitable[Record]],
    model: type[Record],
    record_key: Callable[[Record], str],
    journal: Path,
    concurrency: int,
    progress: Callable[[int, int], None] | None = None,
    again: Callable[[Record], bool] = lambda record: False,
) -> list[Record]:
    """Does `work` on every task that the journal does not hold yet, at most `concurrency` at once.

    A record is in the journal before its worker takes the next task. If one task fails or the call is cancelled, the
    others are cancelled, and what was finished stays in the journal for the next call.

    Args:
        tasks: What there is to do.
        key: Returns a task's identity.
        work: Does one task.
        model: The type of record.
        record_key: Returns the identity of a record's task.
        journal: The file, one record a line; made if there is none. Beside it lies ``<name>.lock``.
        concurrency: Most tasks at once.
        progress: Called with the numbers of finished tasks and of all: once before work begins, then after each task.
        again: Says of a record in the journal whether its task is to be done again: it says no more than that
            something failed, which may have been mended since.

    Returns:
        The records in order of tasks, whatever order they were finished in.

    Raises:
        JournalBusyError: Another process is writing the journal.
        InputError: The journal is damaged before its last line, or of other records.
        ValueError: Two tasks are the same, a record is not of its task, or `concurrency` is below 1.
        Exception: The first that `work` raised.
    """
    wanted = {key(task): task for task in tasks}
    if len(wanted) != len(tasks):
        raise ValueError("two tasks have the same key")
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, found {concurrency}")
    with locked(journal):
        done = _resume(journal, model, record_key, wanted, again)
        pending = iter([(name, task) for name, task in wanted.items() if name not in done])
        with contextlib.closing(AppendFile(journal)) as book:

            async def worker() -> None:
                for name, task in pending:
                    record = await work(task)
                    if record_key(record) != name:
                        raise ValueError(f"the record of task {name!r} is of {record_key(record)!r}")
                    book.append(encode(record))
                    done[name] = record
                    if progress is not None:
                        progress(len(done), len(wanted))

            if progress is not None:
                progress(len(done), len(wanted))
            try:
                # As many workers as may run at once share one iterator: nothing exists for a task before its turn.
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(concurrency, len(wanted) - len(done))):
                        group.create_task(worker())
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
    return [done[name] for name in wanted]
