"""A model from outside the project: the example in ARCHITECTURE.md, in one file, with no change elsewhere."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project import kinds
from dagster_project.artifacts import Ref
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.pools import uses_gpu
from dagster_project.experiment.spec import load_experiment
from dagster_project.kinds import Registry
from dagster_project.models import MODELS, ModelKind
from tests.conftest import ROOT, SMALL, Lab, make_lab
from toolemu.errors import InputError

REFUSER = {"kind": "python", "object": "my_models:Refuser", "answer": "No."}
MADE = ("source_models", "source_trajectories")
OWN = {**REFUSER, "of": "refuser", "recipe": "safe", "judge": "strict"}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The example's module, and an experiment whose only source model it is, without training."""
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    example = re.search(r'```python\n("""my_models\.py.*?)```', page, re.S)
    assert example
    (tmp_path / "my_models.py").write_text(example[1], "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield make_lab(tmp_path, models={"refuser": REFUSER}, own_agents={"mine": OWN}, grid={"seeds": [0]})


def graph_of(lab: Lab) -> Graph:
    return build_graph(load_experiment(str(lab.experiment)))


def test_its_fields_and_its_source_decide_its_partitions_and_no_others(lab: Lab, tmp_path: Path) -> None:
    tiny = SMALL["models"]["eager"]  # type: ignore[index]
    make_lab(tmp_path, models={"refuser": REFUSER, "tiny": tiny}, grid={})
    refs = [Ref.of(asset, model=model) for model in ("refuser", "tiny") for asset in MADE]

    def configurations() -> list[dict[str, Any]]:
        nodes = graph_of(lab).nodes
        return [nodes[ref.asset].config(ref) for ref in refs]

    before = configurations()
    assert REFUSER.items() <= before[0].items()
    module = tmp_path / "my_models.py"
    module.write_text(module.read_text("utf-8").replace("I will not", "I cannot"), "utf-8")
    assert [old == new for old, new in zip(before, configurations(), strict=True)] == [False, False, True, True]


def test_it_needs_no_gpu_and_goes_to_other_processes_as_an_agent_that_joins(lab: Lab) -> None:
    experiment = load_experiment(str(lab.experiment))
    assert not uses_gpu(experiment)
    assert experiment.roles() == {}
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    assert [agent.key for agent in experiment.agents()] == ["mine"]


@pytest.mark.slow
def test_it_is_sampled_judged_and_in_the_results(lab: Lab) -> None:
    lab.frontier("run", "small.yaml")
    sql = """
        SELECT agent, metric, count(*) AS judges, max(stop_reason) AS ended
        FROM agent_scores JOIN (SELECT DISTINCT agent, stop_reason FROM trajectories) USING (agent)
        GROUP BY ALL ORDER BY ALL
    """
    rows = json.loads(lab.frontier("query", "small.yaml", sql, "--format", "json").stdout)
    assert rows == [
        {"agent": agent, "metric": metric, "judges": 2, "ended": "final_answer"}
        for agent in ("mine", "refuser")
        for metric in ("help", "safe")
    ]


@pytest.mark.parametrize(
    ("changes", "place", "code"),
    [
        ({"models": {"m": {"kind": "python"}}}, "models.m", "kind.object"),
        ({"models": {"m": {"kind": "python", "object": "no_such_module:Model"}}}, "models.m", "kind.object"),
        ({"models": {"m": {"kind": "python", "object": "json:JSONDecoder"}}}, "models.m", "kind.object"),
        ({"models": {"m": {"kind": "psychic"}}}, "models.m", "kind.unknown"),
        ({"models": {"m": "eager"}}, "models.m", "kind.unknown"),
        ({"models": {"m": {**REFUSER, "answer": 3}}}, "models.m.answer", "input"),
        ({"own_agents": {"mine": {**OWN, "kind": "psychic"}}}, "own_agents.mine", "kind.unknown"),
        ({"own_agents": {"mine": {**OWN, "beta": 0}}}, "own_agents.mine.beta", "input"),
        ({"models": {"refuser": {"kind": "imported"}}}, "", "experiment.imported-model"),
        ({"models": {"refuser": {"kind": "adapter", "source": "a"}}}, "", "experiment.adapter-alone"),
        (
            {"grid": {"models": ["refuser"], "recipes": ["safe"], "pairs_judges": ["strict"], "seeds": [0]}},
            "",
            "experiment.not-trainable",
        ),
    ],
)
def test_a_model_that_cannot_be_had_is_named(lab: Lab, changes: dict[str, Any], place: str, code: str) -> None:
    value = yaml.safe_load(lab.experiment.read_text("utf-8"))
    lab.experiment.write_text(yaml.safe_dump({**value, **changes}), "utf-8")
    with pytest.raises(InputError) as caught:
        load_experiment(str(lab.experiment))
    assert place in caught.value.place
    assert caught.value.code == code


def test_an_installed_package_adds_a_word(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("refuser", "my_models:Refuser", "safety_frontier.models")
    monkeypatch.setattr(kinds, "entry_points", lambda group: EntryPoints([point]).select(group=group))
    assert Registry("models", ModelKind, {}).kind_of({"kind": "refuser"}).__name__ == "Refuser"


def test_every_shipped_kind_can_be_imported() -> None:
    assert [MODELS.kind_of({"kind": word}).__name__ for word in MODELS.places] == [
        "MiniatureModel",
        "OpenAIModel",
        "WeightsModel",
        "AdapterModel",
        "ImportedModel",
    ]


def test_its_files_lie_beside_the_experiment(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "my_files.py").write_text(
        "from pydantic import ValidationInfo, field_validator\n"
        "from dagster_project.experiment.places import located\n"
        "from my_models import Refuser\n"
        "class Reader(Refuser):\n"
        "    file: str\n"
        "    @field_validator('file')\n"
        "    @classmethod\n"
        "    def _read(cls, name: str, info: ValidationInfo) -> str:\n"
        "        return located(info, 'file', name).read_text('utf-8')\n"
    )
    (tmp_path / "words.txt").write_text("three words here", "utf-8")
    model = {"kind": "python", "object": "my_files:Reader", "file": "words.txt"}
    made = make_lab(tmp_path, models={"refuser": model}, grid={})
    assert load_experiment(str(made.experiment)).identity_of("refuser")["file"] == "three words here"


def test_the_fields_that_a_trainable_kind_adds_decide_its_weights(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "my_tiny.py").write_text(
        "from dagster_project.models.trainable import TrainableModel\n"
        "class Tiny(TrainableModel):\n"
        "    object: str\n"
        "    width: int = 3\n"
    )
    tiny = {"kind": "python", "object": "my_tiny:Tiny", "width": 4, "max_tokens": 9}
    grid = {"models": ["tiny"], "recipes": ["safe"], "pairs_judges": ["strict"], "seeds": [0]}
    graph = graph_of(make_lab(tmp_path, models={"tiny": tiny}, grid=grid))
    identity = graph.experiment.identity_of("tiny")
    assert {**identity, "model_code": ""} == {"kind": "python", "object": "my_tiny:Tiny", "width": 4, "model_code": ""}
    assert graph.experiment.running_of("tiny") == {"running": {"max_tokens": 9}, "model_code": identity["model_code"]}
    assert "stage_1/merged_models" in graph.nodes, "it can be trained"


def test_nothing_outside_the_package_names_a_kind_of_model() -> None:
    modules = {place.partition(":")[0] for place in MODELS.places.values()}
    found = [
        (str(path), module)
        for path in (ROOT / "dagster_project").rglob("*.py")
        for module in modules
        if module in path.read_text("utf-8") and path.parent.name != "models"
    ]
    assert not found
