"""A model behind an endpoint that speaks OpenAI's chat completions: OpenAI, vLLM and many others.

Servers differ in what they take. What one refuses (a temperature, a stop, a schema) is left out from then on, what one
ignores is done here where that is possible, and either is noted in `ChatReply.ignored`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson

from toolemu.chat.endpoint import Endpoint, EndpointError, RequestRefusedError
from toolemu.chat.protocol import ChatReply, ChatRequest, ContextFullError, Message, ModelError
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.thinking import is_thinking, split_thinking, strip_thinking

GO_ON = "Your last message was cut off. Write what comes next in it, and nothing of what you already wrote."
"""Said to a model whose server does not continue a message."""
MOST_STOPS = 4  # servers take no more
# Left out if a server refuses them: the reply is one all the same. Others change what is asked for.
_OPTIONAL = ("temperature", "stop", "seed", "response_format")
_REFUSAL = re.compile(r"support|unrecogni[sz]ed|unknown|unexpected|extra|not permitted|not allowed|invalid", re.I)
_CONTEXT_FULL = re.compile(
    r"context[_ ](?:length|window)|maximum (?:model |input |prompt )?length|prompt is too long", re.I
)
_CONTEXT = re.compile(r"maximum context length (?:is|of) (\d+)", re.I)
_PROMPT = re.compile(r"(\d+) (?:input tokens|tokens? (?:from|in) the (?:input|messages)|in the messages)", re.I)
_MOST = re.compile(r"at most (\d+) (?:completion|output) tokens", re.I)
_CHARACTERS_A_TOKEN = 4
_PROBE = Message("user", "Say: ready")
_PROBE_TOKENS = 64


class OpenAIChatModel:
    """A `ChatModel` behind an endpoint.

    Args:
        endpoint: The server.
        settings: The model there.
        name: What the experiment calls it; by default its name at the server.
    """

    def __init__(self, endpoint: Endpoint, settings: OpenAIModelSettings, name: str | None = None) -> None:
        self.name = name or settings.model
        self._endpoint = endpoint
        self._settings = settings
        self._refused: set[str] = set()

    def key(self, request: ChatRequest) -> str:
        """Returns a hash of everything that determines the reply: 32 hex digits of SHA-256.

        The endpoint counts by its name: a server that comes back at another address gives the same replies.
        """
        settings = self._settings
        body = self._body(request, frozenset())
        described = [self._endpoint.name, settings.quantisation, settings.revision, body]
        return hashlib.sha256(orjson.dumps(described, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Generates one reply; see `Endpoint.ask` for how failures are dealt with.

        Raises:
            ContextFullError: The messages leave no room for a token.
            ModelError: The server refuses this request, or failed too often at it.
            EndpointError: The server cannot be used.
        """
        most: int | None = None
        while True:
            refused = frozenset(self._refused)
            body = self._body(request, refused, most)
            try:
                answer = await self._endpoint.ask(body, wrong_with)
            except RequestRefusedError as error:
                if self._learn(error, body):
                    continue
                most = self._room(error, request.max_tokens if most is None else most)
                continue
            return self._read(answer, request, body, refused)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """Returns the body of a request, without what the server is known to refuse."""
        return self._body(request, frozenset(self._refused))

    def read(self, answer: Mapping[str, Any], request: ChatRequest, body: Mapping[str, Any]) -> ChatReply:
        """Returns the reply that the server's answer to `body` is.

        Raises:
            ModelError: It is a refusal to answer.
        """
        whole = self._body(request, frozenset())
        return self._read(answer, request, body, frozenset(whole.keys() - body.keys()))

    async def probe(self) -> ChatReply:
        """Asks for a few words, as the role's requests would be asked.

        Raises:
            EndpointError: The server cannot be used, or refuses such requests.
        """
        try:
            return await self.chat(ChatRequest((_PROBE,), max_tokens=_PROBE_TOKENS, stop=("\nObservation:",)))
        except (ModelError, ContextFullError) as error:
            raise EndpointError(
                f"Endpoint {self._endpoint.name}: model {self._settings.model} refuses the simplest request: {error} "
                "Check its section of the experiment file."
            ) from error

    def _body(self, request: ChatRequest, refused: frozenset[str], most: int | None = None) -> dict[str, Any]:
        settings = self._settings
        temperature = request.temperature if settings.temperature is None else settings.temperature
        tokens_name = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
        limits = (request.max_tokens, settings.max_tokens, most)
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": self._messages(request),
            "temperature": temperature,
            "seed": (request.seed + settings.seed) % 2**31,
            tokens_name: min(limit for limit in limits if limit is not None),
        }
        thinks = settings.thinking if settings.server_stop is None else not settings.server_stop
        if request.stop and not thinks:
            body["stop"] = list(request.stop[:MOST_STOPS])
        if request.schema is not None and settings.structured:
            schema = {"name": "reply", "strict": True, "schema": dict(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        template = settings.template_arguments()
        if template:
            body["chat_template_kwargs"] = template
        if request.messages[-1].role == "assistant" and self._endpoint.settings.continues:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        body |= settings.request
        return {name: value for name, value in body.items() if name not in refused}

    def _messages(self, request: ChatRequest) -> list[dict[str, str]]:
        messages = list(request.messages)
        if messages[-1].role == "assistant" and not self._endpoint.settings.continues:
            begun = strip_thinking(messages.pop().content).strip()
            if begun:
                messages += [Message("assistant", begun), Message("user", GO_ON)]
        return [message._asdict() for message in messages]

    def _learn(self, error: RequestRefusedError, body: Mapping[str, Any]) -> bool:
        """Takes from a refusal what this model does not take; says whether there was anything to be learned."""
        known = [*_OPTIONAL, "max_tokens"]
        named = [error.parameter.partition(".")[0]] if error.parameter else known
        for name in named:
            mentioned = error.parameter or re.search(rf"\b{name}\b", error.message)
            if name not in body or name not in known or not mentioned:
                continue
            if name == "max_tokens":
                if "max_completion_tokens" in error.message and not _CONTEXT.search(error.message):
                    self._refused.add(name)
                    return True
            elif error.code.startswith("unsupported") or _REFUSAL.search(error.message):
                self._refused.add(name)
                return True
        return False

    def _room(self, error: RequestRefusedError, asked: int) -> int:
        """Returns the tokens that are left beside the messages, where a refusal says so."""
        context, prompt, most = (pattern.search(error.message) for pattern in (_CONTEXT, _PROMPT, _MOST))
        if most and 1 <= int(most[1]) < asked:
            return int(most[1])
        if context and prompt and 1 <= int(context[1]) - int(prompt[1]) < asked:
            return int(context[1]) - int(prompt[1])
        if error.code == "context_length_exceeded" or _CONTEXT_FULL.search(error.message):
            raise ContextFullError(f"{self.name}: {error.message}") from None
        raise ModelError(f"{self.name}: HTTP {error.status}: {error.message}") from None

    def _read(
        self, answer: Mapping[str, Any], request: ChatRequest, body: Mapping[str, Any], refused: frozenset[str]
    ) -> ChatReply:
        choice = answer["choices"][0]
        message = choice["message"]
        thought, text = split_thinking(_text(message.get("content")) or _text(message.get("refusal")))
        reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
        reasoning = "\n".join(part for part in (reasoning.strip(), thought) if part)
        finish: Literal["stop", "length"] = "length" if choice.get("finish_reason") == "length" else "stop"
        if choice.get("finish_reason") == "content_filter" and not text:
            raise ModelError(f"{self.name}: the server's content filter withheld the reply")
        if self._settings.thinking and finish == "length" and not reasoning:
            # The template opened the thinking, the server tells it not apart, and its end never came.
            reasoning, text = text.strip(), ""
        ignored = refused & self._body(request, frozenset()).keys() - {"max_tokens"}
        if request.schema is not None and not self._settings.structured:
            ignored |= {"response_format"}
        cut = min((place for stop in request.stop if (place := text.find(stop)) >= 0), default=None)
        if cut is not None:
            text, finish = text[:cut], "stop"
            if "stop" in body:
                ignored |= {"stop"}
        usage = answer.get("usage") or {}
        if not isinstance(usage.get("completion_tokens"), int):
            ignored |= {"usage"}
            written = sum(len(message["content"]) for message in body["messages"])
            usage = {
                "prompt_tokens": written // _CHARACTERS_A_TOKEN,
                "completion_tokens": (len(text) + len(reasoning)) // _CHARACTERS_A_TOKEN,
            }
        reasoning_tokens = int((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)
        begun = request.messages[-1].role == "assistant"  # its thinking may lie behind it
        if not begun and self._settings.thinking not in (None, bool(reasoning or reasoning_tokens)):
            ignored |= {"thinking"}
        reply = ChatReply(
            text=text,
            finish_reason=finish,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage["completion_tokens"]),
            reasoning=reasoning,
            reasoning_tokens=reasoning_tokens,
            model=str(answer.get("model") or ""),
            ignored=tuple(sorted(ignored)),
        )
        return self._continued(request, reply)

    def _continued(self, request: ChatRequest, reply: ChatReply) -> ChatReply:
        """Closes thinking that was begun in an earlier reply and could not be continued, but only begun anew."""
        last = request.messages[-1]
        if last.role != "assistant" or self._endpoint.settings.continues or not is_thinking(last.content):
            return reply
        return replace(reply, text=f"\n</think>\n{reply.whole}", reasoning="")


def wrong_with(answer: Mapping[str, Any]) -> str:
    """Says what keeps a chat completion from being read; empty if nothing does."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        return "no choice"
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return "a choice without message"
    if choice.get("finish_reason") == "error":
        return "it says that the model failed"
    usage = answer.get("usage")
    return "" if usage is None or isinstance(usage, dict) else "usage that is no object"


def _text(content: object) -> str:
    """Returns a message's content as text; some servers give it in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""
