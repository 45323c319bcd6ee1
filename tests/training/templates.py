"""Chat templates that behave as those in use do, and a tokenizer that knows every text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

from dagster_project.training.chat_template import Tokens

_TURN = "[{{ m['role'] }}]\n{{ m['content'] }}[/end]\n"
_ASK = "{% if add_generation_prompt %}[assistant]\n{% endif %}"


def _each(turn: str, after: str = _ASK, before: str = "") -> str:
    return f"{before}{{% for m in messages %}}{turn}{{% endfor %}}{after}"


PLAIN = _each(_TURN)
"""A line break follows the token that ends a turn, as in ChatML."""
TRIMMING = _each(_TURN.replace("m['content']", "m['content'] | trim"))
CLOSED = _each(_TURN, "{% if add_generation_prompt %}[assistant]\n{% else %}{{ eos_token }}{% endif %}")
"""Ends in the end-of-text token unless a reply is asked for, as Phi-3's."""
THINKS_LAST = _each(
    "[{{ m['role'] }}]\n{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}[/end]\n"
)
"""Writes an empty thinking block into an assistant's message if it is the last, as Qwen3's."""
DATED = _each(
    _TURN,
    before="{% set day = date_string if date_string is defined else strftime_now('%d %b %Y') %}"
    "[system]\nIt is {{ day }}.[/end]\n",
)
DATED_WITHOUT_SYSTEM = _each(
    _TURN,
    before="{% set day = strftime_now('%Y-%m-%d') %}"
    "{% if messages[0]['role'] != 'system' %}[system]\n{{ day }}[/end]\n{% endif %}",
)
SWITCHED = _each(
    _TURN,
    "{% if add_generation_prompt %}[assistant]\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
SPLITS = _each(
    "[{{ m['role'] }}]\n{% if m['reasoning_content'] is defined %}"
    "<think>\n{{ m['reasoning_content'] }}\n</think>\n\n{% endif %}{{ m['content'] }}[/end]\n"
)
"""Sets thinking off in its own way, as Qwen3's."""
OPENS = _each(_TURN, "{% if add_generation_prompt %}[assistant]\n<think>\n{% endif %}")
"""Begins the thinking in the request, as DeepSeek's."""
SIGNED = _each(_TURN, before="{% if signature is defined %}[system]\n{{ signature }}[/end]\n{% endif %}")
"""Takes an argument."""

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}" + PLAIN
SHORTENS = _each(
    "[{{ m['role'] }}]\n{{ m['content'] if loop.last or m['role'] != 'assistant' else 'Before.' }}[/end]\n"
)
"""Replaces earlier turns."""
PREFIXES = _each("[{{ m['role'] }}]\n{% if m['role'] == 'assistant' %}Sure! {% endif %}{{ m['content'] }}[/end]\n")
ENDLESS = _each("[{{ m['role'] }}]\n{{ m['content'] }}\n")


def turns_of(tokens: Tokens) -> list[tuple[list[int], list[int]]]:
    """Return what is trained on: each stretch of tokens that count, with all that comes before it in its sequence."""
    found = []
    for stretch in tokens.stretches():
        ids, mask = tokens.ids[stretch], tokens.mask[stretch]
        for counts, places in itertools.groupby(range(len(ids)), mask.__getitem__):
            run = list(places)
            found += [(ids[: run[0]], ids[run[0] : run[-1] + 1])] if counts else []
    return found


SPECIAL = ("[/end]", "[user]", "[assistant]", "[system]")


def byte_tokenizer(
    template: str | None, end: str = "[/end]", special: Iterable[str] = SPECIAL, bos: str | None = None
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes whose special tokens are those of the templates above, or others."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=end,
        pad_token="[pad]",
        bos_token=bos,
        additional_special_tokens=[text for text in special if text not in (end, bos)],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
