"""JSON at the border: what goes out is valid, what comes in is repaired or refused, and nothing is a traceback."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.toolemu.chat.server import ChatServer, Refusal
from toolemu.chat import ChatReply, ChatRequest, Message, codec
from toolemu.chat.endpoint import open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.replies import JournaledChatModel, ReplyJournal
from toolemu.chat.settings import EndpointSettings, ModelOptions, OpenAIModelSettings

HALF = "half a pair: \ud83d, and more"
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(0, 99), inner, max_size=4)
    ),
    max_leaves=15,
)
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=30)


def ask(server: ChatServer, folder: Path, text: str, **model: Any) -> ChatReply:
    async def run() -> ChatReply:
        options = EndpointSettings(url=server.url, give_up_after_s=2, max_attempts=2)
        async with open_endpoints({"here": options}, max_in_flight=8) as found:
            chat = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m", **model))
            with ReplyJournal.open(folder / "replies.jsonl") as journal:
                kept = JournaledChatModel(chat, journal)
                reply = await kept.chat(ChatRequest((Message("user", text),)))
                assert await kept.chat(ChatRequest((Message("user", text),))) == reply, "it is kept as it was read"
                return reply

    return asyncio.run(run())


def test_half_a_surrogate_pair_in_a_prompt_is_sent_repaired(tmp_path: Path) -> None:
    with ChatServer(lambda body: "fine") as server:
        assert ask(server, tmp_path, HALF).text == "fine"
    assert server.requests[0]["messages"][0]["content"] == "half a pair: ?, and more"


COMPLETION = {
    "choices": [{"finish_reason": "stop", "message": {"content": "TEXT"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}
WRITTEN = json.dumps(COMPLETION)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (WRITTEN.replace("TEXT", "half \\ud83d").encode(), "half ?"),
        (WRITTEN.encode().replace(b"TEXT", b"caf\xe9"), "caf\ufffd"),
        (b"\xef\xbb\xbf" + WRITTEN.encode(), "TEXT"),
        (WRITTEN.replace("TEXT", "über").encode("utf-16"), "über"),
        (WRITTEN.replace("TEXT", "line\nline\ttab\x01").encode(), "line\nline\ttab\x01"),
        (WRITTEN.replace(": 2", ": NaN").encode(), "TEXT"),
        (WRITTEN.replace(": 1", ": -Infinity").encode(), "TEXT"),
    ],
    ids=["surrogate", "latin-1", "bom", "utf-16", "control characters", "nan", "infinity"],
)
def test_a_reply_that_is_nearly_json_is_read_at_once(tmp_path: Path, body: bytes, text: str) -> None:
    with ChatServer(lambda _: Refusal(200, body=body)) as server:
        assert ask(server, tmp_path, "Hello").text == text
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "many", "completion_tokens": 2},
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 1, "completion_tokens": 10**30},
        {"prompt_tokens": None, "completion_tokens": [2]},
        {"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": []},
        {"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": "few"}},
    ],
)
def test_counts_that_are_none_are_estimated(tmp_path: Path, usage: dict[str, Any]) -> None:
    body = json.dumps({**COMPLETION, "usage": usage}).encode()
    with ChatServer(lambda _: Refusal(200, body=body)) as server:
        reply = ask(server, tmp_path, "Hello")
    assert reply.prompt_tokens == 1 and 1 <= reply.completion_tokens <= 2 and reply.reasoning_tokens == 0
    assert ("usage" in reply.ignored) is ("completion_tokens_details" not in usage)


@settings(max_examples=200)
@given(ANY | ANYTHING)
def test_whatever_is_json_goes_out_and_comes_in_the_same(value: object) -> None:
    sent = codec.dump(value)
    assert codec.load(sent).value == orjson.loads(sent)


@settings(max_examples=200)
@given(ANYTHING)
def test_any_text_is_repaired_in_the_same_way_whichever_way_it_comes(text: str) -> None:
    assert codec.load(json.dumps(text).encode()).value == codec.load(codec.dump(text)).value


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda noise: WRITTEN.encode()[:40] + noise + b'"}}]}'))
def test_any_bytes_are_json_or_a_value_error(body: bytes) -> None:
    try:
        value = codec.load(body).value
    except ValueError:
        return
    assert codec.dump(value), "what was read can be written"


def test_what_is_nested_too_deeply_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"deep|recursion|nested"):
        codec.load(b"\xef\xbb\xbf" + b"[" * 100_000 + b"]" * 100_000)


@settings(max_examples=100)
@given(st.dictionaries(st.text(max_size=5), ANY, max_size=3))
def test_fields_of_requests_are_kept_as_json_has_them(fields: dict[str, Any]) -> None:
    options = ModelOptions(chat_template=fields)
    assert orjson.loads(orjson.dumps(options.chat_template)) == json.loads(codec.dump(fields))


def test_integer_keys_are_sent_as_text(tmp_path: Path) -> None:
    with ChatServer(lambda body: "fine") as server:
        ask(server, tmp_path, "Hello", request={"logit_bias": {50256: -100}})
    assert server.requests[0]["logit_bias"] == {"50256": -100}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"top_p": float("nan")}, "top_p"),
        ({"a": {"b": [1, float("inf")]}}, "a.b.1"),
        ({"logit_bias": {True: 1}}, "logit_bias"),
        ({"logit_bias": {1.5: 1}}, "logit_bias"),
        ({"logit_bias": {1: 1, "1": 2}}, "logit_bias"),
        ({"a": 2**70}, "a"),
        ({"a": {1, 2}}, "a"),
        ({"since": datetime.date(2026, 1, 2)}, "since"),
    ],
)
@pytest.mark.parametrize("field", ["request", "chat_template"])
def test_a_field_that_no_request_can_hold_is_named(fields: dict[str, Any], place: str, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelOptions.model_validate({field: fields})
    (error,) = caught.value.errors()
    assert error["loc"] == (field,) and place in error["msg"]


def test_a_field_that_holds_itself_is_named() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(ValidationError, match="again"):
        ModelOptions.model_validate({"request": loop})
