"""`frontier run`'s runner: worker processes, each making runs one after another, in the order of their needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from dagster_project.artifacts.processes import process_context, share_cores
from dagster_project.collect.endpoints import asks
from dagster_project.experiment.graph import STAGE
from dagster_project.experiment.pools import GPU, pool_of
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.state import Plan, RunUnit
from dagster_project.operations.worker import Finished, Progressed, Started, work
from toolemu.errors import FrontierError

PRELOAD = (
    "dagster_project.definitions",
    "dagster_project.operations.instance",
    "alembic",  # Dagster's databases
    *(f"dagster_project.results.{name}" for name in ("warehouse", "audits", "agreement", "comparisons")),
)
"""What every worker imports sooner or later."""


@dataclass
class Worker:
    """One worker process, what it is at, and since when.

    `first` is the first that it told of its current asset, and when: what it has done since then gives its speed.
    `asks` says whether its unit asks models behind endpoints, and `askers` tells it how many workers do.
    """

    process: BaseProcess
    connection: Connection
    experiment: Experiment | None = None
    ready: bool = False
    unit: RunUnit | None = None
    since: float = 0.0
    progress: Progressed | None = None
    first: tuple[float, Progressed] | None = None
    asks: bool = False
    askers: c_int | None = None

    def speed(self) -> float | None:
        """Returns what it does of its current asset in a second; None while that is not known."""
        if self.progress is None or self.first is None:
            return None
        began, first = self.first
        done, seconds = self.progress.done - first.done, time.monotonic() - began
        return done / seconds if done > 0 and seconds > 0 else None


@dataclass
class Outcome:
    """How the runs ended: those done, with their seconds; the failures; those that could not start because of one.

    `lost` are the failures of which the process died, and when they had begun (`time.monotonic`).
    """

    done: dict[RunUnit, float] = field(default_factory=dict)
    failed: dict[RunUnit, str] = field(default_factory=dict)
    skipped: list[RunUnit] = field(default_factory=list)
    lost: dict[RunUnit, float] = field(default_factory=dict)


Watcher = Callable[[Outcome, list[Worker]], None]


def run_plan(
    workers: list[Worker], experiment: Experiment, plan: Plan, watch: Watcher, gpus: int | None = None
) -> Outcome:
    """Makes the runs of a plan; a failed run fails what needs it, and nothing else.

    Args:
        workers: Who makes them, from `open_workers`.
        experiment: The experiment, as it stands now.
        plan: What to run.
        watch: Called whenever something happened, and about five times a second.
        gpus: Most runs at once that need a GPU; None: any number. A worker that waited for one would use a whole core.
    """

    def startable(unit: RunUnit) -> bool:
        if not plan.needs[unit] <= outcome.done.keys():
            return False
        held = sum(worker.unit is not None and _on_gpu(experiment, worker.unit) for worker in workers)
        return gpus is None or held < gpus or not _on_gpu(experiment, unit)

    def next_unit() -> RunUnit | None:
        """Returns what is to begin: in the plan's order, but of trainings and merges the furthest along.

        So what a stage is trained from need not stay for longer than that (`trainer.keep_merged`). Agents are not
        tested in between: a card would load servers' weights and training's in turns.
        """
        ready = list(filter(startable, waiting))
        stages = [unit for unit in ready if unit.refs[0].asset.startswith(STAGE)]
        if not ready or ready[0] not in stages:
            return next(iter(ready), None)
        return max(stages, key=lambda unit: kinds.index(unit.kind))

    outcome = Outcome()
    waiting = list(plan.units)
    kinds = list(dict.fromkeys(unit.kind for unit in plan.units))
    while waiting or any(worker.unit for worker in workers):
        waiting = _drop_hopeless(waiting, plan, outcome)
        for worker in workers:
            unit = next_unit() if worker.ready and worker.unit is None else None
            if unit:
                waiting.remove(unit)
                worker.unit, worker.since, worker.progress = unit, time.monotonic(), None
                if worker.experiment != experiment:
                    worker.connection.send(experiment)
                    worker.experiment = experiment
                worker.asks = any(asks(experiment, ref) for ref in unit.refs)
                _share(workers)
                worker.connection.send(unit)
        for connection in wait([worker.connection for worker in workers], timeout=0.2):
            worker = next(worker for worker in workers if worker.connection is connection)
            _receive(worker, workers, outcome)
        _share(workers)
        if waiting and not workers:
            raise FrontierError("Every worker process died; what they printed above says why. Running again resumes.")
        watch(outcome, workers)
    return outcome


def _share(workers: list[Worker]) -> None:
    """Tells every worker among how many the endpoints are shared."""
    count = sum(worker.unit is not None and worker.asks for worker in workers)
    for worker in workers:
        if worker.askers is not None:
            worker.askers.value = max(1, count)


def _on_gpu(experiment: Experiment, unit: RunUnit) -> bool:
    return any(pool_of(experiment, ref.asset) == GPU for ref in unit.refs)


def _drop_hopeless(waiting: list[RunUnit], plan: Plan, outcome: Outcome) -> list[RunUnit]:
    lost = set(outcome.failed) | set(outcome.skipped)
    for unit in waiting:
        if plan.needs[unit] & lost:
            outcome.skipped.append(unit)
            lost.add(unit)
    return [unit for unit in waiting if unit not in lost]


def _receive(worker: Worker, workers: list[Worker], outcome: Outcome) -> None:
    try:
        message = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        reason = f"its worker process died (exit code {worker.process.exitcode}; -9 is often: out of memory)"
        if worker.unit:
            outcome.failed[worker.unit] = reason
            outcome.lost[worker.unit] = worker.since
        workers.remove(worker)
        return
    match message:
        case Started():
            worker.ready = True
        case Progressed():
            if worker.progress is None or worker.progress.label != message.label:
                worker.first = time.monotonic(), message
            worker.progress = message
        case Finished(error=error) if worker.unit is not None:
            if error:
                outcome.failed[worker.unit] = error
            else:
                outcome.done[worker.unit] = time.monotonic() - worker.since
            worker.unit = worker.progress = worker.first = None


def prepare_workers(experiment: Experiment, units: int) -> int:
    """Begins to import what workers need, in a process beside this one; returns how many workers so many runs get.

    They have one compute thread each where they share the cores or models are tiny.
    """
    count = min(experiment.limits.processes or os.cpu_count() or 1, units)
    if count > 1 or experiment.toy:
        share_cores()
    # Workers that are ended at once leave semaphores to Python's tracker, which removes them and says so aloud.
    silent = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), silent)))
    process_context(PRELOAD)
    forkserver.ensure_running()
    return count


@contextmanager
def open_workers(count: int) -> Iterator[list[Worker]]:
    """Starts so many worker processes, and ends them, idle or not."""
    context = process_context(PRELOAD)
    askers = context.Value("i", 1, lock=False)  # a worker that is killed would keep its lock
    workers = []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, askers), name=f"frontier-{number}")
            process.start()
            theirs.close()
            workers.append(Worker(process, ours, askers=askers))
        yield workers
    finally:
        for worker in workers:  # taking down its modules takes a second
            worker.connection.close()
            worker.process.kill()
        for worker in workers:
            worker.process.join()
