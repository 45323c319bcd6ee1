from __future__ import annotations

from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import Graph
from dagster_project.operations.following import Cursor, Look, decide, results, stale_results
from dagster_project.operations.state import states
from tests.operations.test_state import graph_of, make, make_everything

SETTLE_S, MOST_S = 60.0, 3600.0


def look(newest: int, at: float, *, busy: bool = False) -> Look:
    return Look(newest, at, busy, "file")


def test_a_burst_fires_once_when_it_is_over() -> None:
    cursor, fired = Cursor(loaded="file"), []
    for moment in range(0, 1000, 10):
        newest = min(moment // 30, 10)  # ten events, the last at 300
        decision = decide(cursor, look(newest, newest * 30.0), moment, settle_s=SETTLE_S, at_least_every_s=MOST_S)
        cursor = decision.cursor
        fired += [moment] if decision.now else []
    assert fired == [360]


def test_nothing_fires_while_something_is_under_way_but_now_and_then() -> None:
    cursor, fired = Cursor(loaded="file"), []
    for moment in range(0, 10_000, 100):
        decision = decide(
            cursor, look(moment + 1, moment, busy=True), moment, settle_s=SETTLE_S, at_least_every_s=MOST_S
        )
        cursor = decision.cursor
        fired += [moment] if decision.now else []
    assert fired == [3600, 7300]


def test_what_lands_while_results_are_made_fires_again() -> None:
    cursor = Cursor(loaded="file")
    first = decide(cursor, look(5, 0.0), 100.0, settle_s=SETTLE_S, at_least_every_s=MOST_S)
    assert first.now
    second = decide(first.cursor, look(6, 101.0), 105.0, settle_s=SETTLE_S, at_least_every_s=MOST_S)
    assert not second.now
    third = decide(second.cursor, look(6, 101.0), 200.0, settle_s=SETTLE_S, at_least_every_s=MOST_S)
    assert third.now
    assert not decide(third.cursor, look(6, 101.0), 300.0, settle_s=SETTLE_S, at_least_every_s=MOST_S).now


def test_a_changed_experiment_file_is_a_change() -> None:
    cursor = Cursor(seen=5, loaded="another")
    assert decide(cursor, look(5, 0.0), 100.0, settle_s=SETTLE_S, at_least_every_s=MOST_S).now


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path, "small")


def wanted(graph: Graph, store: ArtifactStore) -> list[str]:
    return stale_results(graph, states(graph, store))


def test_results_follow_with_partitions_missing_and_nothing_expensive_does(store: ArtifactStore) -> None:
    graph = graph_of()
    assert wanted(graph, store) == []
    for name in ("source_models", "source_trajectories", "source_evaluations/strict/safe"):
        make(graph, store, Ref.of(name, model="eager"))
    assert wanted(graph, store) == results(graph)
    assert all(not graph.nodes[name].expensive and not graph.nodes[name].dimensions for name in results(graph))
    assert {"warehouse", "scores", "frontier", "figures", "report"} <= set(results(graph))


def test_only_results_of_older_data_are_made_anew(store: ArtifactStore) -> None:
    graph = graph_of()
    make_everything(graph, store)
    assert wanted(graph, store) == []
    assert wanted(graph_of(statistics={"n_bootstrap": 300}), store)[0] == "scores"
    make(graph, store, Ref.of("agent_evaluations/strict/safe", agent="eager:safe:strict:0.1", seed="0"), "other")
    assert wanted(graph, store)[0] == "warehouse"
