"""`frontier check` asks every role as it will be asked, and says what would fail later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project.artifacts import ArtifactStore
from dagster_project.collect.endpoints import check_roles
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment, load_experiment
from dagster_project.operations.preflight import preflight
from tests import lm_world
from tests.lm_world import play, write_world
from tests.toolemu.chat.batch_server import BatchServer
from tests.toolemu.chat.server import Answer, ChatServer, Refusal, Script
from toolemu.errors import FrontierError, InputError


def experiment(folder: Path, url: str, **changes: Any) -> Experiment:
    write_world(folder)
    value = lm_world.experiment(url, **{"endpoints": {"here": {"url": url, "give_up_after_s": 0.5}}, **changes})
    files = {name: folder / value["world"][name] for name in ("case_files", "toolkit_files")}
    return Experiment.model_validate({**value, "world": {**value["world"], **files}})


@pytest.mark.parametrize("written", ["top_p: .nan", "logit_bias: {yes: 1}"])
def test_a_field_that_no_request_can_hold_is_named_with_its_file(tmp_path: Path, written: str) -> None:
    write_world(tmp_path)
    model = {"kind": "openai", "endpoint": "here", "model": "agent-a", "request": yaml.safe_load(f"{{{written}}}")}
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(lm_world.experiment("http://127.0.0.1:1/v1", models={"first": model})))
    with pytest.raises(InputError) as caught:
        load_experiment(str(path))
    assert caught.value.path == str(path) and "first" in caught.value.place and "request" in caught.value.place


def system(body: dict[str, Any]) -> bool:
    return any(message["role"] == "system" for message in body["messages"])


def test_every_role_is_asked_as_its_requests_will_be(tmp_path: Path) -> None:
    with ChatServer(play) as server:
        check_roles(experiment(tmp_path, server.url, agent={"max_tokens_per_turn": 32}))
    asked = {body["model"]: body for body in server.requests}
    assert all(system(body) for body in asked.values())
    assert {name: body["temperature"] for name, body in asked.items()} == {
        "agent-a": 1.0,
        "agent-b": 1.0,
        "emulator-1": 0.0,
        "judge-x": 0.0,
        "judge-y": 0.5,
    }
    assert {name for name, body in asked.items() if "stop" in body} == {"agent-a", "agent-b"}
    assert {name for name, body in asked.items() if "response_format" in body} == {"judge-x"}
    assert {body["max_tokens"] for body in asked.values()} == {32, 64}, "a few tokens, and no more than the role's"


def test_what_a_server_does_not_take_is_said(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Answer:
        if system(body):
            return Refusal(500, "Jinja Exception: System role not supported")
        return Refusal(400, "We have no structured output.") if "response_format" in body else play(body)

    with ChatServer(script) as server:
        checked = experiment(tmp_path, server.url)
        found = {report.place: report.reply.ignored for report in check_roles(checked)}
        said = "\n".join(preflight(build_graph(checked), ArtifactStore(tmp_path, "lm")))
    assert found.pop("judges.strict") == ("response_format", "system")
    assert {*found.values()} == {("system",)}
    assert "first user message" in said and "JSON schema" in said


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (lambda body: Refusal(402, "Insufficient Balance"), "endpoint.no-credit"),
        (lambda body: Refusal(400, "Model Not Exist"), "endpoint.unknown-model"),
        (lambda body: Refusal(400, "I would rather not."), "endpoint.refuses-requests"),
        (
            lambda body: Refusal(400, "bad effort", "reasoning_effort") if "reasoning_effort" in body else "ready",
            "endpoint.refuses-field",
        ),
    ],
)
def test_what_would_end_the_run_is_an_error_with_its_place(tmp_path: Path, script: Script, code: str) -> None:
    model = {"kind": "openai", "endpoint": "here", "model": "agent-a", "request": {"reasoning_effort": "most"}}
    with ChatServer(lambda body: "ready") as server, pytest.raises(FrontierError) as caught:
        server.script = lambda body: script(body) if body["model"] == "agent-a" else "ready"
        check_roles(experiment(tmp_path, server.url, models={"first": model}))
    assert caught.value.code == code and str(caught.value).startswith("models.first:")


def test_a_judge_in_batches_needs_a_server_that_has_them(tmp_path: Path) -> None:
    judge = {"kind": "openai", "endpoint": "here", "model": "judge-x", "batch": True}
    with ChatServer(lambda body: play(body) if body else Refusal(404, "no such path")) as server:
        with pytest.raises(FrontierError) as caught:
            check_roles(experiment(tmp_path, server.url, judges={"patient": judge}))
        assert caught.value.code == "batch.failed" and str(caught.value).startswith("judges.patient:")
    with BatchServer(play) as batches:
        check_roles(experiment(tmp_path, batches.url, judges={"patient": judge}))
        assert not batches.batches and not batches.direct
