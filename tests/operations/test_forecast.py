"""What a plan will take of cards and disk: the arithmetic by hand, and what is not known."""

from __future__ import annotations

import re
import shutil
from collections import Counter
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
from tests.conftest import SMALL, Lab, make_lab
from tests.operations.test_state import make
from toolemu.errors import FrontierError

SIZES = {"lab/agent": 7.0, "lab/judge": 8.0}
PAIRS = 6 * 0.5 * 3  # of six training cases with three samples each, half of all pairs
CONVERSATIONS = 18


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
    found = forecast(graph, states(graph, store), [store])
    assert found is not None
    return found


def tokens_of(found: Forecast) -> tuple[int, int]:
    """Returns the tokens of a pair, and of a reference pass, that the forecast says it assumed."""
    (told,) = [line for line in found.assumptions if "tokens a pair" in line]
    pair, reference = re.findall(r"([\d,]+) tokens a ", told)
    return int(pair.replace(",", "")), int(reference.replace(",", ""))


def test_trainings_take_four_operations_a_weight_and_token_and_two_for_the_reference(store: ArtifactStore) -> None:
    def hours(operations: int, pair: int, reference: int) -> object:
        flops = 7e9 * (operations * PAIRS * pair + 2 * reference)
        return pytest.approx((flops / (0.5 * 312e12) + LOADING_S) / 3600, rel=1e-3)

    found = forecast_of(graph_of(), store)
    works = {work.asset: work for work in found.works}
    first, second = works["stage_1/adapters"], works["stage_2/adapters"]
    assert (first.partitions, second.partitions, first.measured) == (1, 1, False)
    pair, reference = tokens_of(found)
    assert reference == pytest.approx(CONVERSATIONS * pair / 2, rel=1e-3)
    assert first.gpu_hours == second.gpu_hours == hours(4, pair, reference)
    always = graph_of(trainer={"gradient_checkpointing": "always"})
    (again,) = [work for work in forecast_of(always, store).works if work.asset == "stage_1/adapters"]
    assert again.gpu_hours == hours(6, pair, reference)
    sharded = {"mode": "accelerate", "sharding": "fsdp"}
    assert tokens_of(forecast_of(graph_of(trainer=sharded), store))[1] == pytest.approx(PAIRS * pair, rel=1e-3)


def test_shared_text_is_computed_once(store: ArtifactStore) -> None:
    shared = {"shared_text": True, "micro_batch_size": 8}
    exact = forecast_of(graph_of(trainer=shared), store)
    by_case = forecast_of(graph_of(trainer=shared, training={"batch_by": "case"}), store)
    plain = forecast_of(graph_of(), store)
    conversation, (once, reference), (less, _) = tokens_of(plain)[0] / 2, tokens_of(exact), tokens_of(by_case)
    prompt = 2 * conversation - once
    assert 0 < prompt < conversation
    assert reference == pytest.approx(6 * prompt + CONVERSATIONS * (conversation - prompt), rel=1e-3)
    # Half of a case's three pairs compare two trajectories or three: at most two responses a pair, at least one.
    assert prompt / 8 + conversation - prompt < less < once
    assert total_hours(by_case.works) < total_hours(exact.works) < total_hours(plain.works)
    assert any("have in common once" in line for line in exact.assumptions)


def test_a_mixture_is_as_large_as_what_is_in_it(store: ArtifactStore) -> None:
    grid = {"models": ["agent"], "recipes": [], "pairs_judges": ["judge"], "seeds": [0, 1]}
    ends = {"between": ["safe_then_help", "help@wide"], "weights": [0.25, 0.5]}
    roomy = {"agent": {"kind": "weights", "source": "lab/agent", "server": {"adapter_rank": 128}}}
    graph = graph_of(models=roomy, grid={**grid, "interpolate": [ends]}, variants={"wide": {"lora_rank": 64}})
    found = forecast_of(graph, store)
    (mixed,) = [work for work in found.works if work.asset == "interpolated_adapters"]
    rank = 0.65 * 7e9 ** (2 / 3) * 4
    assert (mixed.partitions, mixed.gpu_hours) == (4, 0)
    assert mixed.disk == pytest.approx(4 * (16 + 16 + 64) * rank)
    both = {"between": ["safe", "safe_then_help"], "weights": [0.5]}
    graph = graph_of(grid={**grid, "interpolate": [both]})
    (mixed,) = [work for work in forecast_of(graph, store).works if work.asset == "interpolated_adapters"]
    assert mixed.disk == pytest.approx(2 * (16 + 16) * rank), "a stage that both have is in it once"


