"""Unfinished work in an object store: complete snapshots are copied there whole, the last for any machine to take up.

Keys are the paths of the snapshots here. Files are uploaded before their mark, and what is downloaded must match it:
what a lost machine uploaded in part, or two machines mixed, is not taken.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from dagster_project.artifacts.files import write_atomically
from dagster_project.artifacts.manifest import FileEntry
from dagster_project.artifacts.objects import NoObjectError, ObjectStore, StorageError, in_parallel
from dagster_project.artifacts.parts import PARTS
from dagster_project.artifacts.snapshots import MARK, Mark, last_complete, matches, number_of

_logger = logging.getLogger(__name__)


class RemoteSnapshots:
    """Copies snapshots to the object store and back: of all in one folder, the last that is complete.

    Args:
        objects: Where they go.
        root: The folder that stands for the object store's here.
        journal: Where, below `root`, there are folders of snapshots, at any depth.
    """

    def __init__(self, objects: ObjectStore, root: Path, journal: Path) -> None:
        self._objects, self._root, self._journal = objects, root, journal
        self._copied: dict[Path, bytes] = {}

    def resume(self) -> None:
        """Brings back snapshots that are later than what is here. What cannot be taken is told, and an earlier one is.

        Raises:
            StorageError: The object store fails; to go on without its answer could do again what was done.
        """
        files = [self._root / entry.key for entry in self._objects.entries(self._key(self._journal))]
        marked = {file.parent for file in files if file.name == MARK}
        others = {file.parent for file in files if marked.isdisjoint(file.parents)}
        for folder in sorted(others):
            if not folder.name.endswith(PARTS) and others.isdisjoint(folder.parents):
                self._pass_over(folder, "it was not uploaded to its end")
        for folder in {snapshot.parent for snapshot in marked}:
            self._bring_back(folder, (snapshot for snapshot in marked if snapshot.parent == folder))

    def _bring_back(self, folder: Path, snapshots: Iterable[Path]) -> None:
        here = last_complete(folder)
        for snapshot in sorted(snapshots, key=number_of, reverse=True):
            mark = self._objects.get(self._key(snapshot / MARK)) or b""
            if here is None or number_of(here) < number_of(snapshot):
                problem = self._download(snapshot, mark)
                if problem:
                    self._pass_over(snapshot, problem)
                    continue
            self._copied[snapshot] = mark
            return

    def _download(self, snapshot: Path, mark: bytes) -> str:
        """Makes a snapshot here, or returns why that cannot be."""
        try:
            files = Mark.model_validate_json(mark).root
        except ValidationError:
            return "its mark cannot be read"
        shutil.rmtree(snapshot, ignore_errors=True)
        altered = in_parallel(lambda file: self._fetch(snapshot, file) != file.sha256, files)
        if any(altered):
            shutil.rmtree(snapshot)
            return f"{files[altered.index(True)].path} is missing there, or was altered"
        write_atomically(snapshot / MARK, mark)
        return ""

    def _fetch(self, snapshot: Path, file: FileEntry) -> str | None:
        path = snapshot / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._objects.download(self._key(path), path)
        except NoObjectError:
            return None

    def _pass_over(self, snapshot: Path, problem: str) -> None:
        _logger.warning("%s is not taken up: %s.", self._key(snapshot), problem)

    def copy(self) -> None:
        """Uploads what became complete since, and deletes what came before it.

        Raises:
            StorageError: The object store fails.
        """
        for snapshot in self._last():
            try:
                mark = (snapshot / MARK).read_bytes()
                if self._copied.get(snapshot) != mark and matches(snapshot, mark):
                    self._upload(snapshot, mark)
            except (FileNotFoundError, StorageError):
                if (snapshot / MARK).exists():  # else it went meanwhile: there is a later one
                    raise

    def _upload(self, snapshot: Path, mark: bytes) -> None:
        files = Mark.model_validate_json(mark).root
        in_parallel(lambda path: self._objects.upload(path, self._key(path)), [snapshot / file.path for file in files])
        self._objects.put(self._key(snapshot / MARK), mark)
        self._copied[snapshot] = mark
        folder = snapshot.parent
        there = [(self._root / entry.key).relative_to(folder) for entry in self._objects.entries(self._key(folder))]
        earlier = [path for path in there if number_of(Path(path.parts[0])) < number_of(snapshot)]
        self._objects.delete(self._key(folder / path) for path in earlier)

    def _last(self) -> list[Path]:
        """Returns the last marked snapshot of every folder."""
        last: dict[Path, Path] = {}
        for place, _, names in os.walk(self._journal):
            if MARK in names:
                snapshot = Path(place)
                last[snapshot.parent] = max(last.get(snapshot.parent, snapshot), snapshot, key=number_of)
        return list(last.values())

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()
