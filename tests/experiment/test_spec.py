from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import EXPERIMENTS, Experiment, load_experiment
from dagster_project.experiment.splits import split_cases
from dagster_project.experiment.template import write_template
from tests.conftest import SMALL, make_lab
from toolemu.errors import InputError


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_loads_under_its_own_name(path: Path) -> None:
    assert load_experiment(path.stem).name == path.stem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {**SMALL["grid"], "models": ["nobody"]}}, "grid.models names 'nobody'"),
        ({"grid": {**SMALL["grid"], "pairs_judges": ["nobody"]}}, "grid.pairs_judges names 'nobody'"),
        ({"grid": {**SMALL["grid"], "recipes": ["safest"]}}, "grid.recipes.0"),
        ({"grid": {**SMALL["grid"], "seeds": [0, 0]}}, "grid.seeds holds a value twice"),
        ({"metrics": ["safe"]}, "'help' is missing"),
        ({"colour": "red"}, "'colour'.*Extra inputs"),
        ({"overrides": [{"training": {"learning_speed": 1}}]}, "no training parameter 'learning_speed'"),
        ({"models": {"a|b": {"temperament": "eager"}}}, r"models\.a\|b"),
    ],
)
def test_a_wrong_experiment_is_an_error_with_file_and_field(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    lab = make_lab(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_experiment(str(lab.experiment))
    assert "small.yaml" in str(caught.value)


def test_broken_yaml_is_an_error_with_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\nmodels: [a\n")
    with pytest.raises(InputError, match=r"broken\.yaml: line 3"):
        load_experiment(str(path))


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="miniature"):
        load_experiment("no-such-thing")


def test_overrides_reach_their_agents_only() -> None:
    experiment = Experiment.model_validate({**SMALL, "overrides": [{"recipe": "safe", "training": {"max_steps": 9}}]})
    assert experiment.training_of("eager", Recipe.safe).max_steps == 9
    assert experiment.training_of("eager", Recipe.help).max_steps == 4


def test_a_later_stage_brings_the_earlier_one_it_needs() -> None:
    grid = {**SMALL["grid"], "recipes": ["safe_then_help"]}  # type: ignore[dict-item]
    experiment = Experiment.model_validate({**SMALL, "grid": grid})
    assert [agent.key for agent in experiment.stage_agents(1)] == ["eager:safe:strict:0.1"]
    assert [agent.key for agent in experiment.stage_agents(2)] == ["eager:safe_then_help:strict:0.1"]
    assert [agent.key for agent in experiment.agents()] == ["eager:safe_then_help:strict:0.1"]


@pytest.mark.parametrize("n_cases", [4, 13, 60, 144])
def test_splits_are_halves_that_depend_on_the_seed_alone(n_cases: int) -> None:
    split = split_cases(n_cases, 1)
    assert sorted(split.train + split.test) == list(range(n_cases))
    assert len(split.test) == n_cases // 2
    assert split == split_cases(n_cases, 1)
    assert split != split_cases(n_cases, 2)


def test_the_published_seed_gives_the_published_halves() -> None:
    assert split_cases(144, 0).test[:10] == (0, 1, 7, 8, 9, 10, 11, 12, 18, 24)
    assert split_cases(144, 2).test[:8] == (3, 4, 9, 14, 17, 20, 21, 22)


def test_the_template_is_a_valid_experiment_of_its_own_name(tmp_path: Path) -> None:
    path = write_template("mine", tmp_path)
    assert load_experiment(str(path)).name == "mine"
    assert yaml.safe_load(path.read_text())["name"] == "mine"
    with pytest.raises(InputError, match="already"):
        write_template("mine", tmp_path)
    with pytest.raises(InputError, match="no name"):
        write_template("not/a/name", tmp_path)
