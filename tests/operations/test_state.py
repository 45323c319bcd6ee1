from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.failures import note_lost
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.overview import describe, plan_table
from dagster_project.operations.state import State, expected_costs, failed_refs, make_plan, states
from tests.conftest import SMALL
from toolemu.errors import FrontierError


def graph_of(**changes: Any) -> Graph:
    return build_graph(Experiment.model_validate({**SMALL, **changes}))


def make_everything(graph: Graph, store: ArtifactStore) -> None:
    """Writes stand-ins for every artifact; a specification's content is its configuration, as the real one's is."""
    for node in graph.nodes.values():
        for ref in node.refs():
            make(graph, store, ref)


def make(graph: Graph, store: ArtifactStore, ref: Ref, content: str | None = None) -> None:
    node = graph.nodes[ref.asset]
    config: Mapping[str, Any] = node.config(ref)
    entries = {source: store.get(source).entry for source in node.sources(ref)}
    with store.write(ref, run_id="r", code_version=node.code_version, config=config, inputs=entries) as draft:
        (draft.path / "content").write_text(content or f"{ref} {config if ref.asset == 'agent_specs' else ''}")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path, "small")


def not_done(graph: Graph, store: ArtifactStore) -> dict[Ref, State]:
    return {ref: found.state for ref, found in states(graph, store).items() if found.state is not State.done}


def test_nothing_is_made_of_an_empty_store_and_everything_is_planned_in_order(store: ArtifactStore) -> None:
    graph = graph_of()
    current = states(graph, store)
    assert {found.state for found in current.values()} == {State.missing}
    plan = make_plan(graph, current)
    assert {ref for unit in plan.units for ref in unit.refs} == set(current)
    for position, unit in enumerate(plan.units):
        assert plan.needs[unit] <= set(plan.units[:position])


def test_a_finished_experiment_has_nothing_to_do(store: ArtifactStore) -> None:
    graph = graph_of()
    make_everything(graph, store)
    assert not_done(graph, store) == {}
    assert make_plan(graph, states(graph, store)).units == []


def test_a_changed_recipe_makes_its_agents_stale_and_nothing_else(store: ArtifactStore) -> None:
    make_everything(graph_of(), store)
    changed = graph_of(overrides=[{"recipe": "safe_then_help", "training": {"learning_rate": 1e-5}}])
    found = not_done(changed, store)
    agents = {dict(ref.partition).get("agent") for ref in found if ref.partition}
    assert agents == {"eager:safe_then_help:strict:0.1"}
    assert {ref.asset for ref, state in found.items() if state is State.stale} == {"agent_specs"}
    assert {ref.asset for ref, state in found.items() if state is State.behind} >= {
        "stage_2/adapters",
        "agent_trajectories",
        "agent_evaluations/strict/safe",
        "warehouse",
        "figures",
    }
    assert not any(ref.asset.startswith(("source", "stage_1", "preference")) for ref in found)


def test_stale_and_expensive_is_left_alone_until_asked_for(store: ArtifactStore) -> None:
    make_everything(graph_of(), store)
    changed = graph_of(overrides=[{"recipe": "help", "training": {"max_steps": 5}}])
    make(changed, store, Ref.of("agent_specs", agent="eager:help:strict:0.1", seed="0"))
    make(changed, store, Ref.of("agent_specs", agent="eager:help:strict:0.1", seed="1"))
    current = states(changed, store)
    plan = make_plan(changed, current)
    assert {graph_ref.asset for graph_ref in plan.left} >= {"stage_1/adapters", "agent_trajectories"}
    assert not any("stage" in ref.asset or "agent" in ref.asset for unit in plan.units for ref in unit.refs)
    update = make_plan(changed, current, update=True)
    redone = {ref.asset for unit in update.units for ref in unit.refs}
    assert {"stage_1/adapters", "stage_1/merged_models", "agent_trajectories", "warehouse", "figures"} <= redone
    assert update.left == []


def test_cheap_results_of_what_is_left_alone_are_not_counted_as_expensive(store: ArtifactStore) -> None:
    make_everything(graph_of(), store)
    changed = graph_of(source={"samples": 7, "temperature": 1.0})
    current = states(changed, store)
    assert current[Ref("warehouse")].state is State.behind
    plan = make_plan(changed, current)
    assert plan.units == []
    assert plan.left and all(changed.nodes[ref.asset].expensive for ref in plan.left)


def test_an_input_with_the_same_content_makes_nothing_stale(store: ArtifactStore) -> None:
    graph = graph_of()
    make_everything(graph, store)
    make(graph, store, Ref.of("source_trajectories", model="eager"))
    assert not_done(graph, store) == {}
    make(graph, store, Ref.of("source_trajectories", model="eager"), content="other")
    found = not_done(graph, store)
    assert found[Ref.of("source_evaluations/strict/safe", model="eager")] is State.stale
    assert Ref.of("source_evaluations/strict/safe", model="cautious") not in found


