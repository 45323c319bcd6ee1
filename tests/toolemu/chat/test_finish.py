"""Why replies end: every reason is one of a few kinds, and none is taken for a whole reply in silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toolemu.chat.server import ChatServer, Refusal
from toolemu.chat import ChatReply, ChatRequest, Message, ModelError
from toolemu.chat import endpoint as endpoint_module
from toolemu.chat.endpoint import open_endpoints
from toolemu.chat.finish import Ending, ending
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings

KINDS = {
    Ending.stop: "stop STOP eos eos_token end_turn endTurn stop_sequence completed COMPLETE FinishReason.STOP "
    "done eot_id",
    Ending.length: "length MAX_TOKENS max_tokens maxTokens max_output_tokens model_length token_limit LENGTH "
    "model_context_window_exceeded FINISH_REASON_MAX_TOKENS",
    Ending.withheld: "content_filter contentFilter SAFETY PROHIBITED_CONTENT RECITATION BLOCKLIST SPII refusal "
    "sensitive IMAGE_SAFETY LANGUAGE guardrail_intervened FinishReason.SAFETY content_filtered blocked",
    Ending.incomplete: "abort aborted error cancelled canceled network_error insufficient_system_resource timeout "
    "MALFORMED_FUNCTION_CALL interrupted",
    Ending.tool_call: "tool_calls function_call tool_use TOOL_CALL UNEXPECTED_TOOL_CALL",
    Ending.missing: "null None FINISH_REASON_UNSPECIFIED",
    Ending.unknown: "OTHER pause_turn whatever 17 FINISH_REASON_UNKNOWN",
}


@pytest.mark.parametrize(("kind", "reason"), [(kind, one) for kind, some in KINDS.items() for one in some.split()])
def test_a_reason_is_known_in_every_servers_spelling(kind: Ending, reason: str) -> None:
    assert ending(reason) is kind


@pytest.mark.parametrize("reason", [None, "", " "])
def test_no_reason_is_none(reason: str | None) -> None:
    assert ending(reason) is Ending.missing


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_anything_is_of_some_kind(reason: object) -> None:
    assert isinstance(ending(reason), Ending)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with pytest.MonkeyPatch.context() as patch, ChatServer(lambda body: "fine") as found:
        patch.setattr(endpoint_module, "FIRST_WAIT_S", 0.001)
        yield found


def answer(
    server: ChatServer, reason: object, text: str | None, **more: Any
) -> tuple[ChatReply | Exception, dict[str, int]]:
    """Return the reply that a completion is, or the exception, and what the endpoint counted."""
    message = {"role": "assistant", "content": text, **more}
    body = json.dumps({"choices": [{"finish_reason": reason, "message": message}]}).encode()
    server.script = lambda _: Refusal(200, body=body)

    async def run() -> tuple[ChatReply | Exception, dict[str, int]]:
        options = EndpointSettings(url=server.url, give_up_after_s=0, max_attempts=2)
        async with open_endpoints({"here": options}, max_in_flight=8) as found:
            chat = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m"))
            try:
                return await chat.chat(ChatRequest((Message("user", "Hello"),))), dict(found["here"].counts)
            except Exception as error:  # noqa: BLE001 - every kind is looked at below
                return error, dict(found["here"].counts)

    return asyncio.run(run())


@settings(max_examples=80, deadline=None)
@given(
    reason=st.sampled_from([one for some in KINDS.values() for one in some.split()]) | st.none() | st.text(max_size=60),
    text=st.sampled_from(["Final Answer: Yes.", "", None]),
)
def test_only_a_known_ending_is_a_whole_reply_without_a_note(reason: str | None, text: str | None) -> None:
    with pytest.MonkeyPatch.context() as patch, ChatServer(lambda body: "fine") as server:
        patch.setattr(endpoint_module, "FIRST_WAIT_S", 0.001)
        reply, counts = answer(server, reason, text)
    kind = ending(reason)
    noted = isinstance(reply, ChatReply) and [name for name in reply.ignored if name.startswith("finish_reason")]
    if kind is Ending.incomplete or (kind is Ending.missing and not text):
        assert isinstance(reply, Exception) and counts["failed_malformed"]
    elif kind in (Ending.withheld, Ending.unknown) and not text:
        assert isinstance(reply, ModelError) and counts[f"finish_{kind}"] == 1
    else:
        assert isinstance(reply, ChatReply) and reply.text == (text or "")
        assert (reply.finish_reason == "length") is (kind in (Ending.length, Ending.withheld))
        assert bool(noted) is (kind not in (Ending.stop, Ending.length))


def test_a_note_says_the_servers_own_word(server: ChatServer) -> None:
    reply, counts = answer(server, "pause_turn", "Wait.")
    assert isinstance(reply, ChatReply) and "finish_reason=pause_turn" in reply.ignored
    assert counts["finish_unknown"] == 1


def test_what_a_filter_let_through_is_cut_off(server: ChatServer) -> None:
    reply, _ = answer(server, "SAFETY", "Once upon a")
    assert isinstance(reply, ChatReply) and (reply.text, reply.finish_reason) == ("Once upon a", "length")


def test_a_reply_that_the_server_took_for_a_call_is_noted(server: ChatServer) -> None:
    reply, _ = answer(server, "tool_calls", None, tool_calls=[{"function": {"name": "x", "arguments": "{}"}}])
    assert isinstance(reply, ChatReply) and "finish_reason=tool_calls" in reply.ignored
