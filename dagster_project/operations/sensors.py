"""Dagster's sensors: results follow the data, and failures are told."""

# No `from __future__ import annotations` here: Dagster looks at the type of `context` itself.

import os
import time

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PRIORITY_TAG, WILL_RETRY_TAG

from dagster_project.artifacts import ArtifactStore
from dagster_project.artifacts.failures import failures
from dagster_project.experiment.assets import AssetFactory
from dagster_project.experiment.graph import Graph
from dagster_project.operations.alerts import alert_of, post
from dagster_project.operations.following import Cursor, Look, data, decide, results, stale_results
from dagster_project.operations.preflight import webhook_url
from dagster_project.operations.schedules import fingerprint
from dagster_project.operations.seeds import active_backfill
from dagster_project.operations.state import states
from dagster_project.report.assets import UI, UI_VARIABLE

LOOK_EVERY_S = 30
PRIORITY = "10"
"""Of results in the queue: minutes of work, which nobody wants to see behind days of it."""


def build(graph: Graph, store: ArtifactStore) -> list[dg.SensorDefinition]:
    """Returns an experiment's sensors, both on until they are turned off."""
    experiment = graph.experiment
    settings, loaded = experiment.operations, fingerprint(experiment)
    followed = [AssetFactory.key_of(experiment, name) for name in data(graph)]

    @dg.sensor(
        name="results",
        asset_selection=dg.AssetSelection.assets(*(AssetFactory.key_of(experiment, name) for name in results(graph))),
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes warehouse, results, figures and report anew, once after every burst of changes.",
    )
    def follow(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = Cursor.model_validate_json(context.cursor) if context.cursor else Cursor()
        decision = decide(
            cursor,
            _look(context.instance, experiment.name, followed, loaded),
            time.time(),
            settle_s=settings.settle_s,
            at_least_every_s=settings.results_within_h * 3600,
        )
        new = decision.cursor.model_dump_json()
        wanted = stale_results(graph, states(graph, store)) if decision.now else []
        if not wanted:
            reason = f"{decision.reason}; every result is of the newest data" if decision.now else decision.reason
            return dg.SensorResult(skip_reason=reason, cursor=new)
        request = dg.RunRequest(
            run_key=f"{decision.cursor.seen}-{loaded}",
            asset_selection=[AssetFactory.key_of(experiment, name) for name in wanted],
            tags={PRIORITY_TAG: PRIORITY},
        )
        return dg.SensorResult([request], cursor=new)

    @dg.run_failure_sensor(
        name="failures",
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of failed runs, with cause and remedy: in its log, and at operations.webhook, if any.",
    )
    def tell(context: dg.RunFailureSensorContext) -> dg.SkipReason:
        run = context.dagster_run
        if run.tags.get(WILL_RETRY_TAG) == "true":
            return dg.SkipReason(f"run {run.run_id} is tried again")
        noted = {failure.ref: failure for failure in failures(store) if failure.run_id == run.run_id}
        message = context.failure_event.message or ""
        ui = os.environ.get(UI_VARIABLE, UI)
        alert = alert_of(experiment.name, run.run_id, list(noted.values()), message, ui)
        context.log.error(alert.text)
        url = webhook_url(experiment)
        if url:
            post(url, alert)
        return dg.SkipReason(alert.text)

    return [follow, tell]


def _look(instance: dg.DagsterInstance, experiment: str, followed: list[dg.AssetKey], loaded: str) -> Look:
    entries = [record.asset_entry for record in instance.get_asset_records(followed)]
    made = [entry.last_materialization_record for entry in entries if entry.last_materialization_record is not None]
    newest = max(made, key=lambda record: record.storage_id, default=None)
    unfinished = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    busy = active_backfill(instance, experiment) is not None or any(
        key.path[0] == experiment for run in unfinished for key in run.asset_selection or ()
    )
    return Look(newest.storage_id if newest else 0, newest.timestamp if newest else 0.0, busy, loaded)
