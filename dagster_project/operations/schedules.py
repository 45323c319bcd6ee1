"""The schedule that goes through the seeds, and the job that it starts, which a person may start, too."""

# No `from __future__ import annotations` here: Dagster looks at the types of `context` and `config` itself.

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.pods import TAG, asking_config
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.preflight import preflight
from dagster_project.operations.seeds import active_backfill, launch_seed
from toolemu.errors import FrontierError

SEEDS = "seeds"
JOB_PRIORITY = "100"
"""Looking at the seeds takes seconds, and should not wait behind what it launched."""


class SeedConfig(dg.Config):
    """Which seed the job makes.

    Attributes:
        seed: This one, whatever came of the last time; None: the next that lacks anything.
        definitions: What the code location had loaded when the schedule ticked; empty: launched by hand.
    """

    seed: int | None = None
    definitions: str = ""


class Scheduled(NamedTuple):
    """The schedule over an experiment's seeds and its job."""

    schedule: dg.ScheduleDefinition
    job: dg.JobDefinition


def build(graph: Graph, store: ArtifactStore) -> Scheduled:
    """Returns an experiment's schedule, off until it is turned on, and its job."""
    experiment = graph.experiment
    loaded = fingerprint(experiment)
    pod = asking_config(experiment.kubernetes, graph.nodes.values())

    @dg.op(name="launch", pool=f"seeds/{experiment.name}")
    def launch(context: dg.OpExecutionContext, config: SeedConfig) -> None:
        if config.definitions not in ("", loaded):
            raise FrontierError(
                f"The file of {experiment.name} has changed since its code location was loaded, and Dagster's daemon "
                "knows the old one. Reload the location (Deployment, in the UI) or restart Dagster."
            )

        def check(refs: Sequence[Ref]) -> None:
            store.check()
            for line in preflight(graph, store, refs):
                context.log.info(line)

        seeds = () if config.seed is None else (config.seed,)
        done = launch_seed(context.instance, context.repository_def.asset_graph, graph, store, seeds, check)
        context.log.info(done.reason if done.backfill_id is None else f"{done.backfill_id}: {done.reason}")
        context.add_output_metadata({"backfill": done.backfill_id or "none", "reason": done.reason})

    @dg.job(
        name=SEEDS,
        description="Launches one backfill over the next seed that lacks partitions, if none is under way.",
        executor_def=dg.in_process_executor,
        tags={"dagster/priority": JOB_PRIORITY, **({TAG: pod} if pod else {})},
    )
    def seeds() -> None:
        launch()

    @dg.schedule(
        name=SEEDS,
        job=seeds,
        cron_schedule=experiment.operations.cron,
        execution_timezone=experiment.operations.timezone,
        description="Goes through the seeds of the experiment file, one backfill at a time. Off until turned on.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = active_backfill(context.instance, experiment.name)
        if busy is not None:  # the job would say so, too, after its process has started
            return dg.SkipReason(f"backfill {busy} is under way; one at a time")
        config = SeedConfig(definitions=loaded)
        return dg.RunRequest(run_config=dg.RunConfig(ops={"launch": config}))

    return Scheduled(tick, seeds)


def fingerprint(experiment: Experiment) -> str:
    """Returns a hash of an experiment as it was loaded."""
    return hashlib.sha256(experiment.model_dump_json().encode()).hexdigest()[:16]
