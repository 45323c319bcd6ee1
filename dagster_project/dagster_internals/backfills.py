"""Backfills over partitions of several assets with different partitions, under an id of our choice.

Dagster's public way to launch a backfill, the GraphQL mutation `launchPartitionBackfill`, needs a running webserver and
chooses the id. The id is what keeps two daemons from launching the same work twice.
"""

from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)

__all__ = [
    "BULK_ACTION_TERMINAL_STATUSES",
    "AssetGraph",
    "AssetGraphSubset",
    "AssetKeyPartitionKey",
    "BulkActionStatus",
    "BulkActionsFilter",
    "PartitionBackfill",
]
