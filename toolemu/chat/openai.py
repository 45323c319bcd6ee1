"""A model behind an endpoint that speaks OpenAI's chat completions: OpenAI, vLLM and many others.

Servers differ in what they take. A field that one refuses (a temperature, a stop, a schema, the role system) is left
out or translated from then on (`toolemu.chat.negotiation`). A stop that one ignores is done here. Either is noted in
`ChatReply.ignored`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson

from toolemu.chat import codec
from toolemu.chat.completion import LONGEST_NOTE, cut_off_at, text_of, usage_of, wrong_with
from toolemu.chat.endpoint import Endpoint, EndpointError, RequestRefusedError
from toolemu.chat.fields import SYSTEM
from toolemu.chat.finish import Ending, ending
from toolemu.chat.negotiation import Negotiation
from toolemu.chat.protocol import ChatReply, ChatRequest, ContextFullError, Message, ModelError, fold_system
from toolemu.chat.refusals import is_limit_used_up, is_model_unknown
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.redaction import redact
from toolemu.thinking import is_thinking, split_thinking, strip_thinking

GO_ON = "Your last message was cut off. Write what comes next in it, and nothing of what you already wrote."
"""Said to a model whose server does not continue a message."""
MOST_STOPS = 4  # servers take no more
_CONTINUING = frozenset({"add_generation_prompt", "continue_final_message"})
_PROBE = (Message("system", "Say: ready"), Message("user", "Say: ready"))
_PROBE_TOKENS = 64

_logger = logging.getLogger(__name__)


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
        self._refused: frozenset[str] = frozenset()
        self._most: int | None = None  # tokens of a reply that the server takes, where it refused more

    def key(self, request: ChatRequest) -> str:
        """Returns a hash of everything that determines the reply: 32 hex digits of SHA-256.

        The endpoint counts by its name: a server that comes back at another address gives the same replies.
        """
        settings = self._settings
        body = self._body(request, frozenset(), self._asked(request))
        described = [self._endpoint.name, settings.quantisation, settings.revision, body]
        return hashlib.sha256(codec.dump(described, orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    @property
    def refused(self) -> frozenset[str]:
        """The fields that the server is known to refuse."""
        return self._refused

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Generate one reply; see `Endpoint.ask` for how failures are dealt with.

        Raises:
            ContextFullError: The messages leave no room for a token.
            ModelError: The server refuses this request, or failed too often at it.
            EndpointError: The server cannot be used.
        """
        refused, most = self._refused, self._limit(request)
        body = self._body(request, refused, most)
        whole: dict[str, Any] | None = body
        negotiation: Negotiation | None = None
        while True:
            try:
                answer = await self._endpoint.ask(body, wrong_with, whole)
            except RequestRefusedError as error:
                negotiation = negotiation or Negotiation(refused, most)
                if is_limit_used_up(error.told):
                    answer = cut_off_at(most)
                elif negotiation.mend(error.status, error.told, body):
                    refused, most = negotiation.left_out, negotiation.limit
                    body = self._body(request, refused, most)
                    continue
                elif error.status >= 500 and whole is not None:  # it names a field, and has another cause: it may pass
                    refused, most, whole, negotiation = self._refused, self._limit(request), None, None
                    body = self._body(request, refused, most)
                    continue
                else:
                    raise self._failure(error, negotiation, body) from None
            if negotiation is not None:
                self._learn(negotiation)
            return self._read(answer, request, body, refused)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """Return the body of a request, without the fields that the server is known to refuse."""
        return self._body(request, self._refused, self._limit(request))

    def read(self, answer: Mapping[str, Any], request: ChatRequest, left_out: frozenset[str]) -> ChatReply:
        """Return the reply that a server's answer to a request is.

        Args:
            answer: A chat completion.
            request: What was asked for.
            left_out: The fields that the server was known to refuse when it was asked.

        Raises:
            ModelError: The server's filter withheld the reply, or there is none for an unknown reason.
        """
        return self._read(answer, request, self._body(request, left_out, self._asked(request)), left_out)

    async def probe(self, like: ChatRequest | None = None) -> ChatReply:
        """Ask for a few words, as the role's requests are asked, and learn which fields the server refuses.

        Args:
            like: A request of the role, whose temperature, stops and schema are used.

        Raises:
            EndpointError: The server cannot be used, or refuses such requests.
        """
        like = like or ChatRequest(_PROBE)
        try:
            return await self.chat(replace(like, messages=_PROBE, max_tokens=min(like.max_tokens, _PROBE_TOKENS)))
        except (ModelError, ContextFullError) as error:
            raise EndpointError(
                f"Endpoint {self._endpoint.name}: model {self._settings.model} refuses the simplest request: {error} "
                "Check its section of the experiment file.",
                code="endpoint.refuses-requests",
            ) from error

    def _limit(self, request: ChatRequest) -> int:
        """Return the most tokens to ask for: of the request's, the model's and the server's limits the smallest."""
        return min(self._asked(request), self._most or request.max_tokens)

    def _asked(self, request: ChatRequest) -> int:
        return min(request.max_tokens, self._settings.max_tokens or request.max_tokens)

    def _learn(self, negotiation: Negotiation) -> None:
        """Keep for later requests what made the server take one."""
        new = negotiation.left_out - self._refused
        if new:
            self._refused |= new
            _logger.info("%s: its server does not take %s", self.name, ", ".join(sorted(new)))
        if negotiation.too_high:
            self._most = min(negotiation.limit, self._most or negotiation.limit)

    def _failure(self, error: RequestRefusedError, negotiation: Negotiation, body: Mapping[str, Any]) -> Exception:
        """Return the exception that a refusal is which no other form of the request mends."""
        if negotiation.full:
            return ContextFullError(f"{self.name}: {error.message}")
        if is_model_unknown(error.told):
            return self._endpoint.unknown_model(body, error.status, error.message)
        return ModelError(f"{self.name}: HTTP {error.status}: {error.message}")

    def _body(self, request: ChatRequest, refused: frozenset[str], most: int) -> dict[str, Any]:
        settings = self._settings
        temperature = request.temperature if settings.temperature is None else settings.temperature
        tokens_name = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
        continues = self._endpoint.settings.continues and not refused & _CONTINUING
        messages = request.messages if SYSTEM not in refused else fold_system(request.messages)
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": _messages(messages, continues),
            "temperature": temperature,
            "seed": (request.seed + settings.seed) % 2**31,
            tokens_name: most,
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
        if request.messages[-1].role == "assistant" and continues:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        body |= settings.request
        return {name: value for name, value in body.items() if name not in refused} if refused else body

    def _left_out(self, request: ChatRequest, refused: frozenset[str]) -> set[str]:
        """Return which of the refused fields this request would have had."""
        left_out = {*(refused & self._body(request, frozenset(), 1).keys())}
        if SYSTEM in refused and any(message.role == "system" for message in request.messages):
            left_out.add(SYSTEM)
        if "max_completion_tokens" not in refused:  # else it stands for the limit
            left_out.discard("max_tokens")
        return left_out

    def _read(
        self, answer: Mapping[str, Any], request: ChatRequest, body: Mapping[str, Any], refused: frozenset[str]
    ) -> ChatReply:
        choice = answer["choices"][0]
        message = choice["message"]
        thought, text = split_thinking(redact(text_of(message.get("content")) or text_of(message.get("refusal"))))
        reasoning = redact(text_of(message.get("reasoning_content")) or text_of(message.get("reasoning")))
        reasoning = "\n".join(part for part in (reasoning.strip(), thought) if part)
        ignored = self._left_out(request, refused) if refused else set()
        finish = self._finish(choice.get("finish_reason"), bool(text), ignored)
        if self._settings.thinking and finish == "length" and not reasoning:
            # The template opened the thinking, the server tells it not apart, and its end never came.
            reasoning, text = text.strip(), ""
        if request.schema is not None and not self._settings.structured:
            ignored |= {"response_format"}
        cut = min((place for stop in request.stop if (place := text.find(stop)) >= 0), default=None)
        if cut is not None:
            text, finish = text[:cut], "stop"
            if "stop" in body:
                ignored |= {"stop"}
        usage = usage_of(answer, body, len(text) + len(reasoning))
        if usage.estimated:
            ignored |= {"usage"}
        begun = request.messages[-1].role == "assistant"  # its thinking may lie behind it
        if not begun and self._settings.thinking not in (None, bool(reasoning or usage.reasoning_tokens)):
            ignored |= {"thinking"}
        reply = ChatReply(
            text=text,
            finish_reason=finish,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning=reasoning,
            reasoning_tokens=usage.reasoning_tokens,
            model=redact(str(answer.get("model") or "")),
            ignored=tuple(sorted(ignored)),
        )
        return self._continued(request, reply, refused)

    def _finish(self, reason: object, written: bool, ignored: set[str]) -> Literal["stop", "length"]:
        """Return whether a reply is whole, by the reason why it ended; note an unusual one in `ignored`.

        Raises:
            ModelError: A filter withheld the reply, or there is none, for a reason that is not known.
        """
        kind = ending(reason)
        if kind is Ending.stop:
            return "stop"
        if kind is Ending.length:
            return "length"
        note = (
            "finish_reason"
            if kind is Ending.missing
            else f"finish_reason={self._endpoint.clean(str(reason))[:LONGEST_NOTE]}"
        )
        self._endpoint.counts[f"finish_{kind}"] += 1
        if not written and kind is Ending.withheld:
            raise ModelError(f"{self.name}: the server's content filter withheld the reply ({note})")
        if not written and kind is Ending.unknown:
            raise ModelError(f"{self.name}: there is no reply, and the reason is not one that is known ({note})")
        ignored.add(note)
        return "length" if kind is Ending.withheld else "stop"

    def _continued(self, request: ChatRequest, reply: ChatReply, refused: frozenset[str]) -> ChatReply:
        """Close thinking that was begun in an earlier reply and could not be continued, but only begun anew."""
        last = request.messages[-1]
        continues = self._endpoint.settings.continues and not refused & _CONTINUING
        if last.role != "assistant" or continues or not is_thinking(last.content):
            return reply
        return replace(reply, text=f"\n</think>\n{reply.whole}", reasoning="")


def _messages(messages: tuple[Message, ...], continues: bool) -> list[dict[str, str]]:
    """Return messages as a request has them; without `continues`, a begun one is asked for in words."""
    sent = list(messages)
    if sent[-1].role == "assistant" and not continues:
        begun = strip_thinking(sent.pop().content).strip()
        if begun:
            sent += [Message("assistant", begun), Message("user", GO_ON)]
    return [message._asdict() for message in sent]
