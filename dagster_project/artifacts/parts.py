"""Unfinished work in an object store: files that only grow are copied there in parts, for any machine to take up.

A file's part is an object named by the place of its first byte, made on condition that it is not there. So parts of one
writer follow each other; a second writer of the same file is refused, and goes on with its own copy alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from dagster_project.artifacts.objects import Entry, ExistsError, ObjectStore, in_parallel

GROWING = "*.jsonl"
"""The files of a folder that are copied: those that only ever get longer."""
PARTS = ".parts"

_logger = logging.getLogger(__name__)


class GrowingFiles:
    """Copies growing files below `root` to the object store, and back.

    Args:
        objects: Where the parts go: below the file's path, from `root`, with `.parts` added.
        root: The folder that stands for the object store's here.
    """

    def __init__(self, objects: ObjectStore, root: Path) -> None:
        self._objects, self._root = objects, root
        self._watched: list[Path] = []
        self._copied: dict[Path, int] = {}
        self._refused: set[Path] = set()

    def resume(self, path: Path) -> None:
        """Brings back what other machines wrote of a file, or of a folder's growing files, and copies it from now on.

        What lies here already is kept if it begins with all of that. Otherwise another machine has gone on since, and
        what it wrote counts.
        """
        found: dict[Path, list[Entry]] = {}
        for entry in [*self._objects.entries(f"{self._key(path)}{PARTS}"), *self._objects.entries(self._key(path))]:
            name = entry.key.rpartition("/")[0]
            if name.endswith(PARTS):
                found.setdefault(self._root / name.removesuffix(PARTS), []).append(entry)
        for file, entries in found.items():
            content = self._joined(sorted(entries))
            if not (file.is_file() and file.read_bytes().startswith(content)):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._copied[file] = len(content)
        self._watched.append(path)

    def _joined(self, parts: list[Entry]) -> bytes:
        """Returns the parts that follow each other; what lies behind a gap was left by a deletion, and goes."""
        content = b""
        for place, part in enumerate(in_parallel(lambda entry: self._objects.get(entry.key) or b"", parts)):
            if int(parts[place].key.rpartition("/")[2]) != len(content):
                self._objects.delete(entry.key for entry in parts[place:])
                break
            content += part
        return content

    def copy(self) -> None:
        """Uploads the lines that were added since.

        Raises:
            StorageError: The object store fails.
        """
        for file in self._files():
            begun = self._copied.get(file, 0)
            with file.open("rb") as lines:
                lines.seek(begun)
                part = lines.read()
            part = part[: part.rfind(b"\n") + 1]
            if not part:
                continue
            key = f"{self._key(file)}{PARTS}/{begun:015d}"
            try:
                self._objects.put(key, part, new=True)
            except ExistsError:
                if self._objects.get(key) != part:  # else it was written, and only the answer was lost
                    self._refused.add(file)
                    _logger.warning("%s: another machine is at this work, too; it goes on here by itself", file)
                    continue
            self._copied[file] = begun + len(part)

    def _files(self) -> Iterator[Path]:
        for path in self._watched:
            for file in sorted(path.glob(GROWING)) if path.is_dir() else [path] if path.is_file() else []:
                if file not in self._refused:
                    yield file

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()
