"""Models behind servers of ours, as a partition uses them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dagster_project.collect.endpoints import Workspace, open_chats
from dagster_project.experiment.spec import Experiment
from dagster_project.serving.state import Servers
from tests import lm_world
from tests.lm_world import write_world
from tests.serving.test_leases import running, servers, until
from tests.training.toy import save_base
from toolemu.chat import ChatRequest, Message
from toolemu.chat.endpoint import SilentEndpointError
from toolemu.chat.settings import OpenAIModelSettings

__all__ = ["servers"]  # a fixture


def test_a_server_that_lives_and_answers_nothing_ends(tmp_path: Path, servers: Servers) -> None:
    write_world(tmp_path)
    base = save_base(tmp_path / "base")
    value: dict[str, Any] = lm_world.experiment("http://127.0.0.1:1/v1")
    value["endpoints"]["ours"] = {
        "serve": {"source": "base", "folder": base},
        "give_up_after_s": 0.2,
        "timeout_s": 2,
    }
    files = {name: tmp_path / value["world"][name] for name in ("case_files", "toolkit_files")}
    value["world"] = {**value["world"], **files, "emulator": {"kind": "openai", "endpoint": "ours"}}
    experiment = Experiment.model_validate(value)
    workspace = Workspace(tmp_path, tmp_path / "replies.jsonl", servers.folder, lambda *_: None, lambda text: None)

    async def ask() -> None:
        async with open_chats(experiment, ["world.emulator"], workspace) as chats:
            assert len(running(servers)) == 1
            model = chats.model(OpenAIModelSettings(endpoint="ours"), "emulator")
            await model.chat(ChatRequest((Message("user", "Anything?"),)))  # the stand-in knows no chats

    with pytest.raises(SilentEndpointError):
        asyncio.run(ask())
    until(lambda: not running(servers))
