"""Batches against a real server: what is in one, what is not, and what a killed process finds again."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.toolemu.chat.batch_server import BatchServer
from tests.toolemu.chat.server import ChatServer, Refusal, Script
from toolemu.chat import ChatReply, ChatRequest, Message, ModelError
from toolemu.chat.batch import BatchChatModel
from toolemu.chat.endpoint import EndpointError, open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.errors import InputError


def play(body: dict[str, Any]) -> str:
    return f"To {body['messages'][0]['content']}."


def requests(count: int) -> list[ChatRequest]:
    return [ChatRequest((Message("user", str(number)),), seed=number) for number in range(count)]


def first_number(file: bytes) -> int:
    return int(json.loads(file.splitlines()[0])["body"]["messages"][0]["content"])


async def ask(url: str, ledger: Path, asked: list[ChatRequest]) -> list[ChatReply]:
    async with open_endpoints({"here": EndpointSettings(url=url)}, max_in_flight=50) as found:
        settings = OpenAIModelSettings(endpoint="here", model="m")
        model = BatchChatModel(OpenAIChatModel(found["here"], settings), found["here"], ledger, poll_s=0.05)
        return list(await asyncio.gather(*(model.chat(request) for request in asked)))


async def leave(server: BatchServer, ledger: Path, asked: list[ChatRequest]) -> None:
    """Asks, and is cancelled when the batch is under way."""
    work = asyncio.create_task(ask(server.url, ledger, asked))
    while not (server.batches and server.batches[0]["asked"]):
        await asyncio.sleep(0.02)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def test_requests_that_come_together_are_one_batch(tmp_path: Path) -> None:
    with BatchServer(play) as server:
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", [*requests(30), requests(1)[0]]))
    assert [reply.text for reply in replies] == [*(f"To {number}." for number in range(30)), "To 0."]
    assert {(reply.model, reply.prompt_tokens, reply.ignored) for reply in replies} == {("m-1", 3, ())}
    assert len(server.batches) == 1 and not server.direct
    assert len(server.files["file-0"].splitlines()) == 30, "the same request is in it once"


def test_a_batch_is_no_larger_than_servers_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1000
    monkeypatch.setattr("toolemu.chat.batch.LARGEST_BYTES", limit)
    with BatchServer(play) as server:
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(30)))
    assert [reply.text for reply in replies] == [f"To {number}." for number in range(30)]
    # Batches are sent at once, and the server may meet them in another order.
    files = sorted((server.files[batch["input_file_id"]] for batch in server.batches), key=first_number)
    assert sum(len(file.splitlines()) for file in files) == 30 and not server.direct
    for file, following in itertools.pairwise(files):
        first = following.splitlines(keepends=True)[0]
        assert len(file) <= limit < len(file) + len(first), "each is as full as may be"


def test_a_request_larger_than_any_batch_ends_alone_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolemu.chat.batch.LARGEST_BYTES", 1000)
    long = ChatRequest((Message("user", "0" * 1000),))
    with BatchServer(play) as server:
        with pytest.raises(ModelError, match=r"request of 1,\d+ bytes is more than a batch of here may be, 1,000"):
            asyncio.run(ask(server.url, tmp_path / "ledger", [long]))
        assert not server.batches and not server.direct


def test_what_a_batch_loses_is_asked_for_directly(tmp_path: Path) -> None:
    with BatchServer(play, lost=(1, 4)) as server:
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(6)))
    assert [reply.text for reply in replies] == [f"To {number}." for number in range(6)]
    assert sorted(body["messages"][0]["content"] for body in server.direct) == ["1", "4"]


def test_a_batch_has_no_more_requests_than_servers_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolemu.chat.batch.LARGEST", 4)
    with BatchServer(play) as server:
        asyncio.run(ask(server.url, tmp_path / "ledger", requests(10)))
    assert [len(file.splitlines()) for name, file in server.files.items() if name.startswith("file")] == [4, 4, 2]


def test_the_ledger_knows_a_batch_before_it_is_bought(tmp_path: Path) -> None:
    ledger, known = tmp_path / "ledger", []

    class Watching(BatchServer):
        def post(self, path: str, content: bytes) -> tuple[int, bytes]:
            if path == "/v1/batches":
                known.append(ledger.is_file() and json.loads(content)["input_file_id"] in ledger.read_text())
            return super().post(path, content)

    with Watching(play) as server:
        asyncio.run(ask(server.url, ledger, requests(3)))
    assert known == [True], "a kill in between would lose what was bought"


def test_a_batch_is_bought_once_though_the_answer_to_it_was_lost(tmp_path: Path) -> None:
    with BatchServer(play, busy=2, silent=1) as server:
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(3)))
    assert [reply.text for reply in replies] == [f"To {number}." for number in range(3)]
    assert len(server.batches) == 1 and not server.direct and server.busy == server.silent == 0


@pytest.mark.parametrize("ends", ["failed", "expired", "cancelled"])
def test_a_batch_that_fails_costs_no_request(tmp_path: Path, ends: str, caplog: pytest.LogCaptureFixture) -> None:
    with BatchServer(play, ends=ends) as server:
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(3)))
    assert len(replies) == len(server.direct) == 3
    assert f"ended as {ends}" in caplog.text and "no answer to 3 of 3 requests" in caplog.text


def test_a_batch_that_was_left_is_found_again_and_not_bought_twice(tmp_path: Path) -> None:
    with BatchServer(play, polls=10**6) as server:
        asyncio.run(leave(server, tmp_path / "ledger", requests(4)))
        assert len(server.batches) == 1
        server.polls = 1
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(6)))
    assert [reply.text for reply in replies] == [f"To {number}." for number in range(6)]
    sizes = [len(server.files[batch["input_file_id"]].splitlines()) for batch in server.batches]
    assert sizes == [4, 2], "the second has what is new"
    assert not server.direct


def test_a_file_that_never_became_a_batch_is_asked_for_directly(tmp_path: Path) -> None:
    with BatchServer(play) as server:
        asyncio.run(ask(server.url, tmp_path / "ledger", requests(2)))
        server.batches.clear()
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(2)))
    assert len(replies) == len(server.direct) == 2


def test_a_server_without_batches_is_a_clear_error(tmp_path: Path) -> None:
    script: Script = lambda body: "ready" if body else Refusal(404, "no such path")  # noqa: E731 - shown, not named
    with ChatServer(script) as server, pytest.raises(EndpointError) as caught:
        asyncio.run(ask(server.url, tmp_path / "ledger", requests(2)))
    assert caught.value.code == "batch.failed"


REASONING = {"max_tokens": "Use 'max_completion_tokens' instead.", "temperature": "Only the default is supported."}


def refuse_as_reasoning_models_do(body: dict[str, Any]) -> dict[str, Any] | None:
    found = next((name for name in REASONING if name in body and body[name] != 1), None)
    message = f"Unsupported parameter: '{found}'. {REASONING.get(found or '')}"
    return {"error": {"message": message, "param": found, "code": "unsupported_parameter"}} if found else None


def test_one_look_finds_what_a_model_refuses_and_the_batch_leaves_it_out(tmp_path: Path) -> None:
    with BatchServer(play, refuses=refuse_as_reasoning_models_do) as server:
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(6)))
    assert [(reply.text, reply.ignored) for reply in replies] == [(f"To {n}.", ("temperature",)) for n in range(6)]
    assert len(server.batches) == 1 and not server.direct and len(server.looks) == len(REASONING) + 1


def test_a_batch_that_is_found_again_says_what_was_left_out_of_it(tmp_path: Path) -> None:
    with BatchServer(play, polls=10**6, refuses=refuse_as_reasoning_models_do) as server:
        asyncio.run(leave(server, tmp_path / "ledger", requests(4)))
        looks = len(server.looks)
        server.polls = 1
        replies = asyncio.run(ask(server.url, tmp_path / "ledger", requests(4)))
    assert {reply.ignored for reply in replies} == {("temperature",)}
    assert len(server.looks) == looks, "what is bought needs no look"


def test_requests_that_a_batch_loses_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(body: dict[str, Any]) -> dict[str, Any] | None:
        return {"error": {"message": "no twos"}} if body["messages"][-1]["content"] == "2" else None

    with BatchServer(play, lost=(4,), refuses=refuse) as server, pytest.raises(ModelError, match="no twos"):
        asyncio.run(ask(server.url, tmp_path / "ledger", requests(6)))
    assert "no answer to 2 of 6 requests" in caplog.text and "no twos" in caplog.text


def test_an_answer_of_a_batch_is_repaired_like_any_other(tmp_path: Path) -> None:
    with BatchServer(lambda body: "half \ud83d") as server:
        (reply,) = asyncio.run(ask(server.url, tmp_path / "ledger", requests(1)))
    assert reply.text == "half ?" and not server.direct


def test_a_damaged_ledger_is_named_with_its_line(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.write_bytes(b'{"file": "f", "keys": []}\n[]\n{"file": "f", "keys": []}\n')
    with BatchServer(play) as server, pytest.raises(InputError) as caught:
        asyncio.run(ask(server.url, ledger, requests(1)))
    assert (caught.value.code, caught.value.place) == ("batch.damaged-ledger", "line 2")
