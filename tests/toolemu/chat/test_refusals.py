"""Refusals in the words of many servers: which field, the account, the model, the room in the context."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.toolemu.chat.server import Answer, ChatServer, Refusal, Script
from toolemu.chat import ChatReply, ChatRequest, ContextFullError, Message, ModelError
from toolemu.chat import endpoint as endpoint_module
from toolemu.chat.endpoint import EndpointError, open_endpoints
from toolemu.chat.negotiation import MOST_REQUESTS
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.protocol import fold_system
from toolemu.chat.refusals import read_told
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings

WHOLE = ChatRequest(
    (Message("system", "You switch lamps."), Message("user", "Lamp 3.")),
    stop=("\nObservation:",),
    max_tokens=2048,
    temperature=0.7,
    seed=7,
    schema={"type": "object", "properties": {"score": {"type": "integer"}}},
)
OPTIONS: dict[str, Any] = {
    "chat_template": {"date": "today"},
    "request": {"top_p": 0.9, "reasoning_effort": "low", "logprobs": True},
}
SPELLINGS = {
    "temperature": ["temperature", "`temperature`", "Temperature", "sampling temperature"],
    "seed": ["'seed'", "`seed`", "random_seed", '"seed"'],
    "stop": ["'stop'", "stop sequences", "stopSequences", "`stop`", "stop_words"],
    "response_format": [
        "response_format",
        "response format",
        "responseFormat",
        "json_schema",
        "JSON schema",
        "structured outputs",
        "Structured output",
        "response_schema",
        "JSON mode",
    ],
    "chat_template_kwargs": ["chat_template_kwargs", "chat template kwargs"],
    "top_p": ["top_p", "topP", "top-p"],
    "reasoning_effort": ["reasoning_effort", "reasoning effort"],
    "logprobs": ["logprobs", "`logprobs`"],
    "system": ["System role", "system messages", "the role 'system'", "system prompt", "Developer instruction"],
    "max_tokens": ["max_tokens", "maxTokens", "`max_tokens`", "max output tokens"],
}
SAYINGS = [
    "{} is unavailable now",
    "we do not take {}",
    "{} must not be given",
    "{}: extra inputs are not permitted",
    "this engine declines {}",
    "{} was withdrawn in the last release",
    "Sorry, no {} on this plan",
    "unable to honour {}",
    "{} ist nicht erlaubt",
    "the value of {} cannot be used",
]


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint_module, "FIRST_WAIT_S", 0.01)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda body: "fine") as found:
        yield found


def ask(server: ChatServer, script: Script, *requests: ChatRequest, **model: Any) -> list[ChatReply | Exception]:
    """Ask one after the other and return what came of it; `server.requests` has these requests alone."""
    server.script = script
    server.requests.clear()

    async def run() -> list[ChatReply | Exception]:
        options = {"url": server.url, "timeout_s": 5, "give_up_after_s": 0.5, "max_attempts": 3}
        found: list[ChatReply | Exception] = []
        async with open_endpoints({"here": EndpointSettings.model_validate(options)}, max_in_flight=8) as endpoints:
            chat = OpenAIChatModel(endpoints["here"], OpenAIModelSettings(endpoint="here", model="m", **model))
            for request in requests:
                try:
                    found.append(await chat.chat(request))
                except (EndpointError, ModelError, ContextFullError) as error:
                    found.append(error)
        return found

    return asyncio.run(run())


def has(body: dict[str, Any], field: str) -> bool:
    if field == "system":
        return any(message["role"] == "system" for message in body["messages"])
    return field in body


def error_body(form: str, message: str, field: str) -> bytes:
    """Return an error as different servers write it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    forms: dict[str, Any] = {
        "openai": {"error": error},
        "parameter": {"error": {**error, "param": field, "code": "unsupported_value"}},
        "list": [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}],
        "string": {"error": message},
        "object": {"object": "error", "message": message, "type": "BadRequestError", "code": 400},
        "router": {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {"raw": json.dumps({"error": {"message": message}}), "provider_name": "X"},
            }
        },
    }
    return message.encode() if form == "text" else json.dumps(forms[form]).encode()


@st.composite
def refusals(draw: st.DrawFn) -> tuple[str, Refusal]:
    """Draw a field, and a refusal that names it in some spelling, verb, form and status."""
    field = draw(st.sampled_from(sorted(SPELLINGS)))
    message = draw(st.sampled_from(SAYINGS)).format(draw(st.sampled_from(SPELLINGS[field])))
    form = draw(st.sampled_from(["openai", "list", "string", "object", "router", "text", "parameter"]))
    if form == "parameter" and field == "system":
        form = "openai"
    status = draw(st.sampled_from([400, 400, 403, 404, 405, 415, 422, 500, 501]))
    return field, Refusal(status, body=error_body(form, message, field))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(refusals())
