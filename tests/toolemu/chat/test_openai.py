"""The backend against a real server: what it sends, what it makes of the answers, what it does when there are none."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.toolemu.chat.server import Answer, ChatServer, Fault, Refusal, Say, Script
from toolemu.chat import ChatReply, ChatRequest, ContextFullError, Message, ModelError
from toolemu.chat import endpoint as endpoint_module
from toolemu.chat.endpoint import EndpointError, open_endpoints
from toolemu.chat.openai import GO_ON, OpenAIChatModel
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.errors import FrontierError

HELLO = ChatRequest((Message("user", "Hello"),), seed=7)
KEY = "sk-a-secret-that-nobody-sees"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT_S", 0.01)


def ask(
    server: ChatServer, /, *requests: ChatRequest, endpoint: dict[str, Any] | None = None, **model: Any
) -> list[ChatReply | BaseException]:
    """Sends requests at once and returns what came of them."""
    settings = {"url": server.url, "timeout_s": 5, "give_up_after_s": 5, **(endpoint or {})}

    async def run() -> list[ChatReply | BaseException]:
        async with open_endpoints({"here": EndpointSettings.model_validate(settings)}, max_in_flight=100) as found:
            chat = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m", **model))
            return await asyncio.gather(*(chat.chat(request) for request in requests), return_exceptions=True)

    return asyncio.run(run())


def ask_one(server: ChatServer, request: ChatRequest = HELLO, /, **options: Any) -> ChatReply:
    (reply,) = ask(server, request, **options)
    if isinstance(reply, BaseException):
        raise reply
    return reply


def once(*answers: Answer, then: Answer = "fine") -> Script:
    """Gives these answers first, and `then` for ever."""
    left: Iterator[Answer] = iter(answers)
    return lambda body: next(left, then)


def test_a_request_says_what_is_wanted_and_the_reply_what_was_had() -> None:
    schema = {"type": "object"}
    with ChatServer(lambda body: Say("fine indeed", model="m-2026-01-01")) as server:
        request = ChatRequest(HELLO.messages, ("\nStop",), max_tokens=9, temperature=0.5, seed=7, schema=schema)
        reply = ask_one(server, request, thinking=False, chat_template={"a": 1}, request={"top_p": 0.9}, seed=1)
    assert reply == ChatReply("fine indeed", "stop", 1, 2, model="m-2026-01-01")
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 0.5,
            "seed": 8,
            "max_tokens": 9,
            "stop": ["\nStop"],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": schema},
            },
            "chat_template_kwargs": {"a": 1, "enable_thinking": False},
            "top_p": 0.9,
        }
    ]


@pytest.mark.parametrize(
    ("say", "text", "reasoning"),
    [
        (Say("yes", reasoning="well"), "yes", "well"),
        (Say("yes", reasoning="well", reasoning_field="reasoning"), "yes", "well"),
        (Say("<think>\nwell\n</think>\n\nyes"), "yes", "well"),
        (Say("well</think>yes"), "yes", "well"),
        (Say("<think>wel", finish_reason="length"), "", "wel"),
        (Say(None, reasoning="wel", finish_reason="length"), "", "wel"),
        (Say(" yes\n"), " yes\n", ""),
    ],
)
def test_reasoning_is_told_apart_however_it_comes(say: Say, text: str, reasoning: str) -> None:
    with ChatServer(lambda body: say) as server:
        reply = ask_one(server)
    assert (reply.text, reply.reasoning, reply.finish_reason) == (text, reasoning, say.finish_reason)


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "text", "text": "I w"}, "?", {"type": "text", "text": "ould not."}]},
        {"content": None, "refusal": "I would not."},
    ],
    ids=["in parts", "a refusal"],
)
def test_a_reply_is_read_in_whatever_form_it_comes(message: dict[str, Any]) -> None:
    answer = {"choices": [{"message": message, "finish_reason": "stop"}]}
    with ChatServer(lambda body: Refusal(200, body=json.dumps(answer).encode())) as server:
        assert ask_one(server).text == "I would not."


def test_thinking_that_only_the_template_opened_and_nobody_closed_is_no_answer() -> None:
    with ChatServer(lambda body: Say("Final Answer: perhaps", finish_reason="length")) as server:
        reply = ask_one(server, thinking=True)
        assert (reply.text, reply.reasoning) == ("", "Final Answer: perhaps")
        assert ask_one(server).text == "Final Answer: perhaps"


@pytest.mark.parametrize(
    ("asked", "thought", "noted"),
    [
        (True, "well", ()),
        (True, None, ("thinking",)),
        (False, "well", ("thinking",)),
        (False, None, ()),
        (None, "well", ()),
        (None, None, ()),
    ],
)
def test_whether_a_model_thought_is_noted_where_it_was_told(
    asked: bool | None, thought: str | None, noted: tuple[str, ...]
) -> None:
    with ChatServer(lambda body: Say("yes", reasoning=thought)) as server:
        assert ask_one(server, thinking=asked).ignored == noted


def test_stops_are_kept_where_the_server_ignores_them() -> None:
    request = ChatRequest(HELLO.messages, ("\nObservation:",))
    with ChatServer(lambda body: "act\nObservation: mine") as server:
        reply = ask_one(server, request)
        assert (reply.text, reply.ignored) == ("act", ("stop",))
        thinking = ask_one(server, request, thinking=True)
    assert (thinking.text, thinking.ignored) == ("act", ("thinking",)), "there was no stop to ignore, and no thought"
    assert "stop" not in server.requests[1]


@pytest.mark.parametrize(
    ("thinking", "server_stop", "sent"),
    [(None, None, True), (None, False, False), (True, None, False), (True, True, True)],
)
def test_stops_are_left_to_the_server_where_that_is_right(
    thinking: bool | None, server_stop: bool | None, sent: bool
) -> None:
    with ChatServer(lambda body: "act\nObservation: mine") as server:
        reply = ask_one(
            server, ChatRequest(HELLO.messages, ("\nObservation:",)), thinking=thinking, server_stop=server_stop
        )
    assert reply.text == "act"
    assert ("stop" in server.requests[0]) is sent


def test_a_seed_is_one_that_servers_take() -> None:
    with ChatServer(lambda body: "fine") as server:
        ask_one(server, ChatRequest(HELLO.messages, seed=2**31 - 1), seed=3)
    assert server.requests[0]["seed"] == 2


def test_a_reply_that_a_filter_withheld_is_none_and_one_that_it_cut_is_one() -> None:
    with ChatServer(lambda body: Say(None, finish_reason="content_filter")) as server:
        with pytest.raises(ModelError, match="content filter withheld"):
            ask_one(server)
        server.script = lambda body: Say("Once", finish_reason="content_filter")
        assert ask_one(server).text == "Once"


def test_no_more_stops_are_sent_than_servers_take_and_all_are_kept() -> None:
    request = ChatRequest(HELLO.messages, tuple("ABCDEF"))
    with ChatServer(lambda body: "xyF") as server:
        assert ask_one(server, request).text == "xy"
    assert server.requests[0]["stop"] == list("ABCD")


def test_the_smaller_of_two_limits_of_tokens_is_asked_for() -> None:
    with ChatServer(lambda body: "fine") as server:
        for most in (9, 5000):
            ask_one(server, ChatRequest(HELLO.messages, max_tokens=100), max_tokens=most)
    assert [body["max_tokens"] for body in server.requests] == [9, 100]


def test_what_a_server_refuses_is_left_out_from_then_on_and_noted() -> None:
    def script(body: dict[str, Any]) -> Answer:
        if "max_tokens" in body:
            text = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return Refusal(400, text, "max_tokens", "unsupported_parameter")
        if body.get("temperature") == 0:
            return Refusal(400, "'temperature' does not support 0 with this model.", "temperature", "unsupported_value")
        if "stop" in body:
            return Refusal(400, "'stop' is not supported with this model.", "stop", "unsupported_parameter")
        return "fine"

    with ChatServer(script) as server:
        replies = ask(server, HELLO, ChatRequest(HELLO.messages, ("x",)), endpoint={"max_in_flight": 1})
    assert all(isinstance(reply, ChatReply) and reply.text == "fine" for reply in replies)
    assert [reply.ignored for reply in replies if isinstance(reply, ChatReply)] == [
        ("temperature",),
        ("stop", "temperature"),
    ]
    # Three refusals teach everything; the second request was made up before the first had learned its two.
    assert len(server.requests) == 7
    assert server.requests[-1]["max_completion_tokens"] == 2048


def test_what_a_request_did_not_ask_for_was_not_ignored_in_it() -> None:
    with_stop = ChatRequest(HELLO.messages, ("x",))
    refusal = Refusal(400, "'stop' is not supported with this model.", "stop", "unsupported_parameter")

    async def run(url: str) -> list[tuple[str, ...]]:
        async with open_endpoints({"here": EndpointSettings(url=url)}, max_in_flight=1) as found:
            chat = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m"))
            return [(await chat.chat(request)).ignored for request in (HELLO, with_stop, HELLO)]

    with ChatServer(lambda body: refusal if "stop" in body else "fine") as server:
        assert asyncio.run(run(server.url)) == [(), ("stop",), ()]
    assert len(server.requests) == 4


def test_a_server_without_schemas_is_asked_without() -> None:
    request = ChatRequest(HELLO.messages, schema={"type": "object"})
    refusal = Refusal(400, "response_format json_schema is not supported", "response_format")
    with ChatServer(lambda body: refusal if "response_format" in body else "text") as server:
        assert ask_one(server, request).ignored == ("response_format",)
        before = len(server.requests)
        assert ask_one(server, request, structured=False).ignored == ("response_format",)
    assert len(server.requests) == before + 1, "there was nothing to refuse"


def test_a_message_is_continued_or_asked_for_in_words() -> None:
    begun = ChatRequest((*HELLO.messages, Message("assistant", "Once upon")))
    with ChatServer(lambda body: " a time") as server:
        ask_one(server, begun, endpoint={"continues": True})
        ask_one(server, begun)
        thinking = ChatRequest((*HELLO.messages, Message("assistant", "<think>hm")))
        assert ask_one(server, thinking).text == "\n</think>\n a time"
    assert server.requests[0]["continue_final_message"] is True
    assert server.requests[0]["messages"][-1]["content"] == "Once upon"
    assert [message["content"] for message in server.requests[1]["messages"]] == ["Hello", "Once upon", GO_ON]
    assert [message["content"] for message in server.requests[2]["messages"]] == ["Hello"]


def test_a_full_context_is_told_from_a_limit_that_is_too_high() -> None:
    def script(body: dict[str, Any]) -> Answer:
        text = "This model's maximum context length is 100 tokens and your request has {} input tokens. "
        text += "Lower max_tokens or max_completion_tokens."
        if len(body["messages"][0]["content"]) > 10:
            return Refusal(400, text.format(120))
        return "fine" if body["max_tokens"] <= 40 else Refusal(400, text.format(60), "max_tokens")

    with ChatServer(script) as server:
        assert ask_one(server).text == "fine"
        assert server.requests[-1]["max_tokens"] == 40
        with pytest.raises(ContextFullError):
            ask_one(server, ChatRequest((Message("user", "far too long a text"),)))


def test_a_model_that_writes_no_more_than_so_much_is_asked_for_that() -> None:
    text = "max_tokens is too large: 2048. This model supports at most 50 completion tokens, whereas you provided 2048."
    with ChatServer(lambda body: "fine" if body["max_tokens"] <= 50 else Refusal(400, text, "max_tokens")) as server:
        assert ask_one(server).text == "fine"
    assert [body["max_tokens"] for body in server.requests] == [2048, 50]


def test_a_refused_request_is_the_requests_own_fault() -> None:
    with ChatServer(once(Refusal(400, "I do not talk about that."))) as server:
        refused, answered = ask(server, HELLO, HELLO, endpoint={"max_in_flight": 1})
    assert isinstance(refused, ModelError) and "do not talk" in str(refused)
    assert isinstance(answered, ChatReply)


@pytest.mark.parametrize("fault", list(Fault))
def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    with ChatServer(once(fault, fault)) as server:
        reply = ask_one(server, endpoint={"timeout_s": 0.3})
    assert reply.text == "fine"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("header", "value", "least"),
    [("retry-after", "0.4", 0.4), ("retry-after-ms", "400", 0.4), ("retry-after", "in two seconds", 1.0)],
)
def test_retry_after_is_honoured(header: str, value: str, least: float) -> None:
    if least == 1.0:  # dates have no fractions of a second
        value = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with ChatServer(once(Refusal(429, "wait", headers=((header, value),)))) as server:
        started = time.monotonic()
        ask_one(server)
        assert time.monotonic() - started >= least


def test_a_server_that_asks_to_wait_for_hours_is_given_up_in_the_time_that_was_set() -> None:
    later = Refusal(503, "later", headers=(("retry-after", "7200"),))
    with ChatServer(lambda body: later) as server, pytest.raises(EndpointError, match="answered nothing usable"):
        ask_one(server, endpoint={"give_up_after_s": 0.5})


def test_waits_between_attempts_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT_S", 0.05)
    with ChatServer(lambda body: Fault.http_500) as server, pytest.raises(EndpointError):
        ask_one(server, endpoint={"give_up_after_s": 1})
    assert len(server.requests) < 15, "at 0.05 s each there would be 20 and more"


@pytest.mark.parametrize(
    ("answer", "limit"),
    [(Fault.hang, 7), (Refusal(429), 7), (Refusal(503), 7), (Refusal(529), 7), (Refusal(500), 10), ("slow", 9)],
)
def test_what_says_that_a_server_has_too_much_to_do_lowers_its_limit(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, limit: int
) -> None:
    seen = []

    async def run(url: str) -> None:
        settings = EndpointSettings(url=url, max_in_flight=10, timeout_s=1 if answer is Fault.hang else 60)
        async with open_endpoints({"here": settings}, max_in_flight=100) as found:
            model = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m"))
            for _ in range(21):
                await model.chat(HELLO)
                seen.append(found["here"].limit)
                monkeypatch.setattr(endpoint_module, "SLOW_SHARE", 0.5)

    monkeypatch.setattr(endpoint_module, "SLOW_SHARE", 0.0 if answer == "slow" else 0.5)
    with ChatServer(once(answer)) as server:
        asyncio.run(run(server.url))
    assert seen[0] == limit
    assert seen[-1] == min(limit + 2, 10), "answers raise it again"


def test_a_429_lowers_the_number_of_requests_at_once() -> None:
    def script(body: dict[str, Any]) -> Answer:
        return Fault.http_429 if server._under_way > 8 else "fine"

    with ChatServer(script, latency=0.01) as server:
        requests = [ChatRequest((Message("user", str(number)),)) for number in range(100)]
        replies = ask(server, *requests, endpoint={"max_in_flight": 64})
    assert all(isinstance(reply, ChatReply) for reply in replies)
    assert server.most > 32
    assert len(server.requests) < 400


def test_no_more_requests_than_allowed_are_under_way() -> None:
    with ChatServer(lambda body: "fine", latency=0.02) as server:
        requests = [ChatRequest((Message("user", str(number)),)) for number in range(40)]
        ask(server, *requests, endpoint={"max_in_flight": 7})
    assert server.most == 7


def test_hundreds_of_requests_are_under_way_where_that_is_allowed() -> None:
    async def run(url: str) -> None:
        settings = EndpointSettings(url=url, max_in_flight=150)
        async with open_endpoints({"here": settings}, max_in_flight=500) as found:
            model = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m"))
            await asyncio.gather(*(model.chat(HELLO) for _ in range(150)))

    with ChatServer(lambda body: "fine", latency=1.0) as server:
        asyncio.run(run(server.url))
    assert server.most > 100, "a client's own pool of connections is mostly of 100"


def test_a_request_that_always_fails_is_given_up_while_others_go_on() -> None:
    def script(body: dict[str, Any]) -> Answer:
        return Fault.http_500 if body["messages"][0]["content"] == "poison" else "fine"

    poison = ChatRequest((Message("user", "poison"),))
    with ChatServer(script) as server:
        first, second = ask(server, poison, HELLO, endpoint={"max_attempts": 3})
        (alone,) = ask(server, poison, endpoint={"max_attempts": 3})
    assert isinstance(first, ModelError) and "failed 3 times" in str(first)
    assert isinstance(second, ChatReply)
    assert isinstance(alone, ModelError)


def test_a_request_that_always_hangs_is_the_last_and_ends_alone() -> None:
    def script(body: dict[str, Any]) -> Answer:
        return Fault.hang if body["messages"][0]["content"] == "poison" else "fine"

    poison = ChatRequest((Message("user", "poison"),))
    patience = {"timeout_s": 1, "give_up_after_s": 1, "max_attempts": 2, "max_in_flight": 2}
    with ChatServer(script) as server:
        found = ask(server, *[poison] * 5, endpoint=patience)
    assert all(isinstance(reply, ModelError) and "failed 2 times" in str(reply) for reply in found)
    assert {body.get("model") for body in server.requests} == {"m"}, "also of what is asked to see whether it lives"


def test_a_server_that_hangs_is_an_error_within_the_time_that_was_set() -> None:
    started = time.monotonic()
    with ChatServer(lambda body: Fault.hang) as server, pytest.raises(EndpointError, match="answered nothing usable"):
        ask_one(server, endpoint={"timeout_s": 0.3, "give_up_after_s": 1})
    assert 1 <= time.monotonic() - started < 4


def test_a_request_that_is_refused_for_what_is_in_it_ends_alone() -> None:
    flagged = Refusal(403, "The model requires moderation and your input was flagged.")
    with ChatServer(lambda body: flagged if body["messages"][0]["content"] == "poison" else "fine") as server:
        first, second = ask(server, ChatRequest((Message("user", "poison"),)), HELLO)
    assert isinstance(first, ModelError) and "was flagged" in str(first)
    assert isinstance(second, ChatReply)


def test_endpoints_together_keep_to_the_limit_over_all() -> None:
    async def run(url: str) -> None:
        settings = {name: EndpointSettings(url=url) for name in ("one", "other")}
        async with open_endpoints(settings, max_in_flight=6, sharing=lambda: 2) as found:
            models = [OpenAIChatModel(found[name], OpenAIModelSettings(endpoint=name, model="m")) for name in found]
            await asyncio.gather(*(model.chat(HELLO) for model in models for _ in range(8)))

    with ChatServer(lambda body: "fine", latency=0.02) as server:
        asyncio.run(run(server.url))
    assert server.most == 3


def test_who_is_left_alone_at_an_endpoint_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "SHARE_EVERY_S", 0.01)
    processes, seen = [4], []

    async def run(url: str, server: ChatServer) -> None:
        settings = {"here": EndpointSettings(url=url, max_in_flight=8)}
        async with open_endpoints(settings, max_in_flight=500, sharing=lambda: processes[0]) as found:
            model = OpenAIChatModel(found["here"], OpenAIModelSettings(endpoint="here", model="m"))
            for sharing in (4, 1):
                processes[0] = sharing
                await asyncio.sleep(0.1)
                await asyncio.gather(*(model.chat(HELLO) for _ in range(20)))
                seen.append(server.most)

    with ChatServer(lambda body: "fine", latency=0.02) as server:
        asyncio.run(run(server.url, server))
    assert seen == [2, 8]


def test_a_dead_server_is_an_error_within_the_time_that_was_set() -> None:
    with ChatServer(lambda body: "fine") as server:
        pass
    started = time.monotonic()
    with pytest.raises(EndpointError, match=r"here .*has answered nothing usable for .*run again"):
        ask_one(server, endpoint={"give_up_after_s": 1})
    assert 1 <= time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (Refusal(401, f"Incorrect API key: {KEY}"), "refuses the key.*TEST_KEY"),
        (Refusal(403, "Forbidden"), "refuses the key.*TEST_KEY"),
        (Refusal(404, "The model `m` does not exist."), "model `m` does not exist"),
        (Refusal(429, "pay", code="insufficient_quota"), "no credit"),
        (
            Refusal(302, headers=(("location", "https://else.where/v1"),)),
            "elsewhere .*to 'https://else.where/v1'.*`url`",
        ),
        (Refusal(307, headers=(("location", "/v1/chat/completions/"),)), "elsewhere .*to '/v1/chat/completions/'"),
    ],
)
def test_what_waiting_cannot_mend_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, refusal: Refusal, message: str
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with ChatServer(lambda body: refusal) as server, pytest.raises(EndpointError, match=message) as caught:
        ask_one(server, endpoint={"key": "TEST_KEY"})
    assert len(server.requests) == 1
    assert KEY not in str(caught.value)


def test_the_key_comes_from_environment_or_file_and_goes_to_the_server_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    with ChatServer(once(Refusal(500, f"I saw {KEY}"))) as server:
        with pytest.raises(FrontierError, match=r"Endpoint here needs a key, and TEST_KEY is not set.*\.env"):
            ask_one(server, endpoint={"key": "TEST_KEY"})
        (tmp_path / ".env").write_text(f"TEST_KEY={KEY}\n")
        ask_one(server, endpoint={"key": "TEST_KEY"})
        monkeypatch.setenv("TEST_KEY", "another-key")
        ask_one(server, endpoint={"key": "TEST_KEY"})
        ask_one(server)
    sent = [headers["authorization"] for headers in server.headers]
    assert sent == [f"Bearer {KEY}", f"Bearer {KEY}", "Bearer another-key", "Bearer none"]
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", [f"{KEY}\nX-More: 1", f"{KEY} {KEY}", f"{KEY}\x7f"])
def test_a_key_that_goes_into_no_header_is_told_and_not_repeated(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    with ChatServer(lambda body: "fine") as server, pytest.raises(FrontierError, match="TEST_KEY holds") as caught:
        ask_one(server, endpoint={"key": "TEST_KEY"})
    assert KEY not in str(caught.value) and not server.requests


def test_a_proxy_of_the_environment_is_used_but_not_for_hosts_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = {"url": "http://beyond.invalid/v1"}
    with ChatServer(lambda body: "from here") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "localhost")
        assert ask_one(proxy, endpoint=beyond).text == "from here"
        assert proxy.headers[0]["host"] == "beyond.invalid"
        monkeypatch.setenv("no_proxy", "localhost,beyond.invalid")
        with pytest.raises(EndpointError, match="has answered nothing"):
            ask_one(proxy, endpoint={**beyond, "give_up_after_s": 0.1})
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "too hot"}}', "HTTP 422: too hot"),
        (b'{"error": "too hot"}', "HTTP 422: too hot"),
        (b'{"message": "too hot"}', "HTTP 422: too hot"),
        (b'["too hot"]', r'HTTP 422: ."too hot".'),
        (b"too hot \xff", "HTTP 422: too hot"),
    ],
)
def test_a_refusal_is_quoted_whatever_its_form(body: bytes, message: str) -> None:
    with ChatServer(lambda _: Refusal(422, body=body)) as server, pytest.raises(ModelError, match=message):
        ask_one(server)


def test_tokens_are_estimated_where_the_server_does_not_count() -> None:
    with ChatServer(lambda body: Say("12345678", usage=False)) as server:
        reply = ask_one(server)
    assert (reply.completion_tokens, reply.ignored) == (2, ("usage",))
