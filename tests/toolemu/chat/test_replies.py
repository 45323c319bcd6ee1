from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.toolemu.acting import ScriptedChat
from toolemu.chat import ChatReply, ChatRequest, Message
from toolemu.chat.endpoint import open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.replies import JournaledChatModel, ReplyJournal
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.errors import InputError
from toolemu.journal import JournalBusyError

HELLO = ChatRequest((Message("user", "Hello"),))


class Keyed(ScriptedChat):
    """A scripted model whose replies depend on the messages alone."""

    def key(self, request: ChatRequest) -> str:
        return request.messages[-1].content


def chat(path: Path, model: Keyed, *texts: str) -> list[str]:
    async def run() -> list[str]:
        with ReplyJournal.open(path) as journal:
            kept = JournaledChatModel(model, journal)
            return [(await kept.chat(ChatRequest((Message("user", text),)))).text for text in texts]

    return asyncio.run(run())


def test_a_reply_is_bought_once(tmp_path: Path) -> None:
    path = tmp_path / "replies"
    assert chat(path, Keyed("one", "two", "three"), "a", "b", "a") == ["one", "two", "one"]
    assert chat(path, Keyed("four"), "b", "c", "a") == ["two", "four", "one"]


def test_a_reply_comes_back_as_it_was(tmp_path: Path) -> None:
    reply = ChatReply("é\n", "length", 1, 2, "why", 1, "m-1", ("stop",))
    with ReplyJournal.open(tmp_path / "replies") as journal:
        journal.put("a", reply)
    with ReplyJournal.open(tmp_path / "replies") as journal:
        assert journal.get("a") == reply
        assert (journal.get("b"), len(journal)) == (None, 1)


def test_a_torn_line_costs_its_reply_alone_and_surrogates_none(tmp_path: Path) -> None:
    path = tmp_path / "replies"
    chat(path, Keyed("one", "two\ud800"), "a", "b")
    path.write_bytes(path.read_bytes()[:-20])
    assert chat(path, Keyed("new"), "a", "b") == ["one", "new"]
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(InputError, match=r"line 1.*no reply"):
        chat(path, Keyed("x"), "a")


def test_two_processes_do_not_write_one_journal(tmp_path: Path) -> None:
    with (
        ReplyJournal.open(tmp_path / "replies"),
        pytest.raises(JournalBusyError),
        ReplyJournal.open(tmp_path / "replies"),
    ):
        pass


def test_the_key_is_of_everything_that_determines_a_reply() -> None:
    async def keys() -> list[str]:
        settings = {"here": EndpointSettings(url="http://a/v1"), "there": EndpointSettings(url="http://a/v1")}
        async with open_endpoints(settings, max_in_flight=1) as endpoints:
            base = OpenAIModelSettings(endpoint="here", model="m")
            models = [
                OpenAIChatModel(endpoints["here"], base),
                OpenAIChatModel(endpoints["there"], base),
                *(
                    OpenAIChatModel(endpoints["here"], base.model_copy(update=update))
                    for update in (
                        {"model": "n"},
                        {"revision": "2"},
                        {"quantisation": "int4"},
                        {"thinking": True},
                        {"seed": 2},
                        {"temperature": 1.0},
                        {"request": {"top_p": 0.5}},
                    )
                ),
            ]
            requests = [
                replace(HELLO, **change)
                for change in (
                    {"seed": 1},
                    {"stop": ("x",)},
                    {"max_tokens": 1},
                    {"temperature": 0.5},
                    {"schema": {}},
                    {"messages": (Message("system", "Hello"),)},
                )
            ]
            assert models[0].key(HELLO) == OpenAIChatModel(endpoints["here"], base, "renamed").key(HELLO)
            return [*(model.key(HELLO) for model in models), *(models[0].key(request) for request in requests)]

    found = asyncio.run(keys())
    assert len(set(found)) == len(found)
