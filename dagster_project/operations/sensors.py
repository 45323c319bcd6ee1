"""Dagster's sensors: results follow the data, and failures are told."""

# No `from __future__ import annotations` here: Dagster looks at the type of `context` itself.

import time
from datetime import UTC, datetime

import dagster as dg

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.failures import Failure, failures, note_lost
from dagster_project.dagster_internals import (
    NOT_FINISHED_STATUSES,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    WILL_RETRY_TAG,
)
from dagster_project.experiment.assets import AssetFactory, partition_of
from dagster_project.experiment.causes import Cause
from dagster_project.experiment.graph import Graph
from dagster_project.operations.alerts import alert_of, post
from dagster_project.operations.following import Cursor, Look, data, decide, results, stale_results
from dagster_project.operations.preflight import webhook_url
from dagster_project.operations.schedules import SEEDS, fingerprint
from dagster_project.operations.seeds import active_backfill
from dagster_project.operations.state import states
from dagster_project.report.wording import ui_url

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
        run, message = context.dagster_run, _message(context)
        noted = _noted(store, run.run_id)
        if not noted:
            began = context.instance.get_run_stats(run.run_id).start_time or time.time()
            note_lost(store, _unmade(run, graph, store), run.run_id, message, datetime.fromtimestamp(began, UTC))
            noted = _noted(store, run.run_id)
        if run.tags.get(WILL_RETRY_TAG) == "true":
            return dg.SkipReason(f"run {run.run_id} is tried again")
        unnoted = Cause.input if run.job_name == SEEDS else Cause.lost
        alert = alert_of(experiment.name, run.run_id, noted, message, ui_url(), unnoted)
        context.log.error(alert.text)
        url = webhook_url(experiment)
        if url:
            post(url, alert)
        return dg.SkipReason(alert.text)

    return [follow, tell]


def _noted(store: ArtifactStore, run_id: str) -> list[Failure]:
    """Returns what is noted of a run's failures, the last of every partition."""
    return list({failure.ref: failure for failure in failures(store) if failure.run_id == run_id}.values())


def _message(context: dg.RunFailureSensorContext) -> str:
    """Returns what went wrong in a run: its first step's error in its own words, else what Dagster says."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return error.message.strip()
    return context.failure_event.message or ""


def _unmade(run: dg.DagsterRun, graph: Graph, store: ArtifactStore) -> list[Ref]:
    """Returns what a run was to make and did not."""
    names = ["/".join(key.path[1:]) for key in run.asset_selection or () if key.path[0] == graph.experiment.name]
    partition = run.tags.get(PARTITION_NAME_TAG)
    refs = [Ref(name, partition_of(graph.nodes[name], partition)) for name in names]
    manifests = {ref: store.manifest(ref) for ref in refs}
    return [ref for ref, made in manifests.items() if made is None or made.run_id != run.run_id]


def _look(instance: dg.DagsterInstance, experiment: str, followed: list[dg.AssetKey], loaded: str) -> Look:
    entries = [record.asset_entry for record in instance.get_asset_records(followed)]
    made = [entry.last_materialization_record for entry in entries if entry.last_materialization_record is not None]
    newest = max(made, key=lambda record: record.storage_id, default=None)
    unfinished = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    busy = active_backfill(instance, experiment) is not None or any(
        key.path[0] == experiment for run in unfinished for key in run.asset_selection or ()
    )
    return Look(newest.storage_id if newest else 0, newest.timestamp if newest else 0.0, busy, loaded)
