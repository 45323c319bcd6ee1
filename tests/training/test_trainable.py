"""`frontier check` finds models that cannot be trained, and adapters that cannot be served, on what is at hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project.artifacts import ArtifactStore
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.sections import Grid
from dagster_project.experiment.spec import Experiment, load_experiment
from dagster_project.operations.preflight import preflight
from dagster_project.training.trainable import check_trainable
from tests import lm_world
from tests.lm_world import write_world
from toolemu.errors import FrontierError

from .templates import DATED, ENDLESS, NO_SYSTEM, PLAIN, SHORTENS, SWITCHED, THINKS_LAST, byte_tokenizer
from .toy import save_base


def experiment(folder: Path, template: str = PLAIN, recipes: tuple[str, ...] = ("safe",), **model: Any) -> Experiment:
    """Returns an experiment that trains a base of the folder, or another model."""
    write_world(folder)
    save_base(folder / "base")
    byte_tokenizer(template).save_pretrained(folder / "base")
    whole = lm_world.experiment(
        "http://localhost:1/v1",
        models={"m": {"kind": "weights", "source": "base", "backend": "local", **model}},
        grid={"models": ["m"], "recipes": list(recipes), "pairs_judges": ["strict"], "betas": [0.1], "seeds": [0]},
    )
    (folder / "lm.yaml").write_text(yaml.safe_dump(whole))
    return load_experiment(str(folder / "lm.yaml"))


def refusal(found: Experiment) -> str:
    with pytest.raises(FrontierError) as refused:
        list(check_trainable(found))
    assert "models.m" in str(refused.value), "the place in the experiment file"
    return refused.value.code


@pytest.mark.parametrize(
    ("template", "model", "sequences"),
    [
        (PLAIN, {}, "one sequence"),
        (THINKS_LAST, {}, "one sequence"),
        (SWITCHED, {}, "one sequence"),
        (NO_SYSTEM, {}, "one sequence"),
        (SWITCHED, {"thinking": False}, "3 sequences"),
        (SHORTENS, {}, "3 sequences"),
    ],
)
def test_a_model_that_can_be_trained_is_said_to(
    tmp_path: Path, template: str, model: dict[str, Any], sequences: str
) -> None:
    (line,) = check_trainable(experiment(tmp_path, template, **model))
    assert line.startswith(f"models.m: base can be trained: {sequences}")


@pytest.mark.parametrize(
    ("template", "model", "code"),
    [
        ("{{ raise_exception('No.') }}", {}, "chat-template.refuses"),
        (ENDLESS, {}, "chat-template.no-end"),
        (DATED, {}, "chat-template.reads-clock"),
        (PLAIN, {"server": {"arguments": ["--chat-template", "own.jinja"]}}, "chat-template.given-to-server"),
        (PLAIN, {"server": {"arguments": ["--chat-template=own.jinja"]}}, "chat-template.given-to-server"),
        (PLAIN, {"request": {"chat_template": "{{ messages }}"}}, "chat-template.given-to-server"),
    ],
)
def test_one_whose_template_cannot_be_trained_on_is_refused(
    tmp_path: Path, template: str, model: dict[str, Any], code: str
) -> None:
    assert refusal(experiment(tmp_path, template, **model)) == code


def test_a_date_given_as_an_argument_is_the_same_on_every_day(tmp_path: Path) -> None:
    assert list(check_trainable(experiment(tmp_path, DATED, chat_template={"date_string": "26 Jul 2024"})))


def test_quantized_weights_are_found_before_anybody_is_asked(tmp_path: Path) -> None:
    found = experiment(tmp_path)
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": {"quant_method": "awq"}}))
    assert refusal(found) == "base.quantized"
    with pytest.raises(FrontierError) as refused:  # before the judges' server, which does not answer
        list(preflight(build_graph(found), ArtifactStore(tmp_path, found.name)))
    assert refused.value.code == "base.quantized"


def test_weights_that_are_not_here_are_not_fetched_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    found = experiment(tmp_path, source="nobody/nothing-of-this-name")
    (line,) = check_trainable(found)
    assert "not on this machine yet" in line
    first, second = itertools.islice(preflight(build_graph(found), ArtifactStore(tmp_path, found.name)), 2)
    assert "models.m: nobody/nothing-of-this-name is not pinned" in first and second == line


def test_what_is_not_trained_is_not_looked_at(tmp_path: Path) -> None:
    whole = experiment(tmp_path, DATED)
    assert not list(check_trainable(whole.model_copy(update={"grid": Grid()})))
