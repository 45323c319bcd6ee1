"""Agents that were trained elsewhere: a checkpoint, an adapter, one behind an endpoint, on the frontier of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.spec import load_experiment
from tests.conftest import SMALL, Lab, make_lab
from tests.toolemu.chat.server import ChatServer
from toolemu.errors import InputError

WITH = {"of": "eager", "judge": "strict"}


def rows(lab: Lab, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.frontier("query", "small.yaml", sql, "--format", "json").stdout)
    return found


@pytest.mark.slow
def test_ones_own_agents_land_on_the_frontier_and_nothing_else_is_made_again(finished: Lab, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "own", tmp_path / "own" / "small.yaml")
    shutil.copytree(finished.directory, lab.directory)
    store = ArtifactStore(lab.directory / "data", "small")
    parts = {"agent": "eager:safe:strict:0.1", "seed": "0"}
    shutil.copytree(store.get(Ref.of("stage_1/adapters", **parts)).path, lab.directory / "weights" / "adapter")
    shutil.copytree(store.get(Ref.of("stage_1/merged_models", **parts)).path, lab.directory / "weights" / "whole")
    before = {manifest.ref: manifest.run_id for manifest in store.manifests()}
    with ChatServer(lambda body: "Thought: No.\nFinal Answer: I did nothing.") as server:
        own = {
            "checkpoint": {"kind": "weights", "source": "weights/whole", "backend": "local", "recipe": "safe", **WITH},
            "adapter": {"kind": "adapter", "source": "weights/adapter", "recipe": "safe", "beta": 0.1, **WITH},
            "served": {"kind": "openai", "endpoint": "here", "model": "m", "recipe": "both", **WITH},
        }
        endpoints = {"here": {"url": server.url}}
        lab.experiment.write_text(yaml.safe_dump({**SMALL, "own_agents": own, "endpoints": endpoints}))
        lab.frontier("run", "small.yaml")
    after = {manifest.ref: manifest.run_id for manifest in store.manifests()}
    made = {ref.asset.split("/")[0] for ref in after if after[ref] != before.get(ref) and ref.partition}
    assert made == {"own_agents", "agent_trajectories", "agent_evaluations"}
    again = [ref.label for ref in before if ref.partition and after[ref] != before[ref]]
    assert not again
    scores = rows(lab, "SELECT agent, count(*) AS n, min(n) AS cases FROM agent_scores GROUP BY ALL")
    by_agent = {row["agent"]: row for row in scores}
    assert all(by_agent[name] == {"agent": name, "n": 2 * 2 * 2, "cases": 6} for name in own), "seeds, judges, metrics"
    points = rows(
        lab,
        "SELECT recipe, beta FROM frontier_points WHERE judging = 'match' AND judge IS NULL ORDER BY ALL NULLS LAST",
    )
    assert {"recipe": "safe@adapter", "beta": 0.1} in points, "though there is one of the grid"
    assert {"recipe": "both@served", "beta": None} in points and {"recipe": "safe@checkpoint", "beta": None} in points
    fits = "SELECT * FROM frontier_fits ORDER BY ALL"
    assert rows(lab, fits) == rows(finished, fits), "they are seen beside the line, and do not move it"
    persistence = "SELECT * FROM persistence ORDER BY ALL"
    assert rows(lab, persistence) == rows(finished, persistence)
    did = rows(lab, "SELECT DISTINCT steps FROM trajectories WHERE agent = 'served'")
    assert did == [{"steps": 0}]
    assert {body["model"] for body in server.requests} == {"m"}


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"of": "nobody"}, "own_agents.mine.of names 'nobody'"),
        ({"judge": "nobody"}, "own_agents.mine.judge names 'nobody'"),
        ({"recipe": "safe@ipo", "beta": 0.1}, "would be taken for the agent of the grid"),
        ({"of": "remote", "kind": "adapter", "source": "w"}, "needs the weights of 'remote'"),
        ({"recipe": "kind"}, "recipe"),
        (
            {"name": "My_Model"},
            "own_agents.*My_Model is shown as a variant of safe.*give its recipe a variant: safe@short",
        ),
    ],
)
def test_an_own_agent_that_does_not_fit_is_an_error(tmp_path: Path, own: dict[str, Any], said: str) -> None:
    name = own.pop("name", "mine")
    mine = {"kind": "openai", "endpoint": "here", "model": "m", "recipe": "safe", **WITH, **own}
    if mine["kind"] == "adapter":
        mine = {field: value for field, value in mine.items() if field not in ("endpoint", "model")}
    remote = {"kind": "openai", "endpoint": "here", "model": "m"}
    lab = make_lab(
        tmp_path,
        own_agents={name: mine},
        grid={**SMALL["grid"], "recipes": ["safe@ipo", "safe", "help"]},  # type: ignore[dict-item]
        variants={"ipo": {"loss": "ipo"}},
        endpoints={"here": {"url": "http://localhost:1/v1"}},
        models={**SMALL["models"], "remote": remote},  # type: ignore[dict-item]
    )
    with pytest.raises(InputError, match=said):
        load_experiment(str(lab.experiment))
