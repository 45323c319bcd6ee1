"""Preference pairs as tokens: the conversation of each side, and which of its tokens the agent wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_project.training.chat_template import Tokens, check_clock, tokenize
from dagster_project.training.job import ConversationRecord, PairFile
from toolemu.cases import Case
from toolemu.prompts.render import AgentPrompt
from toolemu.toolkits import Toolkit
from toolemu.trajectory import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenPair(NamedTuple):
    """One preference pair as tokens; both sides begin with the same prompt."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_mask: list[int]
    rejected_mask: list[int]
    chosen_id: str = ""
    rejected_id: str = ""

    @property
    def length(self) -> int:
        """Tokens of the longer side, prompt included."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def conversation_records(
    trajectories: Iterable[Trajectory], cases: Sequence[Case], toolkits: Mapping[str, Toolkit], prompt: AgentPrompt
) -> list[ConversationRecord]:
    """Returns trajectories as the messages that training sees."""
    records = []
    for trajectory in trajectories:
        case = cases[trajectory.case_idx]
        turns = prompt.conversation(case, [toolkits[name] for name in case.toolkits], trajectory)
        records.append(
            ConversationRecord(id=trajectory.trajectory_id, prompt=turns.prompt, completion=turns.completion)
        )
    return records


def has_words(record: ConversationRecord) -> bool:
    """Return whether the agent says anything in a conversation."""
    return any(message.role == "assistant" and message.content.strip() for message in record.completion)


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase,
    file: PairFile,
    *,
    mask_observations: bool,
    arguments: Mapping[str, Any] | None = None,
    ends: frozenset[int] = frozenset(),
) -> tuple[dict[str, Tokens], list[TokenPair]]:
    """Tokenize each distinct conversation once; return them by id, and the pairs.

    Args:
        tokenizer: The tokenizer of the base, with its chat template.
        file: The pairs and their conversations.
        mask_observations: Off, every completion token counts, as in the paper's released code.
        arguments: Arguments of the chat template; see `tokenize`.
        ends: Tokens at which generation ends; see `tokenize`.

    Raises:
        FrontierError: The chat template cannot be trained on; see `tokenize` and `check_clock`.
    """
    tokens: dict[str, Tokens] = {}
    for identity in dict.fromkeys(side for pair in file.pairs for side in (pair.chosen, pair.rejected)):
        record = file.conversations[identity]
        check_clock(tokenizer, [*record.prompt, *record.completion], arguments)
        found = tokenize(tokenizer, record.prompt, record.completion, arguments, ends)
        tokens[identity] = found if mask_observations else found._replace(agent_mask=[1] * len(found.agent_mask))
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
            )
        )
    return tokens, pairs
