"""`frontier cases generate` and `accept`, with a server that writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project.artifacts import ArtifactStore
from dagster_project.collect.generation import accept, generate
from dagster_project.experiment.spec import load_experiment
from tests.lm_world import experiment, write_world
from tests.toolemu.chat.server import ChatServer
from tests.toolemu.generation.test_writer import IDEAS, case, toolkit
from toolemu.errors import FrontierError
from toolemu.prompts import WriterPrompt


def author(body: dict[str, Any]) -> str:
    said = body["messages"][-1]["content"]
    if "Propose" in said:
        return json.dumps(IDEAS)
    return json.dumps(toolkit() if "specification" in said else case())


def test_what_is_accepted_is_a_world_for_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "k")
    write_world(tmp_path)
    path, drafts = tmp_path / "lm.yaml", tmp_path / "drafts.json"
    with ChatServer(author) as server:
        path.write_text(yaml.safe_dump(experiment(server.url)))
        loaded, store = load_experiment(str(path)), ArtifactStore(tmp_path / "data", "lm")
        with pytest.raises(FrontierError, match=r"--by judges\.nobody"):
            generate(loaded, "judges.nobody", store, drafts, toolkits=1, cases=1)
        generate(loaded, "judges.strict", store, drafts, toolkits=1, cases=2)
        asked = len(server.requests)
        drafts.rename(tmp_path / "first.json")
        generate(loaded, "judges.strict", store, drafts, toolkits=1, cases=2)
        assert len(server.requests) == asked, "replies are kept, and bought once"
    with pytest.raises(FrontierError, match="not reviewed"):
        accept(loaded, drafts, tmp_path / "new")
    value = json.loads(drafts.read_text())
    assert value["by"] == {"model": "judge-x", "prompts": WriterPrompt().version, "seed": 0}
    drafts.write_text(json.dumps({**value, "drafts": [{**draft, "accept": True} for draft in value["drafts"]]}))
    assert accept(loaded, drafts, tmp_path / "new") == {"toolkits": 1, "cases": 1}
    world = {**experiment(server.url)["world"], "case_files": "new/cases", "toolkit_files": "new/toolkits"}
    path.write_text(yaml.safe_dump(experiment(server.url, world={**world, "cases": "0-0"})))
    with pytest.raises(FrontierError, match="cases"):
        load_experiment(str(path))  # one case cannot be halved; it was found all the same
