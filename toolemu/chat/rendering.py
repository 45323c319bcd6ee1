"""A conversation through a tokenizer's chat template: one way for requests in this process and for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolemu.chat.protocol import Message, fold_system
from toolemu.jsonl import encodable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PART = "{'type'"
"""How a list of parts begins that a template prints as it is."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""What templates call the reasoning before a message."""


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    arguments: Mapping[str, Any],
    *,
    reasoning: str = "",
    **options: bool,
) -> str:
    """Return a conversation as the text that a model is sent.

    Two kinds of templates are sent messages in another form, the one in which a server sends them, too:

    - A template that raises an error for a system message (Gemma 1 and 2) has the system prompt in the first user
      message; see `fold_system`.
    - A template that knows a message only as a list of parts (of models that see pictures) has it as one part of text.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The conversation.
        arguments: Arguments of the template.
        reasoning: What came before the last message, for templates that have a field for it.
        options: Options of `tokenizer.apply_chat_template`, such as `add_generation_prompt`.

    Raises:
        Exception: Whatever the template raises for the messages as they are, if it takes none of these forms.
    """
    failure: Exception | None = None
    found: str | None = None
    folded = fold_system(messages)
    for sent in [messages] if tuple(messages) == folded else [messages, folded]:
        for as_parts in (False, True):
            chat: list[dict[str, Any]] = [
                {"role": one.role, "content": _content(one, as_parts=as_parts)} for one in sent
            ]
            chat[-1] |= dict.fromkeys(_REASONING, reasoning) if reasoning else {}
            try:
                text = str(tokenizer.apply_chat_template(chat, tokenize=False, **options, **arguments))
            except Exception as error:  # noqa: BLE001 - a template can raise anything
                failure = failure or error
                continue
            if encodable(messages[-1].content.strip()) in text and not (as_parts and _PART in text):
                return text
            found = text if found is None and not as_parts else found
        if found is not None:
            return found
    assert failure is not None
    raise failure


def _content(message: Message, *, as_parts: bool) -> str | list[dict[str, str]]:
    text = encodable(message.content)
    return [{"type": "text", "text": text}] if as_parts else text


def encode_rendered(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return rendered text as tokens; the template has written all special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
