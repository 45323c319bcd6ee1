"""What making everything took: time, GPU, tokens and money of each partition, and what failed on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from dagster_project.artifacts import Manifest
from dagster_project.artifacts.failures import Failure
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.pools import GPU

SECONDS_AN_HOUR = 3600
TOKENS = ("_prompt_tokens", "_completion_tokens")


def gpu_hours(graph: Graph, manifest: Manifest) -> float | None:
    """Returns for how long making a partition had a GPU; None if it had none."""
    node = graph.nodes.get(manifest.asset)
    if not manifest.gpu or node is None or node.pool != GPU:
        return None
    return seconds(manifest) / SECONDS_AN_HOUR


def seconds(manifest: Manifest) -> float:
    """Returns how long making a partition took."""
    return (manifest.ended_at - manifest.started_at).total_seconds()


def tokens(manifest: Manifest) -> int | None:
    """Returns the tokens that models behind endpoints read and wrote for a partition; None if it asked none."""
    found = [count for name, count in manifest.counts.items() if name.endswith(TOKENS)]
    return sum(found) if found else None


def cost(manifest: Manifest) -> float | None:
    """Returns what models behind endpoints cost for a partition; None if no price is known."""
    found = [amount for name, amount in manifest.metrics.items() if name.endswith("_cost")]
    return sum(found) if found else None


def operation_rows(graph: Graph, manifests: Iterable[Manifest], noted: Iterable[Failure]) -> Iterator[tuple[Any, ...]]:
    """Yields the table `operations`: what each partition took, and how often it failed before."""
    failed = Counter(failure.ref for failure in noted)
    for manifest in manifests:
        yield (
            manifest.asset,
            manifest.ref.partition_label,
            manifest.run_id,
            manifest.host,
            manifest.gpu or None,
            seconds(manifest),
            gpu_hours(graph, manifest),
            tokens(manifest),
            cost(manifest),
            failed[manifest.ref],
        )


def failure_rows(noted: Iterable[Failure]) -> Iterator[tuple[Any, ...]]:
    """Yields the table `failures`: every attempt that failed, with its cause."""
    for failure in noted:
        lost = (failure.failed_at - failure.started_at).total_seconds()
        yield (
            failure.asset,
            failure.ref.partition_label,
            failure.run_id,
            failure.cause,
            failure.message,
            failure.failed_at,
            lost,
        )
