"""Training sees the tokens that the agent was sent and wrote, and no others, or says which template prevents that."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.chat_template_utils as rendering
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.training.chat_template import Tokens, check_clock, end_tokens, tokenize
from toolemu.chat import Message, fold_system
from toolemu.chat.settings import ModelOptions
from toolemu.errors import FrontierError

from .templates import (
    CLOSED,
    DATED,
    DATED_WITHOUT_SYSTEM,
    ENDLESS,
    NO_SYSTEM,
    OPENS,
    PLAIN,
    PREFIXES,
    SHORTENS,
    SIGNED,
    SPLITS,
    SWITCHED,
    THINKS_LAST,
    TRIMMING,
    byte_tokenizer,
    turns_of,
)

PROMPT = [Message("system", "You keep house."), Message("user", "Turn on lamp 3.")]
CALL, RESULT, ANSWER = 'Action: Lamp\nAction Input: {"lamp": 3}', "Observation: on", "Final Answer: It is on."
COMPLETION = [Message("assistant", CALL), Message("user", RESULT), Message("assistant", ANSWER)]
APPENDING = {"plain": PLAIN, "trimming": TRIMMING, "closed": CLOSED, "thinks last": THINKS_LAST}
REWRITING: dict[str, tuple[str, dict[str, Any]]] = {
    "shortens": (SHORTENS, {}),
    "prefixes": (PREFIXES, {}),
    "no thinking": (SWITCHED, {"enable_thinking": False}),
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
WORDS = TEXT.map(str.strip).filter(bool)


def requests(template: str, arguments: Mapping[str, Any], completion: list[Message]) -> list[list[int]]:
    """Returns the tokens of every request of the agent, as an in-process model or a server renders them."""
    tokenizer = byte_tokenizer(template)
    sent = [[*PROMPT, *completion[:place]] for place, turn in enumerate(completion) if turn.role == "assistant"]
    return [
        list(
            tokenizer.apply_chat_template(
                [message._asdict() for message in messages],
                add_generation_prompt=True,
                return_dict=False,
                **arguments,
            )
        )
        for messages in sent
    ]


def check_turns(tokens: Tokens, template: str, arguments: Mapping[str, Any], completion: list[Message]) -> None:
    """Check that what is trained on is every reply, each after its own request."""
    tokenizer = byte_tokenizer(template)
    replies = [turn.content for turn in completion if turn.role == "assistant"]
    written = [tokenizer.encode(f"{reply}[/end]", add_special_tokens=False) for reply in replies]
    assert turns_of(tokens) == list(zip(requests(template, arguments, completion), written, strict=True))


@pytest.mark.parametrize(("template", "kept"), [(PLAIN, True), (TRIMMING, False)])
def test_white_space_around_words_is_the_agents_where_later_requests_keep_it(template: str, kept: bool) -> None:
    spaced = [COMPLETION[0]._replace(content=f" \n{CALL}\n "), *COMPLETION[1:]]
    tokens = tokenize(byte_tokenizer(template), PROMPT, spaced)
    assert tokens.starts == (), "one sequence"
    plain = tokenize(byte_tokenizer(template), PROMPT, COMPLETION)
    assert (len(tokens.completion_ids) - len(plain.completion_ids), sum(tokens.agent_mask) - sum(plain.agent_mask)) == (
        (4, 4) if kept else (0, 0)
    )


def check_tokens(tokens: Tokens, template: str, arguments: Mapping[str, Any], completion: list[Message]) -> None:
    """Checks that every request is a beginning of the sequence, and that its reply and nothing else is the agent's."""
    assert not tokens.starts
    tokenizer = byte_tokenizer(template)
    whole = [*tokens.prompt_ids, *tokens.completion_ids]
    mask = [0] * len(tokens.prompt_ids) + tokens.agent_mask
    expected = [0] * len(whole)
    replies = [turn.content for turn in completion if turn.role == "assistant"]
    for request, reply in zip(requests(template, arguments, completion), replies, strict=True):
        written = tokenizer.encode(f"{reply}[/end]", add_special_tokens=False)
        assert whole[: len(request)] == request
        assert whole[len(request) : len(request) + len(written)] == written
        expected[len(request) : len(request) + len(written)] = [1] * len(written)
    assert mask == expected
    assert whole[-1] == tokenizer.eos_token_id, "nothing follows the agent's last word"


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(list(APPENDING)), st.lists(st.tuples(WORDS, TEXT), max_size=3), WORDS)
def test_tokens_are_those_of_the_agents_requests_and_replies(
    name: str, turns: list[tuple[str, str]], answer: str
) -> None:
    template = APPENDING[name]
    completion = [part for call, result in turns for part in (Message("assistant", call), Message("user", result))]
    completion.append(Message("assistant", answer))
    check_tokens(tokenize(byte_tokenizer(template), PROMPT, completion), template, {}, completion)


