"""What the sandbox asks of a language model: messages in, text out. Backends live beside this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

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
    """

    messages: tuple[Message, ...]
    stop: tuple[str, ...] = ()
    max_tokens: int = 2048
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class ChatReply:
    """What a model wrote: `finish_reason` is `length` when `max_tokens` cut it off, else `stop`."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


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
