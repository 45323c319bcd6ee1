"""The order in which runs are handed to workers, without running any."""

from __future__ import annotations

import errno
import multiprocessing
import sys
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, cast

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from dagster_project.artifacts import ArtifactStore
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.pools import GPU
from dagster_project.operations.runner import Outcome, Worker, run_plan
from dagster_project.operations.state import RunUnit, make_plan, states
from dagster_project.operations.worker import Finished, explain, say_unless_interrupted
from tests.experiment.test_spec import lm_experiment
from tests.operations.test_state import graph_of


class Answering:
    """The workers' ends of their pipes: every run succeeds, one of them at a time."""

    def __init__(self, count: int) -> None:
        pipes = [Pipe() for _ in range(count)]
        self.workers = [Worker(cast(Any, None), ours, ready=True) for ours, _ in pipes]
        self._ends: list[Connection] = [theirs for _, theirs in pipes]

    def watch(self, outcome: Outcome, workers: list[Worker]) -> None:
        for worker, end in zip(self.workers, self._ends, strict=True):
            if worker.unit and end.poll():
                while end.poll():
                    end.recv()
                end.send(Finished(""))
                return


def test_only_so_many_workers_have_a_gpu(tmp_path: Any) -> None:
    graph = graph_of(operations={"gpu": True})
    answering = Answering(3)
    plan = make_plan(graph, states(graph, ArtifactStore(tmp_path, "small")))
    at_once: list[tuple[int, int]] = []

    def on_gpu(unit: RunUnit | None) -> bool:
        return unit is not None and any(graph.node(ref).pool == GPU for ref in unit.refs)

    def watch(outcome: Outcome, workers: list[Worker]) -> None:
        at_once.append((sum(on_gpu(worker.unit) for worker in workers), sum(bool(worker.unit) for worker in workers)))
        answering.watch(outcome, workers)

    outcome = run_plan(answering.workers, graph, plan, watch, gpus=1)
    assert set(outcome.done) == set(plan.units)
    assert max(gpu for gpu, _ in at_once) == 1
    assert max(busy for _, busy in at_once) > 1


def test_what_was_trained_is_trained_on_before_others_are_begun_and_agents_are_tested_after_all(tmp_path: Any) -> None:
    """So a merged model that only the next stage reads is there for no longer than it must."""
    graph = graph_of(operations={"gpu": True})
    answering = Answering(1)
    plan = make_plan(graph, states(graph, ArtifactStore(tmp_path, "small")))
    order: list[RunUnit] = []

    def watch(outcome: Outcome, workers: list[Worker]) -> None:
        order.extend(worker.unit for worker in workers if worker.unit and worker.unit not in order)
        answering.watch(outcome, workers)

    run_plan(answering.workers, graph, plan, watch, gpus=1)
    trainings = [unit for unit in order if unit.kind.startswith("train")]
    later = [unit for unit in trainings if unit.kind == "train_2"]
    assert len(later) > 1
    for unit in later:
        assert trainings[trainings.index(unit) - 1] in plan.needs[unit]
    assert max(map(order.index, trainings)) < min(order.index(unit) for unit in order if unit.kind == "measure")


def test_workers_know_how_many_of_them_ask_models(tmp_path: Any) -> None:
    graph = build_graph(lm_experiment(tmp_path))
    answering, askers = Answering(5), multiprocessing.Value("i", 1, lock=False)
    for worker in answering.workers:
        worker.askers = askers
    plan = make_plan(graph, states(graph, ArtifactStore(tmp_path, "lm")))
    told: list[tuple[int, int]] = []

    def watch(outcome: Outcome, workers: list[Worker]) -> None:
        collecting = sum(worker.unit is not None and worker.unit.kind == "collect" for worker in workers)
        told.append((max(1, collecting), askers.value))
        answering.watch(outcome, workers)

    run_plan(answering.workers, graph, plan, watch)
    assert all(known == counted for counted, known in told)
    assert {known for _, known in told} == {1, 2}, "two models, and five workers"


def test_a_traceback_is_for_what_nobody_foresaw() -> None:
    full = explain(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert "/data/x" in full and "FRONTIER_DATA" in full and "Traceback" not in full
    try:
        raise ValueError("a fault of ours")
    except ValueError as fault:
        assert "Traceback" in explain(fault)


@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt, False), (DagsterExecutionInterruptedError, False), (ValueError, True)]
)
def test_an_interrupt_where_nothing_can_be_raised_is_not_told(
    error: type[BaseException], said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Thing:
        pass

    def gone(_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "unraisablehook", say_unless_interrupted)
    thing = Thing()
    watcher = weakref.ref(thing, gone)
    del thing
    assert watcher() is None and ("Traceback" in capsys.readouterr().err) == said