def test_a_new_seed_adds_partitions_and_leaves_the_others(store: ArtifactStore) -> None:
    make_everything(graph_of(), store)
    grown = graph_of(grid={**SMALL["grid"], "seeds": [0, 1, 2]})  # type: ignore[dict-item]
    plan = make_plan(grown, states(grown, store))
    seeds = {dict(ref.partition).get("seed", "none") for unit in plan.units for ref in unit.refs}
    assert seeds == {"2", "none"}
    assert {ref.asset for unit in plan.units for ref in unit.refs if not ref.partition} >= {"warehouse", "figures"}


def test_a_selection_brings_what_it_needs_and_nothing_else(store: ArtifactStore) -> None:
    graph = graph_of()
    plan = make_plan(graph, states(graph, store), select=["preference_pairs"], seeds=[1])
    refs = {ref for unit in plan.units for ref in unit.refs}
    assert {ref.asset for ref in refs} == {
        "source_models", "source_trajectories", "source_evaluations/strict/safe", "source_evaluations/strict/help",
        "preference_pairs/strict",
    }  # fmt: skip
    assert {ref.key("seed") for ref in refs if ref.asset.startswith("pref")} == {"1"}


def test_a_selection_renews_what_it_reads_that_is_stale_and_cheap(store: ArtifactStore) -> None:
    make_everything(graph_of(), store)
    changed = graph_of(statistics={"n_bootstrap": 300})
    current = states(changed, store)
    assert current[Ref("frontier")].state is State.stale
    assert current[Ref("tables")].state is State.behind
    plan = make_plan(changed, current, select=["tables"])
    planned = {ref.asset for unit in plan.units for ref in unit.refs}
    assert {"frontier", "persistence", "tables"} <= planned
    assert not planned & {"warehouse", "figures"}
    assert plan.left == []


def test_what_is_not_there_cannot_be_selected(store: ArtifactStore) -> None:
    graph = graph_of()
    current = states(graph, store)
    with pytest.raises(FrontierError, match="no such asset"):
        make_plan(graph, current, select=["nothing"])
    with pytest.raises(FrontierError, match="has the seeds 0, 1"):
        make_plan(graph, current, seeds=[7])


def test_a_plan_says_what_redoing_would_cost(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_project.artifacts.store.gpu_name", lambda: "NVIDIA H100")
    graph = graph_of(operations={"gpu": True})
    make_everything(graph, store)
    changed = graph_of(operations={"gpu": True}, overrides=[{"recipe": "help", "training": {"max_steps": 5}}])
    for seed in ("0", "1"):
        make(changed, store, Ref.of("agent_specs", agent="eager:help:strict:0.1", seed=seed))
    past = expected_costs(store, changed)
    assert past["stage_1/adapters"].gpu_hours == pytest.approx(past["stage_1/adapters"].seconds / 3600)
    assert past["agent_evaluations/strict/safe"].gpu_hours == 0, "judges by rules need none"
    table = plan_table(make_plan(changed, states(changed, store)), changed, store)
    assert "to redo what is stale (--update): 0.0 hours of work, 0.0 GPU-hours, 0 tokens" in str(table.caption)
    nothing = ArtifactStore(store.root, "nothing")
    assert "never made before" in str(plan_table(make_plan(graph, states(graph, nothing)), graph, nothing).caption)


def test_mixtures_are_not_called_trained(store: ArtifactStore) -> None:
    mixed = {"recipes": ["safe", "help"], "interpolate": [{"between": ["safe", "help"], "weights": [0.5, 0.25]}]}
    graph = graph_of(grid={**SMALL["grid"], **mixed})  # type: ignore[dict-item]
    lines = [line.strip() for line in describe(graph.experiment, graph, store)]
    assert "4 trained agents: safe, help" in lines
    assert "4 mixtures of them: 0.5_safe_and_0.5_help, 0.25_safe_and_0.75_help" in lines


def test_looking_needs_no_dagster() -> None:
    look = "import sys, dagster_project.operations.overview, dagster_project.operations.forecast"
    subprocess.run([sys.executable, "-c", f"{look}; sys.exit('dagster' in sys.modules)"], check=True)


def test_a_failed_partition_is_told_until_it_is_made(store: ArtifactStore) -> None:
    graph, ref = graph_of(), Ref.of("source_models", model="eager")
    note_lost(store, [ref], "r", "killed", datetime.now(UTC))
    assert failed_refs(store, states(graph, store)) == {ref}
    make(graph, store, ref)
    assert failed_refs(store, states(graph, store)) == set()
