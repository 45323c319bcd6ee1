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
        status: `ok` (files match their hashes, or were removed to save room), `replaced` (a newer run counts now, the
            consumed files remain or are gone), or what is wrong.
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
    queue = [(0, artifact.entry) for artifact in store.get_all(starts, skip=["*"]).values()]
    seen: set[tuple[Ref, str]] = set()
    rows = []
    for depth, entry in queue:  # grows while it is walked
        if (entry.ref, entry.run_id) in seen:
            continue
        seen.add((entry.ref, entry.run_id))
        manifest = store.manifest(entry.ref)
        path = store.place(entry.ref, entry.run_id)
        if manifest is None:
            rows.append(LineageRow(depth, entry, path, "missing", 0))
            continue
        if manifest.run_id != entry.run_id and manifest.sha256 != entry.sha256:
            rows.append(LineageRow(depth, entry, path, f"replaced by run {manifest.run_id}", 0))
            continue
        altered = store.altered_files(manifest)
        status = f"altered: {', '.join(altered)}" if altered else "ok"
        if manifest.sha256 != entry.sha256:
            status = "content differs from what was read"
        rows.append(LineageRow(depth, entry, store.place(entry.ref, manifest.run_id), status, len(manifest.kept)))
        queue.extend((depth + 1, child) for child in manifest.inputs)
    return rows
