"""Dagster's event log in SQLite, to keep its databases open.

Opening them takes three quarters of the time that storing an event takes.
"""

from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._serdes import ConfigurableClassData

__all__ = ["INDEX_SHARD_NAME", "ConfigurableClassData", "SqliteEventLogStorage"]
