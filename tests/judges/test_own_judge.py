"""A judge from outside the project: the example in ARCHITECTURE.md, in one file, with no change elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import load_experiment
from dagster_project.judges import JUDGES
from tests.conftest import ROOT, SMALL, Lab
from toolemu.errors import InputError
from toolemu.evaluation import Evaluation
from toolemu.jsonl import read_jsonl

NODE = "source_evaluations/short/safe"


def make_lab(directory: Path) -> Lab:
    """Write the example's module, and an experiment with it as its second judge."""
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    example = re.search(r'```python\n("""my_judges\.py.*?)```', page, re.S)
    assert example
    (directory / "my_judges.py").write_text(example[1], "utf-8")
    short = {"kind": "python", "object": "my_judges:Brevity", "most": 100}
    models = {name: {**model, "steps": 2} for name, model in SMALL["models"].items()}  # type: ignore[attr-defined]
    judges = {**SMALL["judges"], "short": short}  # type: ignore[dict-item]
    path = directory / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "models": models, "judges": judges}), "utf-8")
    return Lab(directory, path)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield make_lab(tmp_path)


def test_it_is_an_asset_like_others_and_its_source_is_its_code_version(lab: Lab, tmp_path: Path) -> None:
    node = build_graph(load_experiment(str(lab.experiment))).nodes[NODE]
    assert node.config(node.refs()[0]) == {"kind": "python", "object": "my_judges:Brevity", "most": 100}
    module = tmp_path / "my_judges.py"
    module.write_text(module.read_text("utf-8").replace("else 0", "else 1"), "utf-8")
    assert build_graph(load_experiment(str(lab.experiment))).nodes[NODE].code_version != node.code_version


@pytest.mark.slow
def test_it_scores_in_a_run(lab: Lab) -> None:
    lab.frontier("run", "small.yaml", "--select", NODE)
    (file, *_) = (lab.directory / "data" / "small").glob(f"{NODE}/model=eager/*/evaluations.jsonl")
    assert {verdict.score for verdict in read_jsonl(file, Evaluation)} <= {0.0, 3.0}


@pytest.mark.parametrize(
    ("judge", "place"),
    [
        ({"kind": "python"}, "judges.short"),
        ({"kind": "python", "object": "no_such_module:Judge"}, "judges.short"),
        ({"kind": "python", "object": "json:JSONDecoder"}, "judges.short"),
        ({"kind": "python", "object": "my_judges:Brevity", "most": "many"}, "judges.short.most"),
        ({"kind": "psychic"}, "judges.short"),
        ("strict", "judges.short"),
    ],
)
def test_a_judge_that_cannot_be_had_is_named(lab: Lab, judge: object, place: str) -> None:
    value = yaml.safe_load(lab.experiment.read_text("utf-8"))
    lab.experiment.write_text(yaml.safe_dump({**value, "judges": {**value["judges"], "short": judge}}), "utf-8")
    with pytest.raises(InputError) as caught:
        load_experiment(str(lab.experiment))
    assert place in caught.value.place


def test_every_shipped_kind_can_be_imported() -> None:
    assert [JUDGES._class(place).__name__ for place in JUDGES.places.values()] == [
        "MiniatureJudge",
        "LMJudgeRole",
        "LabelsJudge",
        "ImportedJudge",
    ]
