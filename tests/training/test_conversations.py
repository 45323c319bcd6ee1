from __future__ import annotations

from typing import Any

import pytest

from dagster_project.miniature.tokenizer import ASSISTANT, END, USER, build_tokenizer
from dagster_project.training.chat_template import Tokens, tokenize
from toolemu.chat import Message
from toolemu.errors import FrontierError
from toolemu.prompts.render import Conversation
from toolemu.trajectory import Trajectory

from .templates import turns_of
from .toy import CASES, PROMPT, TOOLKITS, Corpus


def conversation(trajectory: Trajectory) -> Conversation:
    case = CASES[trajectory.case_idx]
    return PROMPT.conversation(case, [TOOLKITS[name] for name in case.toolkits], trajectory)


def runs(tokens: Tokens, value: int) -> list[list[int]]:
    """Returns the stretches of completion tokens whose mask is `value`."""
    found: list[list[int]] = []
    previous = None
    for token, mask in zip(tokens.completion_ids, tokens.agent_mask, strict=True):
        if mask == value:
            if previous != value:
                found.append([])
            found[-1].append(token)
        previous = mask
    return found


def test_the_mask_covers_the_agents_turns_with_their_ends_and_nothing_else(corpus: Corpus) -> None:
    tokenizer = build_tokenizer()
    assert any(len(trajectory.steps) > 1 for trajectory in corpus.trajectories.values())
    for trajectory in corpus.trajectories.values():
        turns = conversation(trajectory)
        tokens = tokenize(tokenizer, *turns)
        spoken = [message.content for message in turns.completion if message.role == "assistant"]
        heard = [message.content for message in turns.completion if message.role == "user"]
        assert spoken == [*(step.log for step in trajectory.steps), trajectory.final_log]
        assert [tokenizer.decode(run) for run in runs(tokens, 1)] == [text + END for text in spoken]
        assert [tokenizer.decode(run) for run in runs(tokens, 0)] == [USER + text + ASSISTANT for text in heard]


def test_tokens_are_those_that_each_request_of_the_agent_had(corpus: Corpus) -> None:
    tokenizer = build_tokenizer()
    for trajectory in corpus.trajectories.values():
        case = CASES[trajectory.case_idx]
        tokens = tokenize(tokenizer, *conversation(trajectory))
        whole = tokens.prompt_ids + tokens.completion_ids
        mask = [0] * len(tokens.prompt_ids) + tokens.agent_mask
        for turn, log in enumerate([*(step.log for step in trajectory.steps), trajectory.final_log]):
            request = PROMPT.messages(case, [TOOLKITS[name] for name in case.toolkits], trajectory.steps[:turn])
            sent = tokenizer.apply_chat_template(
                [message._asdict() for message in request], add_generation_prompt=True, return_dict=False
            )
            reply = tokenizer.encode(log + END, add_special_tokens=False)
            end = len(sent) + len(reply)
            assert whole[: len(sent)] == sent
            assert whole[len(sent) : end] == reply
            assert mask[len(sent) : end] == [1] * len(reply)
            assert mask[len(sent) - 1] == 0
            assert end == len(whole) or mask[end] == 0


def test_pairs_share_their_prompt_and_count_every_token_if_observations_are_not_masked(corpus: Corpus) -> None:
    masked, whole = corpus.tokens(), corpus.tokens(mask_observations=False)
    assert len(masked) == len(whole) == len(corpus.pairs) > 0
    for pair, all_counted, record in zip(masked, whole, corpus.pairs, strict=True):
        assert set(all_counted.chosen_mask) == set(all_counted.rejected_mask) == {1}
        assert pair[:3] == all_counted[:3]
        for name in ("chosen", "rejected"):
            trajectory = corpus.trajectories[getattr(record, f"{name}_trajectory_id")]
            alone = tokenize(build_tokenizer(), *conversation(trajectory))
            assert alone[:3] == (pair.prompt_ids, getattr(pair, f"{name}_ids"), getattr(pair, f"{name}_mask"))
            assert alone.starts == getattr(pair, f"{name}_starts") == ()
        assert pair.length == len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))


# Two templates in real use: one that drops earlier turns' text, and one that marks the last turn only.
REWRITING = {
    "drops the thoughts of earlier turns": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}<assistant>"
        "{{ m['content'] if loop.last else m['content'].split('Action')[-1] }}<end>"
        "{% else %}<user>{{ m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
    "ends only the last turn": (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if loop.last %}<end>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
}


@pytest.mark.parametrize("template", REWRITING.values(), ids=list(REWRITING))
def test_a_template_that_rewrites_earlier_turns_makes_a_sequence_a_turn(corpus: Corpus, template: str) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    longest = max(corpus.trajectories.values(), key=lambda trajectory: len(trajectory.steps))
    case = CASES[longest.case_idx]
    logs = [*(step.log for step in longest.steps), longest.final_log]
    tokens = tokenize(tokenizer, *conversation(longest))
    assert len(tokens.stretches()) == len(logs) > 2
    for turn, (request, reply) in enumerate(turns_of(tokens)):
        messages = PROMPT.messages(case, [TOOLKITS[name] for name in case.toolkits], longest.steps[:turn])
        chat = [message._asdict() for message in messages]
        assert request == tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert reply == tokenizer.encode(logs[turn] + END, add_special_tokens=False)
    beginnings = {tuple(tokens.ids[one][:stop]) for one in tokens.stretches() for stop in range(1, len(tokens.ids) + 1)}
    assert tokens.own_tokens() == len(beginnings) - len(tokens.prompt_ids) < len(tokens.completion_ids)


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer: Any = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(FrontierError) as refused:
        tokenize(tokenizer, [Message("user", "Task: x")], [Message("assistant", "y")])
    assert refused.value.code == "chat-template.missing"


def test_an_agent_that_wrote_nothing_has_no_tokens() -> None:
    tokens = tokenize(build_tokenizer(), [Message("user", "Task: x")], [])
    assert tokens.completion_ids == tokens.agent_mask == []
