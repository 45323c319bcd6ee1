"""`agent_specs` follows the experiment file, so that Dagster's UI, too, shows what a change of a parameter makes stale.

Dagster compares what was read with what is there; a parameter that changed is there once its specification is. Only
specifications that were made before are made again: the first ones belong to their seed.
"""

# No `from __future__ import annotations` here: Dagster looks at the type of `context` itself.

import time
from itertools import takewhile
from typing import NamedTuple

import dagster as dg

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.assets import materialisation
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.nodes import Kind
from dagster_project.operations.schedules import JOB_PRIORITY, fingerprint
from dagster_project.operations.state import State, states
from dagster_project.training.specs import write_spec

SPECS = "specs"
LOADED_TAG = "frontier/loaded"
"""Of a run: the experiment as it was loaded when the sensor asked for the run."""
LOOK_EVERY_S = 30
LONGEST_WAIT_S = 24 * 3600
"""After a run that failed; the waits before grow to it from `operations.retry_after_s`, each twice the last."""


class Following(NamedTuple):
    """The sensor over an experiment's specifications and its job."""

    sensor: dg.SensorDefinition
    job: dg.JobDefinition


def stale_specs(graph: Graph, store: ArtifactStore) -> list[Ref]:
    """Returns the specifications that were made from other parameters than the experiment file has now."""
    return [
        ref
        for ref, found in states(graph, store).items()
        if graph.node(ref).kind is Kind.specs and found.state is State.stale
    ]


def build(graph: Graph, store: ArtifactStore) -> Following:
    """Returns an experiment's sensor, on until it is turned off, and its job."""
    experiment, (node,) = graph.experiment, graph.find(Kind.specs)
    loaded = f"{fingerprint(experiment)}-{node.code_version}"

    @dg.op(name="make")
    def make(context: dg.OpExecutionContext) -> None:
        for ref in stale_specs(graph, store):
            config, run_id = node.config(ref), context.run_id
            opened = store.write(
                ref, run_id=run_id, code_version=node.code_version, config=config, inputs={}, kind=node.kind
            )
            with opened as draft:
                write_spec(draft.path, experiment, graph.agent(ref))
            assert draft.committed is not None
            context.log_event(materialisation(store, draft.committed.manifest))

    @dg.job(
        name=SPECS,
        description="Makes the specifications anew that were made from other parameters: seconds, in one run.",
        executor_def=dg.in_process_executor,
        tags={"dagster/priority": JOB_PRIORITY},
    )
    def specs() -> None:
        make()

    @dg.sensor(
        name=SPECS,
        job=specs,
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="After a change of the experiment file: has the specifications follow, so that the UI shows what "
        "is stale. Nothing that was trained is made again by it.",
    )
    def follow(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if context.cursor == loaded:
            return dg.SensorResult(skip_reason="the experiment file is as it was")
        stale = stale_specs(graph, store)
        if not stale:
            return dg.SensorResult(skip_reason="every specification is as the experiment file says", cursor=loaded)
        # The cursor stays until they are made: a run that fails is followed by another.
        waits = _waits_for(context.instance, loaded, experiment.operations.retry_after_s)
        if waits:
            return dg.SensorResult(skip_reason=waits, cursor=context.cursor)
        return dg.SensorResult([dg.RunRequest(tags={LOADED_TAG: loaded})], cursor=context.cursor)

    return Following(follow, specs)


def _waits_for(instance: dg.DagsterInstance, loaded: str, retry_after_s: float) -> str:
    """Says why no run is asked for now, though something is stale; empty if one is."""
    earlier = instance.get_run_records(dg.RunsFilter(tags={LOADED_TAG: loaded}))  # the latest first
    if not earlier or earlier[0].dagster_run.is_success:
        return ""
    last = earlier[0].dagster_run
    if not last.is_finished:
        return f"run {last.run_id} is making them"
    if last.status is dg.DagsterRunStatus.CANCELED:
        return f"run {last.run_id} was cancelled; launch the job {SPECS} by hand to go on"
    failed = sum(1 for _ in takewhile(lambda record: record.dagster_run.is_failure, earlier))
    ended = earlier[0].end_time or earlier[0].update_timestamp.timestamp()
    left = ended + min(retry_after_s * 2 ** (failed - 1), LONGEST_WAIT_S) - time.time()
    return f"run {last.run_id} failed; another one follows in {left:.0f} s" if left > 0 else ""
