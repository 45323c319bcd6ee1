"""A server that repeats its key in places of its own: files of batches, redirects of uploads, counts, refusals."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.toolemu.chat.batch_server import BatchServer
from tests.toolemu.chat.server import ChatServer, Refusal, Say
from toolemu.chat import ChatReply, ChatRequest, Message
from toolemu.chat.batch import BatchChatModel
from toolemu.chat.endpoint import EndpointError, open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.protocol import ModelError
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.errors import FrontierError

KEY = "sk-planted-0123456789abcdef"
REQUEST = ChatRequest((Message("user", "Hello"),))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOED_KEY", KEY)


def ask(url: str, ledger: Path | None = None) -> ChatReply:
    async def run() -> ChatReply:
        settings = EndpointSettings(url=url, key="ECHOED_KEY", give_up_after_s=0, max_attempts=1, timeout_s=5)
        async with open_endpoints({"here": settings}, max_in_flight=5) as found:
            model = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m"))
            if ledger is None:
                return await model.chat(REQUEST)
            return await BatchChatModel(model, found["here"], ledger, poll_s=0.01).chat(REQUEST)

    return asyncio.run(run())


def test_a_reply_holds_no_key() -> None:
    say = Say(f"The key is {KEY}.", reasoning=f"It is {KEY[:9]}\u200b{KEY[9:]}.", model=f"m-{KEY}")
    with ChatServer(lambda body: say) as server:
        reply = ask(server.url)
    assert (reply.text, reply.reasoning, reply.model) == ("The key is ***.", "It is ***.", "m-***")


@pytest.mark.parametrize("count", [KEY, {"n": KEY}, -5, 1e300, True, None, [KEY]])
def test_counts_that_are_none_are_no_error_that_quotes_them(count: Any) -> None:
    details = {"reasoning_tokens": count}
    answer = {
        "choices": [{"message": {"content": "Fine."}, "finish_reason": KEY}],
        "usage": {"prompt_tokens": count, "completion_tokens": 3, "completion_tokens_details": details},
        "model": {"name": KEY},
    }
    with ChatServer(lambda body: Refusal(200, body=json.dumps(answer).encode())) as server:
        reply = ask(server.url)
    assert reply.text == "Fine." and reply.completion_tokens == 3
    assert KEY not in repr(reply)


@pytest.mark.parametrize("length", [250, 270, 285, 290, 295, 299, 300, 310])
@pytest.mark.parametrize("status", [200, 400, 404, 500, 307])
def test_a_message_is_cleaned_before_it_is_cut(length: int, status: int) -> None:
    headers = (("location", f"http://evil.example/{'y' * length}{KEY}"),)
    refusal = Refusal(status, headers=headers, body=f"{'x' * length}{KEY}".encode())
    with ChatServer(lambda body: refusal) as server, pytest.raises((FrontierError, ModelError)) as raised:
        ask(server.url)
    assert KEY[:6] not in str(raised.value)


class EchoingBatches(BatchServer):
    """Names a file by the key, or repeats the key in an error."""

    where = ""

    def post(self, path: str, content: bytes) -> tuple[int, bytes]:
        status, answer = super().post(path, content)
        if path == "/v1/files" and self.where == "file":
            answer = json.dumps({"id": f"file-{KEY}", "object": "file"}).encode()
        if path == "/v1/files" and self.where == "error":
            status, answer = 400, json.dumps({"error": {"message": f"{'x' * 290}{KEY}"}}).encode()
        return status, answer


@pytest.mark.parametrize("where", ["file", "error", "answer"])
def test_batches_keep_no_key(where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with EchoingBatches(lambda body: f"It is {KEY}.") as server:
        server.where = where
        if where == "answer":
            assert ask(server.url, tmp_path / "ledger").text == "It is ***."
        else:
            with pytest.raises(EndpointError) as raised:
                ask(server.url, tmp_path / "ledger")
            assert KEY[:6] not in str(raised.value)
            assert (raised.value.code == "endpoint.echoed-key") == (where == "file")
    kept = (tmp_path / "ledger").read_text() if (tmp_path / "ledger").exists() else ""
    assert KEY not in kept + caplog.text


def test_an_address_that_holds_the_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOED_KEY", "planted-0123456789-by-us")
    with pytest.raises(FrontierError) as raised:
        ask("http://127.0.0.1:9/planted-0123456789-by-us/v1")
    assert raised.value.code == "endpoint.secret-in-url"
    assert "planted-0123" not in str(raised.value)
