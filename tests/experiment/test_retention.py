from __future__ import annotations

from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.retention import release
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.state import State, make_plan, states
from tests.conftest import SMALL

KEYS = {"agent": "eager:safe:strict:0.1", "seed": "0"}
MERGED = Ref.of("stage_1/merged_models", **KEYS)
TESTED = Ref.of("agent_trajectories", **KEYS)
LATER = {"agent": "eager:safe_then_help:strict:0.1", "seed": "0"}
READERS = [TESTED, Ref.of("stage_2/adapters", **LATER), Ref.of("stage_2/merged_models", **LATER)]


def graph_of(**trainer: str) -> Graph:
    return build_graph(Experiment.model_validate({**SMALL, "trainer": trainer}))


def make(store: ArtifactStore, graph: Graph, ref: Ref, text: str = "x", code_version: str = "") -> None:
    """Writes an artifact as the graph's asset would, from what is there of its inputs."""
    node = graph.nodes[ref.asset]
    inputs = {source: artifact.entry for source, artifact in store.get_all(node.sources(ref), partial=True).items()}
    version = code_version or node.code_version
    with store.write(ref, run_id="run", code_version=version, config=node.config(ref), inputs=inputs) as draft:
        (draft.path / "model.safetensors").write_text(text)
        (draft.path / "config.json").write_text("{}")


def weights(store: ArtifactStore) -> bool:
    manifest = store.manifest(MERGED)
    assert manifest is not None
    there = (store.directory(MERGED) / "run" / "model.safetensors").exists()
    assert there is not bool(manifest.removed)
    return there


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """Everything there that has to do with the merged model, as the experiment makes it."""
    store, graph = ArtifactStore(tmp_path, "small"), graph_of()
    for node in graph.nodes.values():
        for ref in node.refs():
            if dict(ref.partition).get("seed", "0") == "0" and not node.partial:
                make(store, graph, ref)
    return store


def test_weights_that_everything_was_made_from_go_if_the_experiment_says_so(store: ArtifactStore) -> None:
    assert release(graph_of(), store, [MERGED, *READERS]) == 0
    assert weights(store)
    freed = release(graph_of(keep_merged="needed"), store, [MERGED])
    assert freed == 1
    assert not weights(store)
    assert release(graph_of(keep_merged="needed"), store, [MERGED]) == 0


@pytest.mark.parametrize("reader", READERS, ids=lambda ref: ref.asset)
def test_weights_stay_while_one_reader_is_missing_or_of_other_code(store: ArtifactStore, reader: Ref) -> None:
    graph = graph_of(keep_merged="needed")
    make(store, graph, reader, code_version="old")
    assert release(graph, store, [MERGED]) == 0
    (store.directory(reader) / "manifest.json").unlink()
    assert release(graph, store, [MERGED]) == 0
    assert weights(store)


def test_weights_stay_while_a_reader_was_made_from_others(store: ArtifactStore) -> None:
    graph = graph_of(keep_merged="needed")
    make(store, graph, MERGED, "other")
    assert release(graph, store, [MERGED]) == 0


def test_weights_are_made_again_only_where_something_needs_them(store: ArtifactStore) -> None:
    graph = graph_of(keep_merged="needed")
    second = READERS[2]
    assert release(graph, store, [MERGED, second])
    current = states(graph, store)
    assert current[MERGED] == (State.done, "", True)
    untouched = make_plan(graph, current, seeds=[0], select=["stage_1", "stage_2", "agent_trajectories"])
    assert untouched.units == []
    (store.directory(Ref.of("agent_trajectories", **LATER)) / "manifest.json").unlink()
    plan = make_plan(graph, states(graph, store), seeds=[0], select=["agent_trajectories"])
    assert [ref for unit in plan.units for ref in unit.refs] == [MERGED, second, Ref.of("agent_trajectories", **LATER)]