def test_a_field_that_a_refusal_names_is_left_out_of_the_next_request_and_noted(
    server: ChatServer, found: tuple[str, Refusal]
) -> None:
    field, refusal = found
    replies = ask(server, lambda body: refusal if has(body, field) else "fine", WHOLE, WHOLE, **OPTIONS)
    assert [reply.text for reply in replies if isinstance(reply, ChatReply)] == ["fine", "fine"], replies
    first, second, third = server.requests
    assert has(first, field) and not has(second, field) and second == third
    others = {name for name in first if name not in (field, "messages")}
    assert others <= second.keys(), "nothing else is left out"
    noted = () if field == "max_tokens" else (field,)
    assert all(isinstance(reply, ChatReply) and reply.ignored == noted for reply in replies)


def test_a_limit_is_named_otherwise_and_left_out_only_if_that_is_refused_too(server: ChatServer) -> None:
    limits = {"max_tokens", "max_completion_tokens"}
    refusal = Refusal(400, "This engine knows no max_tokens and no max_completion_tokens.")
    (reply,) = ask(server, lambda body: refusal if limits & body.keys() else "fine", WHOLE)
    assert isinstance(reply, ChatReply) and reply.ignored == ("max_tokens",)
    assert not limits & server.requests[-1].keys()


def test_a_system_prompt_that_is_refused_goes_before_the_first_user_message(server: ChatServer) -> None:
    words = "Conversation roles must alternate user/assistant/user/assistant/..."
    (reply,) = ask(server, lambda body: Refusal(400, words) if has(body, "system") else "fine", WHOLE)
    assert isinstance(reply, ChatReply) and reply.ignored == ("system",)
    assert server.requests[-1]["messages"] == [{"role": "user", "content": "You switch lamps.\n\nLamp 3."}]


@pytest.mark.parametrize(
    ("roles", "folded"),
    [
        ("su", [("user", "s\n\nu")]),
        ("sua", [("user", "s\n\nu"), ("assistant", "a")]),
        ("s", [("user", "s")]),
        ("sa", [("user", "s"), ("assistant", "a")]),
        ("ua", [("user", "u"), ("assistant", "a")]),
    ],
)
def test_messages_are_folded_without_losing_any(roles: str, folded: list[tuple[str, str]]) -> None:
    names: dict[str, Any] = {"s": "system", "u": "user", "a": "assistant"}
    assert fold_system([Message(names[role], role) for role in roles]) == tuple(Message(*one) for one in folded)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        "Please stop asking about the temperature and the system role.",
        "I will not write a JSON schema for that seed.",
        "No.",
        "You must provide another text for this model",
        "Your text was flagged: it speaks of `temperature`.",
    ],
)
def test_a_refusal_of_the_text_ends_its_request_and_teaches_nothing(server: ChatServer, words: str) -> None:
    def script(body: dict[str, Any]) -> Answer:
        return Refusal(400, words) if "poison" in str(body["messages"]) else "fine"

    poison = ChatRequest((*WHOLE.messages, Message("user", "poison")), WHOLE.stop, schema=WHOLE.schema)
    refused, answered = ask(server, script, poison, WHOLE)
    assert isinstance(refused, ModelError) and words[:20] in str(refused)
    assert isinstance(answered, ChatReply) and answered.ignored == ()


def test_of_two_fields_that_a_refusal_names_only_the_cause_is_left_out(server: ChatServer) -> None:
    words = "`stop` is fine here, but a 'seed' is not."
    (reply,) = ask(server, lambda body: Refusal(400, words) if "seed" in body else "fine", WHOLE)
    assert isinstance(reply, ChatReply) and reply.ignored == ("seed",)


def test_several_fields_are_learned_one_after_the_other(server: ChatServer) -> None:
    def script(body: dict[str, Any]) -> Answer:
        known = ["temperature", "seed", "response_format", "stop", "top_p", "max_tokens"]
        return next((Refusal(400, f"`{name}` is beyond us", name) for name in known if name in body), "fine")

    first, second = ask(server, script, WHOLE, WHOLE, **OPTIONS)
    assert isinstance(first, ChatReply) and first == second
    assert first.ignored == ("response_format", "seed", "stop", "temperature", "top_p")
    assert len(server.requests) == 8


def test_a_server_that_fails_and_names_a_field_by_chance_is_asked_again(server: ChatServer) -> None:
    left = [Refusal(500, "worker died; its temperature was 90 degrees")] * 3
    (reply,) = ask(server, lambda body: left.pop() if left else "fine", WHOLE)
    assert isinstance(reply, ChatReply) and reply.ignored == ()


