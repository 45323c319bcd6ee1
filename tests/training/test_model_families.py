"""The chat templates of model families in use, as TRL ships them: what is trained on is what was sent and written."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import PreTrainedTokenizerFast

from dagster_project.training.chat_template import tokenize
from toolemu.chat import Message, fold_system

from .templates import byte_tokenizer, turns_of

FOLDER = Path(trl.__file__).parent / "chat_templates"
MARKER = re.compile(
    r"<[|｜][^<>\s'\"|｜]+[|｜]>|<[|｜][^<>\s'\"]+>|<[^<>\s'\"/]+[|｜]>|</?[a-z]+_of_[a-z]+>|<end_of_utterance>"
)
"""Special tokens as templates spell them."""
ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>", "deepseek": "<｜end▁of▁sentence｜>", "diffusion_gemma": "<turn|>",
    "gemma4": "<turn|>", "gemma": "<end_of_turn>", "glm4moe": "<|user|>", "gptoss": "<|return|>", "llava": "</s>",
    "idefics3": "<end_of_utterance>", "smolvlm": "<end_of_utterance>", "llama3": "<|eot_id|>", "phi3": "<|end|>",
    "muse_glimmer": "<|eot|>",
}  # fmt: skip
"""What a family ends turns with, by the beginning of its templates' names; ChatML's in all others."""
BEFORE = {"gptoss": "<|channel|>final<|message|>", "muse_glimmer": "to=user<|message|>"}
"""What a family writes before its words."""
ENDS_BEFORE = {"cohere2": "<|END_RESPONSE|>"}
"""What a family writes between its words and the end of the turn."""
THINKING = {
    "diffusion_gemma": "<|channel>thought{}<channel|>", "gemma4_v5": "<|channel>thought{}<channel|>",
    "gptoss": "<|channel|>analysis<|message|>{}<|end|><|start|>assistant",
    "muse_glimmer": "to=self<|message|>{}<|eom|><|start|>assistant",
}  # fmt: skip
"""How a family sets off a thought, white space left out; in `<think>` tags in all others."""
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
CLOCK = {"strftime_now": datetime.datetime(2001, 2, 3, 4, 5, 6).strftime}  # noqa: DTZ001 - at which training renders
PROMPT = [Message("system", "You keep house."), Message("user", "Turn on lamp 3.")]
CALL, OTHER = 'Action: Lamp\nAction Input: {"lamp": 3}', "Action: Look\nAction Input: {}"
REPLIES = [CALL, OTHER, "Final Answer: It is on."]
THOUGHT = "The lamp is near."
FORMS = [
    lambda messages: [message._asdict() for message in messages],
    lambda messages: [
        {"role": message.role, "content": [{"type": "text", "text": message.content}]} for message in messages
    ],
]


def of(table: Mapping[str, str], name: str, default: str = "") -> str:
    """Return what a table says of a template, by the beginning of its name."""
    return next((value for begin, value in table.items() if name.startswith(begin)), default)


def _end(name: str) -> str:
    return of(ENDS_BEFORE, name) + of(ENDS, name, "<|im_end|>")


def family(name: str) -> PreTrainedTokenizerFast:
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return byte_tokenizer(template, of(ENDS, name, "<|im_end|>"), dict.fromkeys(MARKER.findall(template)), "<bos>")


def sent(tokenizer: Any, arguments: Mapping[str, Any]) -> list[list[int]]:
    """Return the agent's requests as transformers renders them, in the first form that the template takes."""
    found = []
    for turn in range(len(REPLIES)):
        messages = [*PROMPT]
        for reply in REPLIES[:turn]:
            messages += [Message("assistant", reply), Message("user", "Observation: on")]
        for form, whole in itertools.product(FORMS, (messages, fold_system(messages))):
            with contextlib.suppress(Exception):
                ids = tokenizer.apply_chat_template(
                    form(whole), add_generation_prompt=True, return_dict=False, **arguments, **CLOCK
                )
                if PROMPT[-1].content in tokenizer.decode(ids):
                    found.append(list(ids))
                    break
    return found


def trained(name: str, replies: Sequence[str], arguments: Mapping[str, Any]) -> list[tuple[list[int], str]]:
    """Return what is trained on of a conversation: requests as tokens, replies as text."""
    completion = [
        part for reply in replies for part in (Message("assistant", reply), Message("user", "Observation: on"))
    ]
    tokenizer = family(name)
    tokens = tokenize(tokenizer, PROMPT, completion[:-1], arguments)
    return [(request, tokenizer.decode(reply)) for request, reply in turns_of(tokens)]


@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_turn_is_trained_on_as_it_was_sent_and_written(name: str, thinking: bool | None) -> None:
    arguments = {} if thinking is None else {"enable_thinking": thinking}
    found = trained(name, REPLIES, arguments)
    assert [request for request, _ in found] == sent(family(name), arguments)
    assert [reply.lstrip() for _, reply in found] == [of(BEFORE, name) + reply + _end(name) for reply in REPLIES]


@pytest.mark.parametrize("name", FAMILIES)
def test_no_later_request_has_what_the_agent_thought(name: str) -> None:
    thought = f"<think>\n{THOUGHT}\n</think>\n{CALL}"
    found = trained(name, [thought, *REPLIES[1:]], {})
    assert [request for request, _ in found] == sent(family(name), {})
    first, *others = (reply for _, reply in found)
    set_off = of(THINKING, name, "<think>{}</think>")
    opens = "<think>" in set_off and family(name).decode(found[0][0]).rstrip().endswith("<think>")
    expected = set_off.format(THOUGHT) + of(BEFORE, name) + CALL + _end(name)
    assert "".join(first.split()) == "".join(expected.split()).removeprefix("<think>" if opens else "")
    assert others == [reply for _, reply in trained(name, REPLIES, {})[1:]]
