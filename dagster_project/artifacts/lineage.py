"""Lineage: from an artifact back to everything it was made from, by the manifests alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dagster_project.artifacts.manifest import InputEntry
from dagster_project.artifacts.refs import Ref
from dagster_project.artifacts.store import ArtifactStore


class LineageRow(NamedTuple):
    """One artifact on the way back.

    Attributes:
        depth: Steps from the start.
        entry: Which run of which partition, with its content hash.
        path: Where its files lie.
        status: `ok` (files match their hashes), `replaced` (a newer run counts now, the consumed files remain or are
            gone), or what is wrong.
        files: Number of files checked.
    """

    depth: int
    entry: InputEntry
    path: str
    status: str
    files: int


def trace(store: ArtifactStore, starts: Iterable[Ref]) -> list[LineageRow]:
    """Returns everything `starts` were made from, themselves first, breadth first, each artifact once.

    Raises:
        MissingArtifactError: One of `starts` was never made.
    """
    queue = [(0, store.get(start).entry) for start in starts]
    seen: set[tuple[Ref, str]] = set()
    rows = []
    for depth, entry in queue:  # grows while it is walked
        if (entry.ref, entry.run_id) in seen:
            continue
        seen.add((entry.ref, entry.run_id))
        manifest = store.manifest(entry.ref)
        path = store.directory(entry.ref) / entry.run_id
        if manifest is None:
            rows.append(LineageRow(depth, entry, str(path), "missing", 0))
            continue
        if manifest.run_id != entry.run_id and manifest.sha256 != entry.sha256:
            rows.append(LineageRow(depth, entry, str(path), f"replaced by run {manifest.run_id}", 0))
            continue
        artifact = store.get(entry.ref)
        altered = artifact.altered_files()
        status = f"altered: {', '.join(altered)}" if altered else "ok"
        if manifest.sha256 != entry.sha256:
            status = "content differs from what was read"
        rows.append(LineageRow(depth, entry, str(artifact.path), status, len(manifest.files)))
        queue.extend((depth + 1, child) for child in manifest.inputs)
    return rows
