"""What the sandbox asks of a language model: messages in, text out. Backends live beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One chat message."""

    role: Role
    content: str


@dataclass(frozen=True)
class ChatRequest:
    """One generation.

    Attributes:
        messages: The conversation; if the last is the assistant's, the model continues it.
        stop: Texts at which generation ends; none of them is part of the reply.
        max_tokens: Most tokens to generate.
        temperature: 0 is greedy.
        seed: Makes sampling repeatable; the same request with the same seed gives the same reply.
        schema: JSON schema that the reply should keep to. Not every model can be held to one; see `ChatReply.ignored`.
    """

    messages: tuple[Message, ...]
    stop: tuple[str, ...] = ()
    max_tokens: int = 2048
    temperature: float = 0.0
    seed: int = 0
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ChatReply:
    """What a model wrote, and how that came about.

    Attributes:
        text: The answer.
        finish_reason: `length` when a limit of tokens, or a filter, cut it off; else `stop`.
        prompt_tokens: Tokens of the messages.
        completion_tokens: Tokens generated, reasoning included.
        reasoning: What the model thought before the answer, if the backend tells it apart. A text that still holds
            ``<think>`` tags comes from a backend that does not.
        reasoning_tokens: How many of the generated tokens were reasoning, if the server says so.
        model: The model's name as the server gave it, which may be a dated snapshot of the one asked for.
        ignored: Parameters of the request that the server refused, ignored or changed; `system` if the system prompt
            went into the first user message, `usage` if tokens are estimated, and ``finish_reason=…`` if the reason why
            the reply ended is not one of a whole reply.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    reasoning: str = ""
    reasoning_tokens: int = 0
    model: str = ""
    ignored: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """Reasoning and answer as one text, the reasoning in ``<think>`` tags, left open if it was cut off."""
        if not self.reasoning:
            return self.text
        opened = f"<think>\n{self.reasoning}"
        return opened if not self.text and self.finish_reason == "length" else f"{opened}\n</think>\n{self.text}"


def fold_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return messages without the role system, for models that have none (Gemma 1 and 2, some Mistral models).

    The system prompt goes before the first user message, with an empty line between, as Gemma 3's template does it.
    """
    prompt = "\n\n".join(message.content for message in messages if message.role == "system")
    others = [message for message in messages if message.role != "system"]
    if not prompt:
        return tuple(others)
    if others and others[0].role == "user":
        return (Message("user", f"{prompt}\n\n{others[0].content}"), *others[1:])
    return (Message("user", prompt), *others)


class ContextFullError(Exception):
    """The conversation does not fit the model's context."""


class ModelError(Exception):
    """The model will never answer this request, however often it is asked: refused as it is, for instance.

    What may pass (a server that is down, a limit on the rate) is for the backend to retry, and any other exception is
    a fault that should stop the run.
    """


class ChatModel(Protocol):
    """A language model, local or behind an endpoint."""

    name: str

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Generates one reply.

        Raises:
            ContextFullError: The messages leave no room for a token.
            ModelError: This request can never be answered.
        """
        ...
