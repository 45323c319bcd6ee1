"""Dagster's event log in SQLite, with its databases kept open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine

from dagster_project.dagster_internals.event_log import INDEX_SHARD_NAME, ConfigurableClassData, SqliteEventLogStorage

BUSY_TIMEOUT_S = 60


class OpenedEventLog(SqliteEventLogStorage):
    """Dagster's own, which opens its databases anew for every event: three quarters of an event's six milliseconds.

    The files are the same; any number of processes may use either at once.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, Engine] = {}
        self._tables: dict[str, bool] = {}
        self._opening = threading.Lock()
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Any,
    ) -> OpenedEventLog:
        """Returns the storage that Dagster's configuration describes."""
        return cls(inst_data=inst_data, **config_value)

    def has_table(self, table_name: str) -> bool:
        """Returns whether a table is there, asked until it is."""
        if not self._tables.get(table_name):
            self._tables[table_name] = super().has_table(table_name)
        return self._tables[table_name]

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._opened(shard).begin() as connection:
            yield connection

    def _opened(self, shard: str) -> Engine:
        """Returns the engine of the index or of a run; of the runs, the latest one's stays open."""
        with self._opening:
            if shard not in self._engines:
                with super()._connect(shard):
                    pass  # makes the database if it is not there
                for old in self._engines.keys() - {INDEX_SHARD_NAME} if shard != INDEX_SHARD_NAME else ():
                    self._engines.pop(old).dispose()
                timeout = {"timeout": BUSY_TIMEOUT_S}
                self._engines[shard] = create_engine(self.conn_string_for_shard(shard), connect_args=timeout)
            return self._engines[shard]
