"""Models behind servers of ours, as a partition uses them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dagster_project.collect.endpoints import Workspace, open_chats
from dagster_project.experiment.spec import Experiment
from dagster_project.serving.leases import cards_alone
from dagster_project.serving.state import Servers
from tests import lm_world
from tests.lm_world import write_world
from tests.serving.test_leases import running, servers, until
from tests.training.toy import save_base
from toolemu.chat import ChatRequest, Message
from toolemu.chat.endpoint import SilentEndpointError
from toolemu.chat.settings import OpenAIModelSettings

__all__ = ["servers"]  # a fixture


class Ours(NamedTuple):
    """An experiment whose emulator is on a server of ours, and where its work is."""

    experiment: Experiment
    workspace: Workspace


@pytest.fixture
def ours(tmp_path: Path, servers: Servers) -> Ours:
    write_world(tmp_path)
    value: dict[str, Any] = lm_world.experiment("http://127.0.0.1:1/v1")
    serve = {"source": "base", "folder": save_base(tmp_path / "base")}
    value["endpoints"]["ours"] = {"serve": serve, "give_up_after_s": 0.2, "timeout_s": 2}
    files = {name: tmp_path / value["world"][name] for name in ("case_files", "toolkit_files")}
    value["world"] = {**value["world"], **files, "emulator": {"kind": "openai", "endpoint": "ours"}}
    workspace = Workspace(tmp_path, tmp_path / "replies.jsonl", servers.folder, lambda *_: None, lambda text: None)
    return Ours(Experiment.model_validate(value), workspace)


def test_a_server_that_lives_and_answers_nothing_ends(ours: Ours, servers: Servers) -> None:
    async def ask() -> None:
        async with open_chats(ours.experiment, ["world.emulator"], ours.workspace) as chats:
            assert len(running(servers)) == 1
            model = chats.model(OpenAIModelSettings(endpoint="ours"), "emulator")
            await model.chat(ChatRequest((Message("user", "Anything?"),)))  # the stand-in knows no chats

    with pytest.raises(SilentEndpointError):
        asyncio.run(ask())
    until(lambda: not running(servers))


def test_who_is_cancelled_waits_for_no_server(ours: Ours, servers: Servers) -> None:
    async def wait() -> None:
        async with asyncio.timeout(0.5), open_chats(ours.experiment, ["world.emulator"], ours.workspace):
            raise AssertionError("somebody else has the card")

    def end() -> None:
        with pytest.raises(TimeoutError):
            asyncio.run(wait())

    with cards_alone(servers):
        waiting = threading.Thread(target=end, daemon=True)
        waiting.start()
        waiting.join(20)
        assert not waiting.is_alive()
    assert not running(servers)
