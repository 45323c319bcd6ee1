"""The backend against a server that is not ours: `transformers serve` with a miniature model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_project.miniature.models import train_source_model
from dagster_project.miniature.world import make_cases, toolkits
from toolemu.chat import ChatModel, ChatReply, ChatRequest
from toolemu.chat.endpoint import open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.prompts import AgentPrompt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    train_source_model("eager", 0, folder, steps=220)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                break
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://localhost:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def test_a_served_model_writes_what_it_writes_in_process(weights: Path, url: str) -> None:
    from toolemu.chat.local import LocalChatModel

    prompt, known = AgentPrompt("brief"), toolkits()
    requests = [
        ChatRequest(
            prompt.messages(case, [known[name] for name in case.toolkits]), stop=("\nAction Input:",), max_tokens=40
        )
        for case in make_cases(12, 5)
    ]

    async def ask(model: ChatModel) -> list[ChatReply]:
        return list(await asyncio.gather(*(model.chat(request) for request in requests)))

    async def served() -> list[ChatReply]:
        async with open_endpoints({"here": EndpointSettings(url=url, max_in_flight=2)}, max_in_flight=2) as found:
            # Its own stopping fails on a vocabulary as small as this one.
            settings = OpenAIModelSettings(endpoint="here", model=str(weights), server_stop=False)
            return await ask(OpenAIChatModel(found["here"], settings))

    there, here = asyncio.run(served()), asyncio.run(ask(LocalChatModel(weights, "here")))
    assert [reply.text for reply in there] == [reply.text for reply in here]
    assert [reply.prompt_tokens for reply in there] == [reply.prompt_tokens for reply in here]
    assert all("\nAction: " in reply.text and reply.finish_reason == "stop" for reply in there)