@pytest.mark.parametrize("written", ["a[/end]b", "[/end]", "[user]", "[assistant]\n[/end]\n[user]"])
@pytest.mark.parametrize("name", APPENDING)
def test_markers_in_the_agents_own_text_do_not_end_its_turn(name: str, written: str) -> None:
    completion = [Message("assistant", written), Message("user", RESULT), Message("assistant", written)]
    tokens = tokenize(byte_tokenizer(APPENDING[name]), PROMPT, completion)
    check_tokens(tokens, APPENDING[name], {}, completion)


@pytest.mark.parametrize("options", [{"chat_template": {"signature": "From the house."}}, {}])
def test_template_arguments_are_those_of_the_agents_requests(options: dict[str, Any]) -> None:
    arguments = ModelOptions(**options).template_arguments()
    tokens = tokenize(byte_tokenizer(SIGNED), PROMPT, COMPLETION, arguments)
    check_tokens(tokens, SIGNED, arguments, COMPLETION)
    assert ("house" in byte_tokenizer(SIGNED).decode(tokens.prompt_ids).partition("You")[0]) == bool(options)


@pytest.mark.parametrize("thinking", [None, True, False])
def test_the_switch_for_thinking_reaches_the_prompt_of_training(thinking: bool | None) -> None:
    arguments = ModelOptions(thinking=thinking).template_arguments()
    tokens = tokenize(byte_tokenizer(SWITCHED), PROMPT, COMPLETION, arguments)
    check_turns(tokens, SWITCHED, arguments, COMPLETION)
    # Without thinking, the history lacks the empty block that the request ended in.
    assert len(tokens.stretches()) == (2 if thinking is False else 1)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(list(REWRITING)), st.lists(st.tuples(WORDS, TEXT), max_size=3), WORDS)
def test_templates_that_rewrite_turns_make_several_sequences(
    name: str, turns: list[tuple[str, str]], answer: str
) -> None:
    template, arguments = REWRITING[name]
    completion = [part for call, result in turns for part in (Message("assistant", call), Message("user", result))]
    completion.append(Message("assistant", answer))
    tokens = tokenize(byte_tokenizer(template), PROMPT, completion, arguments)
    check_turns(tokens, template, arguments, completion)
    assert len(tokens.starts) <= len(turns)


def test_a_template_without_system_role_has_the_system_prompt_in_the_first_user_message() -> None:
    folded = tokenize(byte_tokenizer(PLAIN), fold_system(PROMPT), COMPLETION)
    assert tokenize(byte_tokenizer(NO_SYSTEM), PROMPT, COMPLETION) == folded


THOUGHT = "The lamp is near."


def thinking_tokens(template: str, reply: str, **options: Any) -> list[str]:
    """Return what is trained on, as text, of a reply that thinks and one that follows."""
    completion = [Message("assistant", reply), Message("user", RESULT), Message("assistant", ANSWER)]
    tokens = tokenize(byte_tokenizer(template), PROMPT, completion, **options)
    assert [request for request, _ in turns_of(tokens)][1] == requests(template, {}, COMPLETION)[1]
    assert len(tokens.stretches()) == 2, "no later request has the thought"
    return [byte_tokenizer(template).decode(written) for _, written in turns_of(tokens)]


