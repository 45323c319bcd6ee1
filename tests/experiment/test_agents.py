from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dagster_project.artifacts import Ref
from dagster_project.experiment.agents import PAPER, Recipe, TrainedMetric
from dagster_project.experiment.graph import INTERPOLATED, Graph, build_graph
from dagster_project.experiment.spec import Experiment
from tests.conftest import SMALL

sequences = st.builds(
    lambda metrics, variant: Recipe("_then_".join(metrics) + variant),
    st.lists(st.sampled_from(TrainedMetric), min_size=1, max_size=5),
    st.sampled_from(["", "@ipo", "@a-1"]),
)
recipes = sequences | st.builds(
    lambda weight, one, other: Recipe.mixed(weight / 1000, one, other), st.integers(1, 999), sequences, sequences
)


@given(recipes)
def test_a_recipe_is_what_its_text_says(recipe: Recipe) -> None:
    again = Recipe(recipe.value)
    assert (again, again.label, again.mixture) == (recipe, recipe.label, recipe.mixture)
    if recipe.mixture:
        assert not recipe.metrics
        assert sum(share.weight for share in recipe.mixture) == pytest.approx(1)
    else:
        assert recipe.stages(len(recipe.metrics)) == recipe
        assert len(recipe.plain.metrics) == len(recipe.metrics)


@given(st.lists(recipes, max_size=20))
def test_recipes_can_be_put_in_order_the_papers_first(found: list[Recipe]) -> None:
    ordered = sorted({*found, *PAPER}, key=lambda recipe: recipe.place)
    assert tuple(ordered[: len(PAPER)]) == PAPER


def test_labels_are_short() -> None:
    texts = ("both", "either_then_safe", "safe_then_help_then_safe", "help@ipo", "0.25_safe_and_0.75_help")
    assert [Recipe(text).label for text in texts] == ["S&H", "S∪H→S", "S→H→S", "H (ipo)", "0.25 S + 0.75 H"]


@pytest.mark.parametrize(
    "text",
    ["", "safest", "safe_then_", "safe@", "safe@IPO", "0.5_safe", "0.5_safe_and_0.6_help", "0.50_safe_and_0.5_help"],
)
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no recipe"):
        Recipe(text)


def experiment(grid: dict[str, Any], **changes: Any) -> Experiment:
    own: dict[str, Any] = {**SMALL["grid"], **grid}  # type: ignore[dict-item]
    return Experiment.model_validate({**SMALL, "grid": own, **changes})


MIXED = {"recipes": ["safe"], "interpolate": [{"between": ["safe_then_help", "help"], "weights": [0.25, 0.5]}]}


@pytest.fixture
def graph() -> Graph:
    return build_graph(experiment(MIXED))


def test_mixtures_are_agents_that_nobody_trains(graph: Graph) -> None:
    tested = [agent.key for agent in graph.experiment.agents()]
    mixtures = [
        f"eager:{share}_safe_then_help_and_{rest}_help:strict:0.1" for share, rest in ((0.25, 0.75), (0.5, 0.5))
    ]
    assert tested == ["eager:safe:strict:0.1", *mixtures]
    assert graph.nodes["agent_trajectories"].dimensions["agent"] == tuple(tested)
    assert graph.nodes[INTERPOLATED].dimensions["agent"] == tuple(mixtures)
    assert set(graph.nodes["stage_1/adapters"].dimensions["agent"]) == {
        "eager:safe:strict:0.1",
        "eager:help:strict:0.1",
    }
    assert graph.nodes["stage_2/adapters"].dimensions["agent"] == ("eager:safe_then_help:strict:0.1",)


def test_a_mixture_reads_every_stage_of_what_it_is_mixed_from(graph: Graph) -> None:
    mixture = Ref.of(INTERPOLATED, agent="eager:0.25_safe_then_help_and_0.75_help:strict:0.1", seed="1")
    assert [ref.label for ref in graph.nodes[INTERPOLATED].sources(mixture)] == [
        "agent_specs [eager:0.25_safe_then_help_and_0.75_help:strict:0.1, 1]",
        "source_models [eager]",
        "stage_1/adapters [eager:safe:strict:0.1, 1]",
        "stage_2/adapters [eager:safe_then_help:strict:0.1, 1]",
        "stage_1/adapters [eager:help:strict:0.1, 1]",
    ]
    tested = Ref("agent_trajectories", mixture.partition)
    read = [ref.asset for ref in graph.nodes["agent_trajectories"].sources(tested)]
    assert read == ["source_models", INTERPOLATED]


def test_what_is_only_mixed_is_not_merged(graph: Graph) -> None:
    assert graph.nodes["stage_1/merged_models"].dimensions["agent"] == ("eager:safe:strict:0.1",)
    assert "stage_2/merged_models" not in graph.nodes


def test_a_variant_is_an_agent_of_its_own_over_all_its_stages() -> None:
    found = experiment(
        {"recipes": ["safe", "safe_then_help@ipo"]},
        variants={"ipo": {"loss": "ipo"}},
        overrides=[{"recipe": "safe_then_help", "training": {"max_steps": 9, "loss": "hinge"}}],
    )
    plain, varied = (found.training_of("eager", Recipe(text)) for text in ("safe", "safe_then_help@ipo"))
    assert (plain.loss, varied.loss, varied.max_steps) == ("sigmoid", "ipo", 9)
    adapters = build_graph(found).nodes["stage_1/adapters"].dimensions["agent"]
    assert adapters == ("eager:safe:strict:0.1", "eager:safe@ipo:strict:0.1")


@pytest.mark.parametrize(
    ("grid", "changes", "message"),
    [
        ({"interpolate": [{"between": ["safe", "safe"], "weights": [0.5]}]}, {}, "two different recipes"),
        ({"interpolate": [{"between": ["safe", "help"], "weights": [1]}]}, {}, "above 0 and below 1"),
        ({"interpolate": [{"between": ["safe", "help"], "weights": [0.12345]}]}, {}, "3 decimals"),
        ({"interpolate": [{"between": ["safe", "help"], "weights": []}]}, {}, "at least 1 item"),
        ({"interpolate": [{"between": ["safe", "help"], "weights": [0.5, 0.5]}]}, {}, "holds a value twice"),
        ({"recipes": ["0.5_safe_and_0.5_help"]}, {}, "below grid.interpolate"),
        ({"recipes": ["safe@ipo"]}, {}, r"grid names safe@ipo; variants defined: \[\]"),
        ({}, {"variants": {"ipo": {"loss": "ipo"}}}, "variants.ipo is of no recipe"),
        ({"recipes": ["safe@x"]}, {"variants": {"x": {"loss": "best"}}}, "should be 'sigmoid'"),
        ({"recipes": ["safe@x"]}, {"variants": {"x": {"speed": 1}}}, "which is no training parameter"),
        ({"recipes": ["safe@x"]}, {"variants": {"x_then_y": {}}}, "should match pattern"),
    ],
)
def test_grids_that_cannot_be_are_refused(grid: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        experiment(grid, **changes)


def test_a_server_must_have_room_for_the_stages_together() -> None:
    model = {"kind": "miniature", "temperament": "eager", "heads": 3, "backend": "vllm", "server": {"adapter_rank": 8}}
    experiment({"recipes": ["safe_then_help"]}, models={"eager": model})
    with pytest.raises(ValidationError, match="S→H→S is an adapter of rank 12"):
        experiment({"recipes": ["safe_then_help_then_safe"]}, models={"eager": model})
