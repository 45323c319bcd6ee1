"""Dagster is told of imported partitions beside the runs that go on, since it takes milliseconds for each."""

from __future__ import annotations

import logging
import threading
import time

import dagster as dg

from dagster_project.artifacts import ArtifactStore
from dagster_project.artifacts.files import write_atomically
from dagster_project.dagster_internals import StepMaterializationData
from dagster_project.experiment.assets import materialisation
from dagster_project.experiment.graph import IMPORT, Graph
from dagster_project.operations.state import REPORTED, unreported_import

BATCH = 100


class PartitionReport:
    """Reports every partition of the last import to Dagster, as events of its run, in a thread of its own."""

    def __init__(self, graph: Graph, store: ArtifactStore, instance: dg.DagsterInstance, run_id: str) -> None:
        self._graph, self._store, self._instance, self._run_id = graph, store, instance, run_id
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    @classmethod
    def start(cls, graph: Graph, store: ArtifactStore, instance: dg.DagsterInstance) -> PartitionReport | None:
        """Begins to report, unless the last import's partitions are reported already."""
        run_id = unreported_import(store)
        if run_id is None:
            return None
        report = cls(graph, store, instance, run_id)
        report._thread.start()
        return report

    def wait(self) -> None:
        """Returns when everything is reported.

        Raises:
            BaseException: What went wrong on the way.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            made = {node.name for node in self._graph.nodes.values() if node.made_by == IMPORT}
            events = []
            for manifest in self._store.manifests():
                if manifest.asset not in made or manifest.run_id != self._run_id:
                    continue
                event = dg.DagsterEvent(
                    event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                    event_specific_data=StepMaterializationData(materialisation(self._store, manifest)),
                    job_name="__ASSET_JOB",
                )
                events.append(
                    dg.EventLogEntry(  # type: ignore[no-untyped-call]
                        error_info=None,
                        level=logging.INFO,
                        user_message="",
                        run_id=manifest.run_id,
                        timestamp=time.time(),
                        job_name=event.job_name,
                        dagster_event=event,
                    )
                )
            for start in range(0, len(events), BATCH):
                self._instance.event_log_storage.store_event_batch(events[start : start + BATCH])
            write_atomically(self._store.base / REPORTED, self._run_id.encode())
        except BaseException as failure:  # noqa: BLE001 - handed to whoever waits
            self._failure = failure
