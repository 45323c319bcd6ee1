"""Snapshots: folders `<name>-<number>` of unfinished work, each enough to go on from; the last one in a folder counts.

A snapshot is complete by its mark, a file that is written last and lists the others with size and hash. One without it
was cut off while it was written, and one that does not match it was altered: neither is gone on from.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import RootModel, ValidationError

from dagster_project.artifacts.files import write_atomically
from dagster_project.artifacts.manifest import FileEntry, altered_files, tree_entries

MARK = "complete.json"


class Mark(RootModel[tuple[FileEntry, ...]]):
    """The files of a complete snapshot, besides its mark."""


def mark_complete(snapshot: Path) -> None:
    """Says of a folder that it is written to its end, and stays as it is."""
    files = tuple(file for file in tree_entries(snapshot) if file.path != MARK)
    write_atomically(snapshot / MARK, Mark(files).model_dump_json(indent=1).encode())


def matches(snapshot: Path, mark: bytes) -> bool:
    """Whether a folder holds what a mark says."""
    try:
        return not altered_files(snapshot, Mark.model_validate_json(mark).root)
    except ValidationError:
        return False


def number_of(snapshot: Path) -> int:
    """Returns the number in a snapshot's name; a later one's is higher."""
    return int(snapshot.name.rpartition("-")[2])


def last_complete(folder: Path) -> Path | None:
    """Returns the last complete snapshot in a folder."""
    marked = sorted((mark.parent for mark in folder.glob(f"*/{MARK}")), key=number_of, reverse=True)
    return next((snapshot for snapshot in marked if matches(snapshot, (snapshot / MARK).read_bytes())), None)
