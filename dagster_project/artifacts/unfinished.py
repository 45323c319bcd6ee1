"""Unfinished work, kept safe in an object store while it goes on, so that a lost machine costs little of it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType

from dagster_project.artifacts.objects import ObjectStore, StorageError
from dagster_project.artifacts.parts import GrowingFiles
from dagster_project.artifacts.remote_snapshots import RemoteSnapshots

EVERY_S = 15.0
"""A machine that is lost costs what was finished in so many seconds."""

_logger = logging.getLogger(__name__)


class UnfinishedWork:
    """A block: its journal is brought back at the beginning, and copied from then on, every `EVERY_S` and at the end.

    Args:
        objects: Where the copies go.
        root: The folder that stands for the object store's here.
        journal: The folder of the work, below `root`: growing files, and snapshots in folders of their own.
    """

    def __init__(self, objects: ObjectStore, root: Path, journal: Path) -> None:
        self._journal = journal
        self._files, self._snapshots = GrowingFiles(objects, root), RemoteSnapshots(objects, root, journal)
        self._closing, self._done = threading.Event(), False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> UnfinishedWork:
        self.resume(self._journal)
        self._snapshots.resume()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done = error is None
        self._closing.set()
        self._thread.join()

    def resume(self, path: Path) -> None:
        """Brings back what other machines wrote of a growing file outside of the journal, and copies it, too."""
        self._files.resume(path)

    def _work(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(EVERY_S)
            # Snapshots go with the journal when the work is done; growing files outside of it stay.
            for copy in (self._files.copy,) if closing and self._done else (self._files.copy, self._snapshots.copy):
                try:
                    copy()
                except StorageError as problem:  # the next time may go well, and the work itself needs no copy
                    _logger.warning("unfinished work is not copied for now: %s", problem)