def test_a_field_in_the_name_of_the_model_is_none(server: ChatServer) -> None:
    settings = OpenAIModelSettings(endpoint="here", model="my-json_schema-model")
    server.script = lambda body: Refusal(404, "The model `my-json_schema-model` does not exist.")
    server.requests.clear()

    async def run() -> None:
        async with open_endpoints({"here": EndpointSettings(url=server.url)}, max_in_flight=8) as endpoints:
            await OpenAIChatModel(endpoints["here"], settings).chat(WHOLE)

    with pytest.raises(EndpointError) as caught:
        asyncio.run(run())
    assert caught.value.code == "endpoint.unknown-model" and len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Model does not exist"),
        (400, "No such model: m"),
        (400, "model m is not a valid model ID"),
        (400, "The model `m` has been decommissioned and is no longer supported."),
        (404, "model 'm' not found, try pulling it first"),
        (404, "The model `m` does not exist or you do not have access to it."),
        (404, "The API deployment for this resource does not exist."),
        (422, "Unknown model m"),
        (400, "model_not_found"),
        (400, "The requested model is not available in your region"),
    ],
)
def test_an_unknown_model_ends_the_run_in_whatever_words(server: ChatServer, status: int, words: str) -> None:
    (error,) = ask(server, lambda body: Refusal(status, words), WHOLE)
    assert isinstance(error, EndpointError) and error.code == "endpoint.unknown-model"


def test_an_address_where_nothing_is_ends_the_run(server: ChatServer) -> None:
    (error,) = ask(server, lambda body: Refusal(404, body=b"<html>nginx</html>"), WHOLE)
    assert isinstance(error, EndpointError) and error.code == "endpoint.not-found"


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (402, "whatever", None),
        (402, "This request requires more credits, or fewer max_tokens.", None),
        (400, "Not enough credits", None),
        (400, "You have reached your API usage limits. You will regain access on 2026-12-01.", None),
        (403, "Your account balance is insufficient. Please top up.", None),
        (429, "Your account is suspended due to insufficient balance, please recharge it", None),
        (429, "You are out of luck", "insufficient_quota"),
        (429, "余额不足", "1113"),
        (400, "Access denied, please make sure your account is in good standing: Arrearage", "Arrearage"),
    ],
)
def test_an_account_without_credit_ends_the_run_at_once(
    server: ChatServer, status: int, words: str, code: str | None
) -> None:
    (error,) = ask(server, lambda body: Refusal(status, words, code=code), WHOLE)
    assert isinstance(error, EndpointError) and error.code == "endpoint.no-credit"
    assert len(server.requests) == 1


def test_a_refusal_that_quotes_a_case_about_a_bank_ends_only_that(server: ChatServer) -> None:
    case = ChatRequest((Message("user", "Pay the bill. If there are insufficient funds, say so."),))
    (error,) = ask(server, lambda body: Refusal(400, "I do not pay: '… insufficient funds, say so'"), case)
    assert isinstance(error, ModelError)


@pytest.mark.parametrize(
    "words",
    [
        "Rate limit reached: 3 requests per minute. Add credits at https://x.org/billing to raise it.",
        "You exceeded your current quota, please check your plan. Please retry in 3 s.",
        "Slow down.",
    ],
)
def test_a_limit_on_the_rate_is_waited_for(server: ChatServer, words: str) -> None:
    left = [Refusal(429, words)]
    (reply,) = ask(server, lambda body: left.pop() if left else "fine", WHOLE)
    assert isinstance(reply, ChatReply)


def test_an_error_that_comes_with_http_200_is_one(server: ChatServer) -> None:
    answer = {"error": {"code": 402, "message": "Insufficient credits"}}
    (error,) = ask(server, lambda body: Refusal(200, body=json.dumps(answer).encode()), WHOLE)
    assert isinstance(error, EndpointError) and error.code == "endpoint.no-credit"