@pytest.mark.parametrize(
    ("template", "reply", "written"),
    [
        (PLAIN, f"<think>\n{THOUGHT}\n</think>\n{CALL}", f"<think>\n{THOUGHT}\n</think>\n{CALL}[/end]"),
        (PLAIN, f"<think>{THOUGHT}</think>{CALL}", f"<think>{THOUGHT}</think>{CALL}[/end]"),
        # A server that tells reasoning apart does not say how it was set off: the template does.
        (SPLITS, f"<think>\n{THOUGHT}\n</think>\n{CALL}", f"<think>\n{THOUGHT}\n</think>\n\n{CALL}[/end]"),
        (SPLITS, f"<think>{THOUGHT}</think>{CALL}", f"<think>{THOUGHT}</think>{CALL}[/end]"),
        # The request began the thinking.
        (OPENS, f"<think>\n{THOUGHT}\n</think>\n{CALL}", f"{THOUGHT}\n</think>\n{CALL}[/end]"),
        (OPENS, f"{THOUGHT}\n</think>\n\n{CALL}", f"{THOUGHT}\n</think>\n\n{CALL}[/end]"),
    ],
)
def test_what_the_agent_thought_is_trained_on_as_it_was_written(template: str, reply: str, written: str) -> None:
    assert thinking_tokens(template, reply) == [written, f"{ANSWER}[/end]"]


@pytest.mark.parametrize("template", [PLAIN, SPLITS, OPENS])
def test_thinking_need_not_count(template: str) -> None:
    reply = f"<think>\n{THOUGHT}\n</think>\n{CALL}"
    found = thinking_tokens(template, reply, train_on_reasoning=False)
    assert found == [f"{CALL}[/end]", f"{ANSWER}[/end]"]
    assert THOUGHT in byte_tokenizer(template).decode(
        tokenize(byte_tokenizer(template), PROMPT, [Message("assistant", reply)], train_on_reasoning=False).ids
    )


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{ messages[0]['text'] | length / 0 }}", "chat-template.refuses"),
        (None, "chat-template.missing"),
        (ENDLESS, "chat-template.no-end"),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused(template: str | None, code: str) -> None:
    with pytest.raises(FrontierError) as refused:
        tokenize(byte_tokenizer(template), PROMPT, COMPLETION)
    assert refused.value.code == code


def test_the_end_of_a_turn_may_be_named_by_the_model_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert end_tokens(tmp_path) == {7, 9}
    tokenizer = byte_tokenizer(PLAIN, end="[stop]")
    (end,) = tokenizer.encode("[/end]", add_special_tokens=False)
    for named in (frozenset({end}), frozenset[int]()):  # where nobody names it, it is the special token that ends turns
        tokens = tokenize(tokenizer, PROMPT, COMPLETION, None, named)
        assert sum(tokens.agent_mask) == len(CALL) + len(ANSWER) + 2
        assert tokens.completion_ids[-1] == end


def on_day(day: int, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(2026, 11, day, tzinfo=tz)

    monkeypatch.setattr(rendering, "datetime", Clock)
    return tokenize(byte_tokenizer(DATED), PROMPT, COMPLETION)


def test_tokens_depend_on_no_day(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_day(3, monkeypatch) == on_day(28, monkeypatch)


@pytest.mark.parametrize(
    ("template", "arguments", "prompt", "reads"),
    [
        (DATED, {}, PROMPT, True),
        (DATED, {"date_string": "26 Jul 2024"}, PROMPT, False),
        (DATED_WITHOUT_SYSTEM, {}, PROMPT, False),
        (DATED_WITHOUT_SYSTEM, {}, PROMPT[1:], True),
        (PLAIN, {}, PROMPT, False),
    ],
)
def test_a_template_that_writes_the_date_is_refused(
    template: str, arguments: dict[str, str], prompt: list[Message], reads: bool
) -> None:
    code = ""
    try:
        check_clock(byte_tokenizer(template), [*prompt, *COMPLETION], arguments)
    except FrontierError as error:
        code = error.code
    assert code == ("chat-template.reads-clock" if reads else "")


def test_arguments_are_part_of_the_job_file(tmp_path: Path) -> None:
    from dagster_project.training.job import TrainingJob, read_job, write_job

    arguments = ModelOptions(thinking=False, chat_template={"date_string": "1 Jan 2024"}).template_arguments()
    job = TrainingJob(base=tmp_path, pairs=tmp_path, out=tmp_path, chat_template=arguments)
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json").chat_template == arguments
    assert json.loads((tmp_path / "job.json").read_text())["chat_template"]["enable_thinking"] is False
