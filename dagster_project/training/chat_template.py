"""Chat templates: conversations as the tokens that the agent was sent and wrote, or an error that says why not.

Each turn of an agent was a request and a reply. The request ended where the template asks for a reply (the generation
prompt), and the reply ended with an end-of-turn token. Training uses the same template with the same arguments, so that
it sees these tokens and no others. As long as a request begins with the request and the reply before it, a conversation
is one sequence of tokens. A template that rewrites earlier turns makes it several.
"""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_project.training.token_tree import build_tree
from toolemu.chat import ChatReply, Message
from toolemu.chat.rendering import encode_rendered, render_chat
from toolemu.errors import FrontierError
from toolemu.thinking import find_spoken, split_thinking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CLOCKS = (datetime.datetime(2001, 2, 3, 4, 5, 6), datetime.datetime(2034, 11, 29, 15, 47, 38))  # noqa: DTZ001
"""Two times of which no part is the same. A template is rendered with the first, so that tokens depend on no day."""
_CLOCK = "strftime_now"
_NEXT = Message("user", ".")
"""A message to follow an agent's last turn, of which nothing is kept."""
_OPENED = "<think>"
_THOUGHT, _WORDS = "A thought of the probe.", "The words of the probe."
"""What an agent thinks and says in the turn with which a template is probed."""


