"""Merged weights that nothing reads any more: found by the manifests, and removed where the experiment says so."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from dagster_project.artifacts import ArtifactStore, Manifest, Ref
from dagster_project.artifacts.manifest import config_sha256
from dagster_project.experiment.graph import WEIGHTS, Graph
from dagster_project.experiment.nodes import Kind


def idle_merged(graph: Graph, store: ArtifactStore, refs: Iterable[Ref]) -> list[Manifest]:
    """Returns the merged models among `refs` that have their weights, and from which all that reads them was made.

    What is stale, or was never made, still needs what it reads. Weights of agents that the experiment no longer has
    are needed by nothing.
    """
    found = []
    for ref in refs:
        if ref.asset in graph.nodes and graph.node(ref).kind is not Kind.merged:
            continue
        manifest = store.manifest(ref)
        if manifest is None or graph.kind_of(manifest) is not Kind.merged or not weights_of(manifest):
            continue
        if all(_made_from(graph, store, reader, manifest) for reader in _readers(graph, ref)):
            found.append(manifest)
    return found


def weights_of(manifest: Manifest) -> int:
    """Returns the bytes of an artifact's weights that were not removed."""
    return sum(file.bytes for file in manifest.kept if fnmatch.fnmatch(file.path, WEIGHTS))


def release(graph: Graph, store: ArtifactStore, refs: Iterable[Ref]) -> int:
    """Removes the weights of `idle_merged` among `refs` if the experiment keeps only what is needed; returns bytes."""
    if graph.experiment.trainer.keep_merged != "needed":
        return 0
    return sum(store.release(manifest, WEIGHTS) for manifest in idle_merged(graph, store, refs))


def _readers(graph: Graph, source: Ref) -> list[Ref]:
    """Returns the partitions that read a partition; those that take what is there read no weights."""
    nodes = (node for node in graph.nodes.values() if not node.partial and "seed" in node.dimensions)
    return [ref for node in nodes for ref in node.refs() if ref.seed == source.seed and source in node.sources(ref)]


def _made_from(graph: Graph, store: ArtifactStore, reader: Ref, source: Manifest) -> bool:
    """Whether a partition was made, by the code and configuration there are, from what `source` is."""
    node, manifest = graph.node(reader), store.manifest(reader)
    return (
        manifest is not None
        and manifest.code_version == node.code_version
        and config_sha256(manifest.config) == config_sha256(node.config(reader))
        and any((entry.ref, entry.sha256) == (source.ref, source.sha256) for entry in manifest.inputs)
    )