FULL = {
    "exact": "maximum context length is {context} tokens, but you asked for {prompt} in the messages and {most} more",
    "bound": "You passed {bound} input tokens and requested {most} output tokens; the model's context length is only "
    "{context} tokens, resulting in a maximum input length of {allowed} tokens.",
    "sum": "input length and `max_tokens` exceed context limit: {prompt} + {most} > {context}, decrease one of them",
    "static": "context_length_exceeded",
    "numbers": "context window of {context} tokens is too small for this",
    "wrong": "maximum context length is {allowed} tokens, and your request has {prompt} input tokens",
    "vague": "Your request exceeded the model token limit: {context}",
    "given": "`inputs` tokens + `max_new_tokens` must be <= {context}. Given: {prompt} `inputs` tokens",
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wording=st.sampled_from(sorted(FULL)),
    context=st.integers(1, 40_000),
    prompt=st.integers(1, 45_000),
    most=st.integers(1, 8192),
    status=st.sampled_from([400, 413, 422]),
)
def test_room_beside_the_messages_is_found_in_few_requests(
    server: ChatServer, wording: str, context: int, prompt: int, most: int, status: int
) -> None:
    def script(body: dict[str, Any]) -> Answer:
        asked = body["max_tokens"]
        if prompt + asked <= context:
            return "fine"
        allowed = context - asked
        bound = min(prompt, max(0, allowed) + 1)
        return Refusal(
            status, FULL[wording].format(context=context, prompt=prompt, most=asked, allowed=allowed, bound=bound)
        )

    (found,) = ask(server, script, ChatRequest(WHOLE.messages, max_tokens=most))
    assert len(server.requests) <= 16 < MOST_REQUESTS
    if prompt < context:
        assert isinstance(found, ChatReply)
    else:
        assert isinstance(found, ContextFullError)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    most=st.integers(1, 5000),
    wording=st.sampled_from(
        [
            "max_tokens is too large: {asked}. This model supports at most {most} completion tokens",
            "Invalid max_tokens value, the valid range of max_tokens is [1, {most}]",
            "maxOutputTokens must be lower than {above}",
            "max_tokens exceeds the maximum allowed",
        ]
    ),
)
def test_a_limit_that_is_too_high_for_the_server_is_lowered_and_remembered(
    server: ChatServer, most: int, wording: str
) -> None:
    def script(body: dict[str, Any]) -> Answer:
        asked = body["max_tokens"]
        return "fine" if asked <= most else Refusal(400, wording.format(asked=asked, most=most, above=most + 1))

    request = ChatRequest(WHOLE.messages, max_tokens=4096)
    first, second = ask(server, script, request, request)
    assert isinstance(first, ChatReply) and isinstance(second, ChatReply)
    assert len(server.requests) <= 15
    assert server.requests[-1]["max_tokens"] == server.requests[-2]["max_tokens"] <= most


def test_a_limit_that_is_too_low_for_the_server_is_raised(server: ChatServer) -> None:
    refusal = Refusal(400, "Invalid 'max_output_tokens': expected a value >= 16, but got 5 instead.")
    (reply,) = ask(
        server, lambda body: "fine" if body["max_tokens"] >= 16 else refusal, ChatRequest(WHOLE.messages, max_tokens=5)
    )
    assert isinstance(reply, ChatReply)
    assert [body["max_tokens"] for body in server.requests] == [5, 16]


@pytest.mark.parametrize(
    "words",
    [
        "The prompt is too long: 5000, model maximum context length: 4096",
        "the request exceeds the available context size (4096 tokens)",
        "Input token count 5000 exceeds the maximum number of tokens allowed 4096",
        "Range of input length should be [1, 30720]",
        "This model's maximum prompt length is 4096 but the request contains 5000 tokens.",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "Prompt contains 5000 tokens, too large for a model with 4096 maximum context length",
    ],
)
def test_messages_that_are_too_long_by_themselves_are_asked_for_once(server: ChatServer, words: str) -> None:
    (error,) = ask(server, lambda body: Refusal(400, words), WHOLE)
    assert isinstance(error, ContextFullError) and len(server.requests) == 1


@pytest.mark.parametrize(
    "words",
    [
        "Could not finish the message because max_tokens or model output limit was reached.",
        "The output token limit was reached before an answer. Try again with a higher max_completion_tokens.",
    ],
)
def test_thinking_that_used_up_the_limit_is_a_reply_that_was_cut_off(server: ChatServer, words: str) -> None:
    (reply,) = ask(server, lambda body: Refusal(400, words), ChatRequest(WHOLE.messages, max_tokens=300))
    assert isinstance(reply, ChatReply)
    assert (reply.text, reply.finish_reason, reply.completion_tokens) == ("", "length", 300)
    assert "usage" in reply.ignored and len(server.requests) == 1


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "param", "code", "detail", "loc", "raw", "msg"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_the_body_of_an_error_is_read_whatever_it_is(body: bytes) -> None:
    told = read_told(body)
    assert all(isinstance(part, str) for part in told)


def test_an_error_names_what_validation_found() -> None:
    body = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs", "input": "secret"}]}
    told = read_told(json.dumps(body).encode())
    assert (told.parameter, told.message) == ("seed", "Extra inputs") and "secret" not in told.text
