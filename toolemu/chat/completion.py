"""What a chat completion holds, as far as servers can be relied on to put it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from toolemu.chat.finish import Ending, ending
from toolemu.redaction import redact

LONGEST_NOTE = 40
"""Characters of a server's own words in a record."""
_CHARACTERS_A_TOKEN = 4
_MOST_TOKENS = 2**48  # a count above this is none
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")


class Usage(NamedTuple):
    """Tokens of a completion; `estimated` where the server does not count them."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    estimated: bool


def wrong_with(answer: Mapping[str, Any]) -> str:
    """Return what keeps a chat completion from being read; empty if nothing does."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        return "no choice"
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return "a choice without message"
    reason, message = choice.get("finish_reason"), choice["message"]
    kind = ending(reason)
    if kind is Ending.incomplete:
        return f"the reply was not completed: {redact(str(reason))[:LONGEST_NOTE]}"
    if kind is Ending.missing and not any(text_of(message.get(name)) for name in _TEXTS):
        return "neither a text nor a reason why it ended"
    usage = answer.get("usage")
    return "" if usage is None or isinstance(usage, dict) else "usage that is no object"


def text_of(content: object) -> str:
    """Return a message's content as text; some servers give it in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def usage_of(answer: Mapping[str, Any], body: Mapping[str, Any], written: int) -> Usage:
    """Return the tokens of a completion, by four characters each where the server gives no number.

    Args:
        answer: The completion.
        body: The request.
        written: Characters of the reply, reasoning included.
    """
    usage = answer.get("usage") or {}
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    details = usage.get("completion_tokens_details")
    reasoning = _count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else None
    estimated = prompt is None or completion is None
    if prompt is None:
        prompt = sum(len(message["content"]) for message in body["messages"]) // _CHARACTERS_A_TOKEN
    return Usage(
        prompt, written // _CHARACTERS_A_TOKEN if completion is None else completion, reasoning or 0, estimated
    )


def cut_off_at(limit: int) -> dict[str, Any]:
    """Return the answer that a server would have sent for a reply of `limit` tokens without any text."""
    choice = {"message": {"content": ""}, "finish_reason": "length"}
    return {"choices": [choice], "usage": {"completion_tokens": limit}}


def _count(value: object) -> int | None:
    """Return a number of tokens as a server gives it; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST_TOKENS:
        return None
    return int(value)
