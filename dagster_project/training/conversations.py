"""Preference pairs as tokens: the conversation of each side, and which of its tokens the agent wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dagster_project.training.job import ConversationRecord, PairFile
from toolemu.cases import Case
from toolemu.chat import Message
from toolemu.errors import FrontierError
from toolemu.prompts.render import AgentPrompt
from toolemu.toolkits import Toolkit
from toolemu.trajectory import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens(NamedTuple):
    """One trajectory as tokens.

    Attributes:
        prompt_ids: The conversation up to the agent's first word.
        completion_ids: Everything after it, observations and role markers included.
        agent_mask: 1 for each completion token that the agent wrote (its end-of-turn token included), else 0.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    agent_mask: list[int]


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


def tokenize(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], completion: Sequence[Message]) -> Tokens:
    """Tokenizes a conversation turn by turn, exactly as the agent's own requests were.

    Raises:
        FrontierError: The tokenizer has no chat template, or one that rewrites earlier turns when a later one comes.
    """
    if tokenizer.chat_template is None:
        raise FrontierError(f"The tokenizer of {tokenizer.name_or_path} has no chat template, which training needs.")

    def render(messages: Sequence[Message], generation: bool) -> list[int]:
        chat = [message._asdict() for message in messages]
        return list(tokenizer.apply_chat_template(chat, add_generation_prompt=generation, return_dict=False))

    messages = list(prompt)
    prompt_ids = ids = render(messages, True)
    mask: list[int] = []
    for message in completion:
        messages.append(message)
        longer = render(messages, message.role == "user")
        if longer[: len(ids)] != ids:
            raise FrontierError(
                f"The chat template of {tokenizer.name_or_path} changes earlier tokens when a turn is added, so the "
                "agent's tokens cannot be told from the rest. Use a template that only appends."
            )
        mask += [int(message.role == "assistant")] * (len(longer) - len(ids))
        ids = longer
    return Tokens(prompt_ids, ids[len(prompt_ids) :], mask)


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


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, file: PairFile, *, mask_observations: bool
) -> tuple[dict[str, Tokens], list[TokenPair]]:
    """Tokenizes each distinct conversation once; returns them by id, and the pairs.

    With `mask_observations` off every completion token counts, as in the paper's released code.
    """
    tokens: dict[str, Tokens] = {}
    for identity in dict.fromkeys(side for pair in file.pairs for side in (pair.chosen, pair.rejected)):
        record = file.conversations[identity]
        found = tokenize(tokenizer, record.prompt, record.completion)
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
