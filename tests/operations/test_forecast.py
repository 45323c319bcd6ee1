"""What a plan will take of cards and disk: the arithmetic by hand, and what is not known."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.spec import Experiment, load_experiment
from dagster_project.operations.forecast import LOADING_S, Forecast, forecast, total_hours
from dagster_project.operations.overview import forecast_table
from dagster_project.operations.state import make_plan, states
from tests.conftest import SMALL
from tests.operations.test_state import make
from toolemu.errors import FrontierError

SIZES = {"lab/agent": 7.0, "lab/judge": 8.0}
PAIRS = 6 * 0.5 * 3  # of six training cases with three samples each, half of all pairs


def graph_of(**changes: Any) -> Graph:
    served = {"kind": "openai", "endpoint": "eight"}
    value = {
        "name": "big",
        "world": {"kind": "emulated", "cases": 12, "emulator": served},
        "endpoints": {"eight": {"serve": {"source": "lab/judge"}}},
        "models": {"agent": {"kind": "weights", "source": "lab/agent"}},
        "judges": {"judge": served},
        "source": {"samples": 3, "temperature": 1.0},
        "grid": {"models": ["agent"], "recipes": ["safe", "safe_then_help"], "pairs_judges": ["judge"], "seeds": [0]},
        "planning": {"billions": SIZES, "pairs": 0.5, "card": "A100", "mfu": 0.5, "generated_per_second": 1000},
    }
    return build_graph(Experiment.model_validate({**value, **changes}))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path, "big")


def forecast_of(graph: Graph, store: ArtifactStore) -> Forecast:
    found = forecast(graph.experiment, states(graph, store), [store])
    assert found is not None
    return found


def test_trainings_take_six_operations_a_weight_and_token(store: ArtifactStore) -> None:
    graph = graph_of()
    works = {work.asset: work for work in forecast_of(graph, store).works}
    first, second = works["stage_1/adapters"], works["stage_2/adapters"]
    assert (first.partitions, second.partitions, first.measured) == (1, 1, False)
    (told,) = [line for line in forecast_of(graph, store).assumptions if "tokens a pair" in line]
    tokens = int(told.partition("included; ")[2].partition(" tokens a pair")[0].replace(",", ""))
    by_hand = 6 * 7e9 * PAIRS * tokens / (0.5 * 312e12) + LOADING_S
    assert first.gpu_hours == second.gpu_hours == pytest.approx(by_hand / 3600, rel=1e-3)
    always = graph_of(trainer={"gradient_checkpointing": "always"})
    (again,) = [work for work in forecast_of(always, store).works if work.asset == "stage_1/adapters"]
    assert again.gpu_hours == pytest.approx(((by_hand - LOADING_S) * 8 / 6 + LOADING_S) / 3600, rel=1e-3)


def test_disk_is_adapters_merged_models_and_records(store: ArtifactStore) -> None:
    found = forecast_of(graph_of(), store)
    works = {work.asset: work for work in found.works}
    assert works["stage_1/merged_models"].disk == 2 * 7e9
    assert works["stage_1/merged_models"].gpu_hours == 0
    adapter = works["stage_1/adapters"].disk
    assert adapter is not None and 40e6 * 4 * 0.9 < adapter < 40.4e6 * 4 * 1.1  # Qwen2.5-7B at rank 16: 40.4 million
    records = works["source_trajectories"].disk
    assert records is not None and 12 * 3 * 20_000 < records < 12 * 3 * 30_000
    assert found.fetched == 2 * (7e9 + 8e9)


def test_what_is_not_said_is_asked_for_and_the_rest_is_told(store: ArtifactStore) -> None:
    graph = graph_of(planning={"billions": {"lab/judge": 8.0}})
    found = forecast_of(graph, store)
    assert found.unsized == ["lab/agent"]
    hours = {work.asset: work.gpu_hours for work in found.works}
    assert hours["stage_1/adapters"] is None and hours["source_trajectories"] is None
    assert hours["source_evaluations"]
    told = StringIO()
    table = forecast_table(make_plan(graph, states(graph, store)), graph, store)
    Console(file=told, width=100).print(table)
    assert "at least" in told.getvalue() and "planning.billions: lab/agent" in told.getvalue()
    assert "?" in told.getvalue() and "free on this disk" in told.getvalue()


def test_what_was_made_before_is_measured(store: ArtifactStore) -> None:
    graph = graph_of()
    for ref in graph.nodes["source_models"].refs() + graph.nodes["source_trajectories"].refs():
        make(graph, store, ref, content="x" * 1234)
    (work,) = [work for work in forecast_of(graph, store).works if work.asset == "source_trajectories"]
    assert (work.measured, work.disk) == (True, 1234)


def test_an_unknown_card_is_an_error(store: ArtifactStore) -> None:
    with pytest.raises(FrontierError, match=r"planning\.card: 'H9000' is none of B200, H200"):
        forecast_of(graph_of(planning={"card": "H9000"}), store)


def test_nothing_is_said_where_no_card_is_needed(store: ArtifactStore) -> None:
    assert forecast(Experiment.model_validate(SMALL), [Ref.of("source_models", model="eager")], [store]) is None


def test_the_shipped_experiment_says_all_that_is_needed(tmp_path: Path) -> None:
    graph = build_graph(load_experiment("single-gpu"))
    found = forecast_of(graph, ArtifactStore(tmp_path, "single-gpu"))
    assert not found.unsized
    assert 1 < total_hours(found.works) < 100
