"""Why a reply ended, in the words of OpenAI, Gemini, Anthropic, Mistral, DeepSeek, Zhipu, vLLM and others."""

from __future__ import annotations

import functools
import re
from enum import StrEnum


class Ending(StrEnum):
    """A kind of ending.

    Attributes:
        stop: The model was done, or met a stop sequence.
        length: A limit of tokens cut the reply off.
        withheld: A filter withheld the reply, or the rest of it.
        incomplete: Something else ended the reply before its end: it was aborted, or the server failed.
        tool_call: The server took the reply for a call of a tool, though no request offers one.
        missing: The server gives no reason.
        unknown: A reason that is in none of these lists.
    """

    stop = "stop"
    length = "length"
    withheld = "withheld"
    incomplete = "incomplete"
    tool_call = "tool_call"
    missing = "missing"
    unknown = "unknown"


# Sought in the reason's words, in this order: "content_filter: RECITATION" and "FinishReason.SAFETY" are such reasons.
_WORDS = {
    Ending.withheld: (
        "safety filter filtered prohibited recitation blocklist blocked spii refusal refused sensitive guardrail "
        "guardrails moderation policy flagged language jailbreak censored"
    ),
    Ending.incomplete: (
        "abort aborted error cancel canceled cancelled cancellation failed failure interrupted timeout overloaded "
        "insufficient network malformed disconnected preempted exception"
    ),
    Ending.length: "length limit exceeded window truncated max",
    Ending.tool_call: "tool tools function",
    Ending.stop: "stop stopped eos end ended complete completed done finished finish eot",
    Ending.missing: "null none unspecified",
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words.split()}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PREFIX = re.compile(r"^(?:finish|stop)[\W_]*reason[\W_]*", re.I)


@functools.lru_cache(maxsize=256)
def _kind(reason: str) -> Ending:
    plain = _PREFIX.sub("", _CAMEL.sub("_", reason))
    found = {_KINDS[word] for word in re.split(r"[^a-z]+", plain.lower()) if word in _KINDS}
    if not plain.strip():
        return Ending.missing
    return next((kind for kind in _WORDS if kind in found), Ending.unknown)


def ending(reason: object) -> Ending:
    """Return which kind of ending a `finish_reason` is, whatever its spelling or type."""
    return Ending.missing if reason is None else _kind(str(reason)[:200])
