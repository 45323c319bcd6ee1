"""How many places a pool has, as Dagster's instance says."""

from __future__ import annotations

import dagster as dg


def places(instance: dg.DagsterInstance, pool: str) -> int | None:
    """Returns how many steps may have a place in a pool at once; None: any number."""
    given = {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}
    default: int | None = instance.event_log_storage.get_pool_config().default_pool_limit
    return given.get(pool, default)
