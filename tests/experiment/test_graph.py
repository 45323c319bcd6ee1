from __future__ import annotations

import dagster as dg
import pytest

from dagster_project.artifacts import Ref
from dagster_project.definitions import build_definitions
from dagster_project.experiment.assets import AssetFactory, dagster_partition_key
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.spec import Experiment, load_experiment
from tests.conftest import SMALL

JUDGES = ("strict", "lenient")
METRICS = ("safe", "help", "help_safe")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return build_graph(load_experiment("miniature"))


def test_the_graph_is_the_one_in_the_design(graph: Graph) -> None:
    assert list(graph.nodes) == [
        "source_models",
        "source_trajectories",
        *(f"source_evaluations/{judge}/{metric}" for judge in JUDGES for metric in METRICS),
        "preference_pairs/strict",
        "agent_specs",
        "stage_1/adapters",
        "stage_1/merged_models",
        "stage_2/adapters",
        "stage_2/merged_models",
        "agent_trajectories",
        *(f"agent_evaluations/{judge}/{metric}" for judge in JUDGES for metric in METRICS),
        "warehouse",
        "scores",
        "frontier",
        "persistence",
        "judge_agreement",
        "audits",
        "transcripts",
        "claims",
        "tables",
        "report",
        "figures",
    ]  # fmt: skip


def test_every_partition_reads_partitions_that_exist_and_come_before(graph: Graph) -> None:
    seen: set[Ref] = set()
    for node in graph.nodes.values():
        refs = node.refs()
        for ref in refs:
            assert set(node.inputs(ref)) <= seen
        seen |= set(refs)


def test_a_second_stage_stands_on_the_first_of_the_same_seed(graph: Graph) -> None:
    ref = Ref.of("stage_2/adapters", agent="eager:safe_then_help:strict:0.1", seed="1")
    inputs = graph.nodes["stage_2/adapters"].inputs(ref)
    assert Ref.of("stage_1/merged_models", agent="eager:safe:strict:0.1", seed="1") in inputs
    assert Ref.of("preference_pairs/strict", metric="help", seed="1") in inputs


@pytest.mark.parametrize("name", ["miniature", "beyond"])
def test_dagster_knows_exactly_our_dependencies(name: str) -> None:
    """Where Dagster's mapping is wider (a model's partitions onto agents'), it holds at least ours."""
    graph = build_graph(load_experiment(name))
    definitions = build_definitions(graph.experiment)
    asset_graph = definitions.resolve_asset_graph()
    for node in graph.nodes.values():
        key = AssetFactory.key_of(graph.experiment, node.name)
        for ref in node.refs():
            ours: dict[str, set[str | None]] = {}
            for source in node.inputs(ref):
                ours.setdefault(source.asset, set()).add(dagster_partition_key(source))
            assert {AssetFactory.key_of(graph.experiment, name) for name in ours} <= asset_graph.get(key).parent_keys
            for name, keys in ours.items():
                upstream = graph.nodes[name]
                if not upstream.dimensions or not node.dimensions:
                    continue
                mapping = asset_graph.get_partition_mapping(key, AssetFactory.key_of(graph.experiment, name))
                definition = asset_graph.get(key).partitions_def
                source_definition = asset_graph.get(AssetFactory.key_of(graph.experiment, name)).partitions_def
                assert definition is not None and source_definition is not None
                subset = definition.subset_with_partition_keys([str(dagster_partition_key(ref))])
                with dg.DagsterInstance.ephemeral():
                    theirs = set(
                        mapping.get_upstream_mapped_partitions_result_for_partitions(
                            subset, definition, source_definition
                        ).partitions_subset.get_partition_keys()
                    )
                assert keys <= theirs
                if set(upstream.dimensions) != {"model"}:
                    assert keys == theirs


def test_changing_one_recipe_changes_only_that_agents_specification() -> None:
    before = build_graph(Experiment.model_validate(SMALL)).nodes["agent_specs"]
    changed = {**SMALL, "overrides": [{"recipe": "help", "training": {"learning_rate": 1e-5}}]}
    after = build_graph(Experiment.model_validate(changed)).nodes["agent_specs"]
    different = {ref.key("agent") for ref in before.refs() if before.config(ref) != after.config(ref)}
    assert different == {"eager:help:strict:0.1"}


def test_definitions_load_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from dagster_project import definitions; definitions.miniature; "
        "print([name for name in ('torch', 'transformers', 'trl', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["miniature", "single-gpu"])
def test_what_one_run_makes_has_one_set_of_partitions(name: str) -> None:
    """Dagster runs nothing together that is partitioned in two ways."""
    by_run: dict[str, set[str]] = {}
    for node in build_graph(load_experiment(name)).nodes.values():
        by_run.setdefault(node.run, set()).add(str(sorted(node.dimensions.items())))
    assert {run for run, partitions in by_run.items() if len(partitions) > 1} == set()
