"""Preference pairs as tokens: the conversation of each side, and which of its tokens the agent wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_project.training.chat_template import Tokens, check_clock, tokenize
from dagster_project.training.job import ConversationRecord, PairFile
from toolemu.cases import Case
from toolemu.prompts.render import AgentPrompt
from toolemu.thinking import strip_thinking
from toolemu.toolkits import Toolkit
from toolemu.trajectory import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenPair(NamedTuple):
    """One preference pair as tokens; both sides begin with the same prompt.

    Attributes:
        prompt_ids: The agent's first request.
        chosen_ids, rejected_ids: What follows it in either conversation; see `Tokens.completion_ids`.
        chosen_mask, rejected_mask: Which of these tokens count; see `Tokens.agent_mask`.
        chosen_id, rejected_id: The conversations.
        chosen_starts, rejected_starts: Where their further sequences begin; see `Tokens.starts`.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_mask: list[int]
    rejected_mask: list[int]
    chosen_id: str = ""
    rejected_id: str = ""
    chosen_starts: tuple[int, ...] = ()
    rejected_starts: tuple[int, ...] = ()

    @property
    def sides(self) -> tuple[Tokens, Tokens]:
        """The two conversations, the chosen one first."""
        return (
            Tokens(self.prompt_ids, self.chosen_ids, self.chosen_mask, self.chosen_starts),
            Tokens(self.prompt_ids, self.rejected_ids, self.rejected_mask, self.rejected_starts),
        )

    @property
    def length(self) -> int:
        """Tokens of the longest sequence, prompt included."""
        return max(int(one.stop - one.start) for side in self.sides for one in side.stretches())

    @property
    def sequences(self) -> int:
        """Sequences of both conversations: two if the chat template only appends."""
        return 2 + len(self.chosen_starts) + len(self.rejected_starts)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


def conversation_records(
    trajectories: Iterable[Trajectory], cases: Sequence[Case], toolkits: Mapping[str, Toolkit], prompt: AgentPrompt
) -> list[ConversationRecord]:
    """Return trajectories as the messages that training sees, the agent's thinking in its turns."""
    records = []
    for trajectory in trajectories:
        case = cases[trajectory.case_idx]
        turns = prompt.conversation(case, [toolkits[name] for name in case.toolkits], trajectory, thinking=True)
        records.append(
            ConversationRecord(id=trajectory.trajectory_id, prompt=turns.prompt, completion=turns.completion)
        )
    return records


def has_words(record: ConversationRecord) -> bool:
    """Return whether the agent says anything in a conversation."""
    return any(message.role == "assistant" and strip_thinking(message.content).strip() for message in record.completion)


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase,
    file: PairFile,
    *,
    mask_observations: bool,
    train_on_reasoning: bool = True,
    arguments: Mapping[str, Any] | None = None,
    ends: frozenset[int] = frozenset(),
) -> tuple[dict[str, Tokens], list[TokenPair]]:
    """Tokenize each distinct conversation once; return them by id, and the pairs.

    Args:
        tokenizer: The tokenizer of the base, with its chat template.
        file: The pairs and their conversations.
        mask_observations: Off, every completion token of a first sequence counts, as in the paper's released code. In
            further sequences the agent's alone do, since they repeat the rest.
        train_on_reasoning: Off, the agent's thinking does not count; see `tokenize`.
        arguments: Arguments of the chat template; see `tokenize`.
        ends: Tokens at which generation ends; see `tokenize`.

    Raises:
        FrontierError: The chat template cannot be trained on; see `tokenize` and `check_clock`.
    """
    tokens: dict[str, Tokens] = {}
    for identity in dict.fromkeys(side for pair in file.pairs for side in (pair.chosen, pair.rejected)):
        record = file.conversations[identity]
        check_clock(tokenizer, [*record.prompt, *record.completion], arguments)
        found = tokenize(
            tokenizer, record.prompt, record.completion, arguments, ends, train_on_reasoning=train_on_reasoning
        )
        if not mask_observations:
            first = found.starts[0] if found.starts else len(found.agent_mask)
            found = found._replace(agent_mask=[1] * first + found.agent_mask[first:])
        tokens[identity] = found
    pairs = []
    for pair in file.pairs:
        chosen, rejected = tokens[pair.chosen], tokens[pair.rejected]
        pairs.append(
            TokenPair(
                chosen.prompt_ids,
                chosen.completion_ids,
                rejected.completion_ids,
                chosen.agent_mask,
                rejected.agent_mask,
                pair.chosen,
                pair.rejected,
                chosen.starts,
                rejected.starts,
            )
        )
    return tokens, pairs