def test_checkpoints_are_said_apart_since_they_go(store: ArtifactStore) -> None:
    def checkpoints(**changes: Any) -> float:
        return forecast_of(graph_of(**changes), store).checkpoints

    assert checkpoints() == 0, "two steps come to none"
    assert checkpoints(trainer={"checkpoint_every": None}, training={"max_steps": 101}) == 0
    adapter = 16 * 0.65 * 7e9 ** (2 / 3)
    assert checkpoints(training={"max_steps": 101}) == pytest.approx(3 * 12 * adapter)
    graph = graph_of(training={"max_steps": 101})
    told = StringIO()
    Console(file=told, width=100).print(forecast_table(make_plan(graph, states(graph, store)), graph, store))
    assert "besides, while it trains: 1.4 GB of checkpoints at most, on every card" in told.getvalue()


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


def test_of_merged_models_that_go_two_are_there_at_once(store: ArtifactStore) -> None:
    grid = {"models": ["agent"], "recipes": ["safe_then_help"], "pairs_judges": ["judge"], "seeds": [0, 1, 2]}

    def merged(**changes: Any) -> tuple[float | None, str]:
        found = forecast_of(graph_of(grid=grid, **changes), store)
        (disk,) = [work.disk for work in found.works if work.asset == "stage_1/merged_models"]
        return disk, " ".join(found.assumptions)

    assert merged()[0] == 3 * 2 * 7e9
    disk, said = merged(trainer={"keep_merged": "needed"})
    assert disk == 2 * 2 * 7e9 and "two for a card that trains" in said
    here = {"agent": {"kind": "weights", "source": "lab/agent", "backend": "local"}}
    disk, said = merged(trainer={"keep_merged": "needed"}, models=here)
    assert disk == 3 * 2 * 7e9 and "all at once" in said, "agents in process are tested from them"


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


@pytest.mark.slow
def test_a_run_leaves_on_the_disk_what_was_said(finished: Lab, tmp_path: Path) -> None:
    """The small experiment with its model in a folder: what becomes of it is within a quarter of the forecast."""
    made = ArtifactStore(finished.location, "small").get(Ref.of("source_models", model="eager"))
    shutil.copytree(made.path, tmp_path / "weights")
    ends = {"between": ["safe", "safe_then_help"], "weights": [0.25, 0.5]}
    grid = {"models": ["eager"], "recipes": [], "interpolate": [ends], "pairs_judges": ["strict"], "seeds": [0]}
    lab = make_lab(
        tmp_path,
        models={"eager": {"kind": "weights", "source": "weights", "backend": "local"}},
        grid=grid,
        training={**SMALL["training"], "lora_rank": 16},  # type: ignore[dict-item]
    )
    graph, store = build_graph(load_experiment(str(lab.experiment))), ArtifactStore(lab.location, "small")
    said = {work.asset: work.disk for work in forecast_of(graph, store).works}
    lab.frontier("run", "small.yaml", "--select", "interpolated_adapters")
    left: Counter[str] = Counter()
    for manifest in store.manifests():
        left[manifest.asset] += manifest.bytes
    for asset in ("stage_1/adapters", "stage_2/adapters", "stage_1/merged_models", "interpolated_adapters"):
        assert said[asset] is not None
        assert said[asset] <= left[asset] < 1.25 * said[asset], asset


def test_an_unknown_card_is_an_error(store: ArtifactStore) -> None:
    with pytest.raises(FrontierError, match=r"planning\.card: 'H9000' is none of B200, H200"):
        forecast_of(graph_of(planning={"card": "H9000"}), store)


def test_nothing_is_said_where_no_card_is_needed(store: ArtifactStore) -> None:
    assert (
        forecast(build_graph(Experiment.model_validate(SMALL)), [Ref.of("source_models", model="eager")], [store])
        is None
    )


def test_the_shipped_experiment_says_all_that_is_needed(tmp_path: Path) -> None:
    graph = build_graph(load_experiment("single-gpu"))
    found = forecast_of(graph, ArtifactStore(tmp_path, "single-gpu"))
    assert not found.unsized
    assert 1 < total_hours(found.works) < 100


def test_either_takes_pairs_of_two_metrics(store: ArtifactStore) -> None:
    def training_hours(recipe: str) -> float:
        grid = {"models": ["agent"], "recipes": [recipe], "pairs_judges": ["judge"], "seeds": [0]}
        works = forecast_of(graph_of(grid=grid), store).works
        (hours,) = [work.gpu_hours for work in works if work.asset == "stage_1/adapters"]
        assert hours is not None
        return hours * 3600 - LOADING_S

    pair, _ = tokens_of(forecast_of(graph_of(), store))
    more = 7e9 * 4 * PAIRS * pair / (0.5 * 312e12)
    assert training_hours("either") - training_hours("safe") == pytest.approx(more, rel=1e-3)


def test_with_one_trajectory_a_case_there_are_no_pairs_to_train_on(store: ArtifactStore) -> None:
    alone = {"source": {"samples": 1}, "trainer": {"shared_text": True}, "training": {"batch_by": "case"}}
    (first,) = [w for w in forecast_of(graph_of(**alone), store).works if w.asset == "stage_1/adapters"]
    assert first.gpu_hours == pytest.approx(LOADING_S / 3600)