class Tokens(NamedTuple):
    """One trajectory as tokens.

    Attributes:
        prompt_ids: The agent's first request.
        completion_ids: Everything after it, observations and role markers included. Further sequences follow the first
            one, each with its own request.
        agent_mask: 1 for each completion token that counts in the loss, 0 for every other. Those are the tokens that
            the agent wrote, its end-of-turn tokens included, each once.
        starts: Where in `completion_ids` the further sequences begin; empty if the template only appends.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    agent_mask: list[int]
    starts: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """All tokens, one sequence after the other."""
        return [*self.prompt_ids, *self.completion_ids]

    @property
    def mask(self) -> list[int]:
        """1 for each of `ids` that counts."""
        return [0] * len(self.prompt_ids) + self.agent_mask

    def stretches(self) -> list[slice]:
        """Return where each sequence stands in `ids` and `mask`."""
        first = len(self.prompt_ids)
        bounds = [0, *(first + start for start in self.starts), first + len(self.completion_ids)]
        return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]

    def own_tokens(self) -> int:
        """Return the number of tokens after the prompt, with what the sequences begin with alike counted once."""
        if not self.starts:
            return len(self.completion_ids)
        return len(build_tree([self.ids[stretch] for stretch in self.stretches()]).tokens) + 1 - len(self.prompt_ids)


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
    *,
    train_on_reasoning: bool = True,
) -> Tokens:
    """Tokenize a conversation turn by turn, exactly as the agent's own requests were.

    The clock of the template stands still, so that the tokens are the same on every day; see `check_clock`.

    Args:
        tokenizer: The tokenizer of the base, with its chat template.
        prompt: The messages before the agent's first turn.
        completion: The turns of the agent (`assistant`) and the observations (`user`), in order. Thinking in a turn of
            the agent is part of the reply, and no later request has it.
        arguments: Arguments of the template, the same as in the agent's requests; see `ModelOptions`.
        ends: Tokens at which generation ends, besides the tokenizer's own; see `end_tokens`.
        train_on_reasoning: Off, the agent's thinking is in the sequence but does not count.

    Raises:
        FrontierError: The tokenizer has no chat template, the template refuses the messages, or it ends the agent's
            turn with no token at which generation ends.
    """
    rendering = _Rendering(tokenizer, arguments or {}, _CLOCKS[0])
    messages, style = list(prompt), None
    prompt_ids = ids = rendering.encode(rendering.text(prompt))
    done, mask, starts = list[int](), list[int](), list[int]()
    for message in completion:
        if message.role == "assistant":
            style = style or _TurnStyle.of(rendering, prompt, ends)
            reply = style.reply(rendering, messages, message.content)
            if reply.request[: len(ids)] == ids:
                mask += [0] * (len(reply.request) - len(ids))
            else:
                done += ids
                starts.append(len(done) - len(prompt_ids))
                mask += [0] * len(reply.request)
            ids = reply.request + reply.ids
            unspoken = 0 if train_on_reasoning else reply.reasoning
            mask += [0] * unspoken + [1] * (len(reply.ids) - unspoken)
            message = message._replace(content=split_thinking(message.content).spoken)
        messages.append(message)
    return Tokens(prompt_ids, [*done, *ids][len(prompt_ids) :], mask, tuple(starts))


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

    def text(self, messages: Sequence[Message], *, asks: bool = True, reasoning: str = "") -> str:
        """Return messages as text.

        Args:
            messages: The conversation.
            asks: Whether the generation prompt follows.
            reasoning: What the agent thought before the last message.
        """
        if self.tokenizer.chat_template is None:
            raise FrontierError(
                f"The tokenizer of {_name(self.tokenizer)} has no chat template. Training needs one: give the folder "
                "of an instruction-tuned model, or add its chat_template.jinja.",
                code="chat-template.missing",
            )
        arguments = {**self.arguments, _CLOCK: self.clock.strftime}
        try:
            return render_chat(self.tokenizer, messages, arguments, reasoning=reasoning, add_generation_prompt=asks)
        except Exception as error:  # a template can raise anything
            roles = ", ".join(dict.fromkeys(message.role for message in messages))
            raise FrontierError(
                f"The chat template of {_name(self.tokenizer)} refuses a conversation with the roles {roles}: {error}. "
                "Give a model whose template takes them, or correct the model's `chat_template` arguments.",
                code="chat-template.refuses",
            ) from error

    def encode(self, text: str) -> list[int]:
        """Return rendered text as tokens."""
        return encode_rendered(self.tokenizer, text)


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.name_or_path or "the tokenizer"


class _Reply(NamedTuple):
    """One turn of the agent as tokens.

    Attributes:
        request: What it was sent.
        ids: What it wrote, up to and with the token that ended it.
        reasoning: How many of these come before its words.
    """

    request: list[int]
    ids: list[int]
    reasoning: int


class _TurnStyle(NamedTuple):
    """How a model writes a turn, by its template.

    Attributes:
        before: What it writes between the request and its words: nothing, a space, or the marker of a channel.
        end: What it writes after its words, up to and with the end-of-turn token.
        thinking: What it writes before and after a thought; None if the template does not tell.
        keeps_space: Whether later requests keep the white space around its words.
    """

    before: str
    end: str
    thinking: tuple[str, str] | None
    keeps_space: bool

    @classmethod
    def of(cls, rendering: _Rendering, prompt: Sequence[Message], ends: frozenset[int]) -> _TurnStyle:
        """Probe a template with a turn after `prompt`, once followed by a message and once as the last.

        Raises:
            FrontierError: The turn ends with no token at which generation ends.
        """
        request, spoken = rendering.text(prompt), Message("assistant", _WORDS)
        turns = [rendering.text([*prompt, spoken, _NEXT]), rendering.text([*prompt, spoken], asks=False)]
        turns = [turn for turn in turns if _WORDS in turn]
        begun = [turn.removeprefix(request).partition(_WORDS)[0] for turn in turns if turn.startswith(request)]
        before = begun[0] if begun else ""
        if before.strip() and not any(marker in before for marker in rendering.tokenizer.all_special_tokens):
            before = ""  # text of the template's, which the agent did not write
        end = _end_of_turn(rendering.tokenizer, [turn.partition(_WORDS)[2] for turn in turns], ends)
        turn = rendering.text([*prompt, spoken], asks=False, reasoning=_THOUGHT)
        opening, thought, rest = turn.removeprefix(request).partition(_THOUGHT)
        told = turn.startswith(request) and thought and _WORDS in rest
        spaced = f"\n \t{_WORDS}\t \n"  # which no template writes by itself
        keeps_space = spaced in rendering.text([*prompt, Message("assistant", spaced), _NEXT])
        return cls(before, end, (opening, rest.partition(_WORDS)[0]) if told else None, keeps_space)

    def reply(self, rendering: _Rendering, messages: Sequence[Message], content: str) -> _Reply:
        """Return one turn as tokens.

        Args:
            rendering: The template.
            messages: What the agent was sent.
            content: What it wrote.
        """
        request = rendering.text(messages)
        reasoning, words = self._parts(content, opened=request.rstrip().endswith(_OPENED))
        sent, whole = rendering.encode(request), rendering.encode(request + reasoning + words)
        if whole[: len(sent)] != sent:  # a token across the border, which no model writes
            whole = sent + rendering.encode(reasoning + words)
        thought = _common(whole, rendering.encode(request + reasoning)) if reasoning else len(sent)
        return _Reply(sent, whole[len(sent) :], max(thought - len(sent), 0))

    def _parts(self, content: str, *, opened: bool) -> tuple[str, str]:
        """Return reasoning and words of a turn as the model writes them; `opened` if the request began the thinking.

        A server that tells reasoning apart does not hand down the white space around it: then it is the template's.
        """
        written = content.strip()
        thought, spoken = split_thinking(written)
        if spoken == written:
            return "", f"{self.before}{content if self.keeps_space else written}{self.end}"
        if self.thinking is not None and written == _as_served(thought, spoken):
            return thought.join(self.thinking), spoken + self.end
        start = find_spoken(written).spans[-1][0]
        start += len(written[start:]) - len(written[start:].lstrip())
        reasoning = written[:start]
        if opened and reasoning.startswith(_OPENED):
            reasoning = reasoning.removeprefix(_OPENED).lstrip("\n")
        space = self.before if self.before.isspace() else ""
        return space + reasoning, written[start:] + self.end


def _as_served(thought: str, spoken: str) -> str:
    """Return thinking and words as a server's reply is kept that tells them apart; see `ChatReply.whole`."""
    return ChatReply(spoken, "stop", 0, 0, thought).whole


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, rests: Sequence[str], ends: frozenset[int]) -> str:
    """Return what ends a turn, white space before the end-of-turn token included.

    What follows that token, such as a line break, comes from the template.

    Args:
        tokenizer: The tokenizer.
        rests: What the template writes after the agent's words, where a message follows and where none does.
        ends: Tokens at which generation ends, besides the tokenizer's own.

    Raises:
        FrontierError: The turn ends with no such token.
    """
    special = tokenizer.all_special_ids
    own = [*([tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else []), *sorted(ends)]

    def begins(rest: str, tokens: Sequence[int], skipped: Sequence[int] = ()) -> str | None:
        """Return how `rest` begins with one of `tokens`, perhaps after white space and some of those `skipped`."""
        text = rest.lstrip()
        for token in (*tokens, *skipped):
            if (marker := tokenizer.decode([token])) and text.startswith(marker):
                space = rest[: len(rest) - len(text)]
                further = "" if token in tokens else begins(text.removeprefix(marker), tokens, skipped)
                return None if further is None else space + marker + further
        return None

    tries = [begins(rest, own) for rest in rests]
    tries += [begins(rest, own, special) for rest in rests[:1]]  # another marker goes before it
    found = next((end for end in tries if end is not None), None)
    if found is None:  # a token that no configuration names: the same one must come wherever the turn stands
        everywhere = [begins(rest, special) or "" for rest in rests]
        alike = len(everywhere) > 1 and len({end.strip() for end in everywhere}) == 1
        found = everywhere[0] or None if alike else None
    if found is None:
        raise FrontierError(
            f"The chat template of {_name(tokenizer)} ends the agent's turn with none of the tokens at which "
            "generation ends, so that training would not teach the agent to stop. Name the token that ends turns as "
            "eos_token_id in the model's generation_config.json.",
            code="chat-template.no-end",
        )
    return found


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many first tokens two sequences share."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
