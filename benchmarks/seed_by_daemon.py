"""A seed of the shipped miniature by Dagster's daemon alone, from an empty folder, with a `kill -9` of everything.

``python -m benchmarks.seed_by_daemon [DATA]``; DATA is a data folder with a run of the miniature by `frontier run`, to
compare with.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import mean

import dagster as dg
import yaml

from benchmarks.daemon import (
    gpu_steps,
    held,
    looks,
    make_place,
    make_through_an_outage,
    most_at_once,
    overlaps,
    ticks,
    too_early,
    unlike,
)
from dagster_project.artifacts import ArtifactStore
from dagster_project.experiment.spec import experiment_path
from dagster_project.operations.schedules import SEEDS
from dagster_project.operations.state import State, states

SEED = 0
TIMEOUT_S = 3600.0
PHASES = {
    "queued": (dg.DagsterEventType.RUN_ENQUEUED, dg.DagsterEventType.RUN_DEQUEUED),
    "its process starts": (dg.DagsterEventType.RUN_DEQUEUED, dg.DagsterEventType.RUN_START),
    "its first step starts": (dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_START),
    "works": (dg.DagsterEventType.STEP_START, dg.DagsterEventType.RUN_SUCCESS),
}
"""What a run does between which events of its."""


def miniature() -> dict[str, object]:
    """Returns the shipped miniature with one seed, a GPU to take turns on, and a look at the seeds every minute."""
    shipped = yaml.safe_load(experiment_path("miniature").read_text(encoding="utf-8"))
    grid = {**shipped["grid"], "seeds": [SEED]}
    return {**shipped, "grid": grid, "operations": {"gpu": True, "cron": "* * * * *"}}


def phases(instance: dg.DagsterInstance) -> dict[str, float]:
    """Returns the mean seconds that a run spent in each of its phases."""
    spent: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
        first: dict[str, float] = {}
        for entry in instance.all_logs(run.run_id):
            if entry.dagster_event is not None:
                first.setdefault(entry.dagster_event.event_type_value, entry.timestamp)
        for phase, (begin, end) in PHASES.items():
            if begin.value in first and end.value in first:
                spent[phase].append(first[end.value] - first[begin.value])
    return {phase: mean(seconds) for phase, seconds in spent.items() if seconds}


def main() -> None:
    """Prints what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        place, graph = make_place(
            Path(folder) / "seed", miniature(), max_concurrent_runs=4, poll_interval_seconds=2,
            free_slots_after_run_end_seconds=2,
        )  # fmt: skip
        started = time.monotonic()
        store = ArtifactStore(Path(folder) / "seed" / "data", "miniature")
        with dg.DagsterInstance.from_config(place.environment["DAGSTER_HOME"]) as instance:
            outage = make_through_an_outage(place, instance, TIMEOUT_S)
            (backfill,) = instance.get_backfills()
            assert backfill.backfill_end_timestamp is not None
            took = backfill.backfill_end_timestamp - backfill.backfill_timestamp
            found = Counter(state.state for state in states(graph, store).values())
            runs = Counter(record.dagster_run.status.value for record in instance.get_run_records())
            spans = held(instance, backfill.backfill_id, gpu_steps(graph))
            print(f"killed after {outage.after_s:.0f} s, with a training under way")
            print(f"{backfill.backfill_id}: {backfill.status.value} after {took:.0f} s; {found[State.done]} of")
            print(
                f"{found.total()} partitions, in {runs.total()} runs ({dict(runs)}), at most {most_at_once(instance)}"
            )
            print(f"at once; {time.monotonic() - started:.0f} s in all")
            print("a run, on average: " + ", ".join(f"{name} {s:.1f} s" for name, s in phases(instance).items()))
            print(f"{len(spans)} steps had the GPU, {overlaps(spans)} of them beside another (asked: 0)")
            print(f"made twice with different content: {unlike(instance, graph) or 'none'} (asked: none)")
            print(f"made before what they read: {too_early(instance, graph) or 'none'} (asked: none)")
            print(f"ticks of the schedule: {dict(ticks(instance, SEEDS))}; looks: {looks(instance)[::-1]}")
        if len(sys.argv) > 1:
            compare(store, ArtifactStore(Path(sys.argv[1]), "miniature"))


def compare(ours: ArtifactStore, theirs: ArtifactStore) -> None:
    """Prints how many partitions of ours another store has with the same content."""
    made = {manifest.ref: manifest.sha256 for manifest in ours.manifests() if manifest.partition}
    other = {manifest.ref: manifest.sha256 for manifest in theirs.manifests()}
    equal = sum(other.get(ref) == content for ref, content in made.items())
    print(
        f"{equal} of {len(made)} partitions equal those of `frontier run`, {len(made.keys() - other.keys())} not there"
    )


if __name__ == "__main__":
    main()
