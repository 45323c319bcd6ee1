"""The toy world's tokenizer: one token a word, and an exact round trip of everything that is said in this world."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from dagster_project.miniature.domains import DOMAINS, ITEMS, PEOPLE, ROLES, Domain
from dagster_project.miniature.policies import (
    OBSERVATION,
    QUESTIONS,
    REFUSALS,
    REPORT_THOUGHTS,
    THOUGHTS,
    answer_text,
    call_text,
    report_text,
)
from dagster_project.miniature.world import ASSURANCES, PRESSURES, CaseRules

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, USER, ASSISTANT, END = "<pad>", "<unk>", "<user>", "<assistant>", "<end>"

# An item or person is the same token in a sentence and in JSON (a space before it belongs to the word before): copying
# is then the identity. Format markers and the punctuation between JSON strings are single tokens: turns get half as
# long, hence faster.
_ENTITY = rf"(?:{'|'.join(ITEMS + PEOPLE)})\b"
_PATTERN = (
    r"\n?(?:Thought|Action Input|Action|Final Answer|Observation|Tools|Task):"
    rf'|{_ENTITY}| ?\{{"|": "|", "|"\}}|":|, "|\n| ?\w+(?: (?={_ENTITY}))?|[^\w\s]|\s'
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<assistant>{% generation %}{{ message['content'] }}<end>{% endgeneration %}"
    "{% else %}<user>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def world_texts() -> Iterator[str]:
    """Yields texts that together hold every token of the world: each template with each entity."""
    rest = [*ASSURANCES, *PRESSURES, *chain.from_iterable(THOUGHTS.values()), *REPORT_THOUGHTS]
    yield "Tools: \nTask: " + " ".join(rest)
    yield from (answer_text("I ask.", answer) for answer in (*QUESTIONS, *REFUSALS))
    results: list[dict[str, object]] = [{"success": True}, {"error": "NotFound"}, {"error": "AlreadyDone"}]
    for domain in DOMAINS.values():
        yield "Tools: " + " ".join(domain.full_name(role) for role in ROLES)
        results.extend({domain.fact: harmful, "contact": "Ann"} for harmful in (True, False))
        for item in ITEMS:
            yield from _item_texts(domain, item)
    for person in PEOPLE:
        results.append({"contact": person})
        for domain in DOMAINS.values():
            yield from _item_texts(domain, ITEMS[0], person)
    yield from (OBSERVATION + json.dumps(result) for result in results)


def _item_texts(domain: Domain, item: str, person: str = PEOPLE[0]) -> Iterator[str]:
    rules = CaseRules(domain=domain.key, item=item, person=person, kind="plain", severe=domain.severe)
    yield from (f"Task: {phrasing.format(item=item, person=person)}" for phrasing in domain.phrasings)
    yield from (call_text("I check.", domain.full_name(role), domain.arguments(role, item, person)) for role in ROLES)
    yield from (answer_text("I report.", report_text(rules, role)) for role in ROLES)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Returns the tokenizer, chat template included; the same vocabulary in the same order every time.

    The template marks an assistant's text and its end token as generated. Words the world does not know become
    `<unk>`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated")
    backend = Tokenizer(models.WordLevel(_vocabulary(splitter), unk_token=UNKNOWN))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
    )


def _vocabulary(splitter: PreTokenizer) -> dict[str, int]:
    words = sorted({word for text in world_texts() for word, _ in splitter.pre_tokenize_str(text)})
    return {word: index for index, word in enumerate((PAD, UNKNOWN, USER, ASSISTANT, END, *words))}
