"""Chat templates: conversations as the tokens that the agent was sent and wrote, or an error that says why not.

Each turn of an agent was a request and a reply. The request ended where the template asks for a reply (the generation
prompt), and the reply ended with an end-of-turn token. Training uses the same template with the same arguments, so that
it sees these tokens and no others.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolemu.chat import Message
from toolemu.errors import FrontierError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CLOCKS = (datetime.datetime(2001, 2, 3, 4, 5, 6), datetime.datetime(2034, 11, 29, 15, 47, 38))  # noqa: DTZ001
"""Two times of which no part is the same. A template is rendered with the first, so that tokens depend on no day."""
_CLOCK = "strftime_now"
_NEXT = Message("user", ".")
"""A message to follow an agent's last turn, of which nothing is kept."""


class Tokens(NamedTuple):
    """One trajectory as tokens.

    Attributes:
        prompt_ids: The conversation up to the agent's first word.
        completion_ids: Everything after it, observations and role markers included.
        agent_mask: 1 for each completion token that the agent wrote, its end-of-turn token included; 0 for every other.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    agent_mask: list[int]


def end_tokens(base: Path) -> frozenset[int]:
    """Return the ids of the tokens at which generation with a base ends, as its configuration files name them."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = base / name
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        ends = value.get("eos_token_id") if isinstance(value, dict) else None
        found.update(end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int))
    return frozenset(found)


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    completion: Sequence[Message],
    arguments: Mapping[str, Any] | None = None,
    ends: frozenset[int] = frozenset(),
) -> Tokens:
    """Tokenize a conversation turn by turn, exactly as the agent's own requests were.

    The clock of the template stands still, so that the tokens are the same on every day; see `check_clock`.

    Args:
        tokenizer: The tokenizer of the base, with its chat template.
        prompt: The messages before the agent's first turn.
        completion: The turns of the agent (`assistant`) and the observations (`user`), in order.
        arguments: Arguments of the template, the same as in the agent's requests; see `ModelOptions`.
        ends: Tokens at which generation ends, besides the tokenizer's own; see `end_tokens`.

    Raises:
        FrontierError: The tokenizer has no chat template, or the template refuses the messages, rewrites earlier turns
            when a later one comes, or writes text of its own into the agent's turn.
    """
    rendering = _Rendering(tokenizer, arguments or {}, _CLOCKS[0])
    messages, ids, mask = list(prompt), rendering.ids(prompt), list[int]()
    prompt_ids = ids
    for place, message in enumerate(completion):
        agents = message.role == "assistant"
        followed = place + 1 < len(completion) and completion[place + 1].role != "assistant"
        # A template may render the last message otherwise, so an agent's turn is looked at with one after it.
        after = [completion[place + 1] if followed else _NEXT] if agents else []
        longer = rendering.ids([*messages, message, *after])
        if longer[: len(ids)] != ids:
            raise FrontierError(
                f"The chat template of {_name(tokenizer)} changes earlier tokens when a turn is added, so that no "
                "single sequence holds what the agent was sent and wrote. Training needs a template that only appends. "
                "Set the model's `thinking` or `chat_template` so that it does, or give a copy of the model whose "
                "template does.",
                code="chat-template.rewrites-turns",
            )
        added = longer[len(ids) :]
        if agents:
            added = added[: _reply_length(rendering, messages, message, after, added, ends)]
        messages.append(message)
        mask += [int(agents)] * len(added)
        ids = ids + added
    return Tokens(prompt_ids, ids[len(prompt_ids) :], mask)


def check_clock(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], arguments: Mapping[str, Any] | None = None
) -> None:
    """Check that a template renders messages without reading the clock.

    With a template that writes today's date, agents that act on different days are sent different tokens, and training
    cannot know which.

    Raises:
        FrontierError: The rendered text depends on the day or the time.
    """
    if _CLOCK not in str(tokenizer.chat_template):
        return
    one, other = (_Rendering(tokenizer, arguments or {}, clock).text(messages) for clock in _CLOCKS)
    if one != other:
        raise FrontierError(
            f"The chat template of {_name(tokenizer)} writes today's date into the conversation. Agents that act on "
            "different days, and their training, would see different tokens. Fix the date with an argument of the "
            "template under the model's `chat_template` (Llama 3: {date_string: 26 Jul 2024}), or give a copy of the "
            "model whose template names no date.",
            code="chat-template.reads-clock",
        )


