"""What models were used for: calls, tokens, who answered and what of the requests was ignored; and what that costs."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from toolemu.chat.protocol import ChatReply

MILLION = 1_000_000


class Price(BaseModel):
    """What a model's tokens cost, in any currency, per million of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(0.0, ge=0, description="A million tokens of prompts.")
    output: float = Field(0.0, ge=0, description="A million generated tokens, reasoning included.")


class ModelUse(BaseModel):
    """The calls that one record took.

    Attributes:
        calls: Replies received; calls that failed and were made again count once.
        prompt_tokens, completion_tokens: Their tokens, reasoning among the latter.
        reasoning_tokens: How many of those were reasoning, as far as the server says so.
        served_as: The names under which servers answered, in order of name.
        ignored: Parameters that a server refused, ignored or changed in any of the calls, in order of name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    served_as: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, replies: Iterable[ChatReply]) -> ModelUse:
        """Returns the use that `replies` were."""
        replies = list(replies)
        return cls(
            calls=len(replies),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
            reasoning_tokens=sum(reply.reasoning_tokens for reply in replies),
            served_as=tuple(sorted({reply.model for reply in replies} - {""})),
            ignored=tuple(sorted({name for reply in replies for name in reply.ignored})),
        )

    def __add__(self, other: ModelUse) -> ModelUse:
        return ModelUse(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            served_as=tuple(sorted({*self.served_as, *other.served_as})),
            ignored=tuple(sorted({*self.ignored, *other.ignored})),
        )

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens

    def cost(self, price: Price) -> float:
        """Returns what the tokens cost at `price`; a provider's discount for repeated prompts is not counted."""
        return (self.prompt_tokens * price.input + self.completion_tokens * price.output) / MILLION