class _Rendering(NamedTuple):
    """A template with its arguments, and the time that it is told."""

    tokenizer: PreTrainedTokenizerBase
    arguments: Mapping[str, Any]
    clock: datetime.datetime

    def text(self, messages: Sequence[Message], *, asks: bool = True) -> str:
        """Return messages as text, followed by the generation prompt if the template `asks` for a reply."""
        text: str = self._apply(messages, asks, tokenize=False)
        return text

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Return messages and the generation prompt as tokens."""
        return list(self._apply(messages, True, return_dict=False))

    def _apply(self, messages: Sequence[Message], asks: bool, **options: bool) -> Any:
        if self.tokenizer.chat_template is None:
            raise FrontierError(
                f"The tokenizer of {_name(self.tokenizer)} has no chat template. Training needs one: give the folder "
                "of an instruction-tuned model, or add its chat_template.jinja.",
                code="chat-template.missing",
            )
        chat = [message._asdict() for message in messages]
        arguments = {**self.arguments, _CLOCK: self.clock.strftime}
        try:
            return self.tokenizer.apply_chat_template(chat, add_generation_prompt=asks, **options, **arguments)
        except Exception as error:  # a template can raise anything
            roles = ", ".join(dict.fromkeys(message.role for message in messages))
            raise FrontierError(
                f"The chat template of {_name(self.tokenizer)} refuses a conversation with the roles {roles}: {error}. "
                "Give a model whose template takes them, or correct the model's `chat_template` arguments.",
                code="chat-template.refuses",
            ) from error


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.name_or_path or "the tokenizer"


def _reply_length(
    rendering: _Rendering,
    before: Sequence[Message],
    reply: Message,
    after: Sequence[Message],
    added: Sequence[int],
    ends: frozenset[int],
) -> int:
    """Return how many of the added tokens the agent wrote: its text, and the token that ended it.

    What follows that token, such as a line break, comes from the template.

    Args:
        rendering: The template.
        before: The messages of the agent's request.
        reply: What the agent wrote.
        after: The message that follows.
        added: The tokens of reply, message after it and generation prompt.
        ends: Tokens at which generation ends, besides the tokenizer's own.

    Raises:
        FrontierError: The template writes text of its own into the turn, or ends the turn with no such token.
    """
    tokenizer, written = rendering.tokenizer, reply.content.strip()
    text = rendering.text([*before, reply, *after]).removeprefix(rendering.text(before))
    place = text.find(written)
    if place < 0 or text[:place].strip():
        inserted = f"writes {text[:place]!r} before the agent's turn"
        what = "does not repeat the agent's turn as it was written" if place < 0 else inserted
        raise FrontierError(
            f"The chat template of {_name(tokenizer)} {what}. The agent neither read nor wrote that, so training would "
            "see other tokens than the agent. Set the model's `thinking` or `chat_template` so that the template adds "
            "nothing, or give a copy of the model whose template does not.",
            code="chat-template.rewrites-reply",
        )

    def token_at(rest: str, tokens: Iterable[int]) -> int | None:
        return next((token for token in tokens if rest.lstrip().startswith(tokenizer.decode([token]))), None)

    rest = text[place + len(written) :]
    own = [tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else []
    end = token_at(rest, [*own, *sorted(ends)])
    if end is None:  # a token that no configuration names: the same one must come where no turn follows
        last = rendering.text([*before, reply], asks=False).rpartition(written)[2]
        end = token_at(rest, tokenizer.all_special_ids)
        end = end if end is not None and token_at(last, [end]) is not None else None
    inside = tokenizer.encode(written, add_special_tokens=False)
    places = [] if end is None else [number for number, token in enumerate(added) if token == end]
    if len(places) <= inside.count(end):
        raise FrontierError(
            f"The chat template of {_name(tokenizer)} ends the agent's turn with none of the tokens at which "
            "generation ends, so that training would not teach the agent to stop. Name the token that ends turns as "
            "eos_token_id in the model's generation_config.json.",
            code="chat-template.no-end",
        )
    length: int = places[inside.count(end)] + 1
    return length
