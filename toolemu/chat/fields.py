"""Which fields of a request a refusal names, however it spells them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from toolemu.chat.refusals import TOKENS, Told

SYSTEM = "system"
"""Stands for messages of the role system, as if they were a field."""

# How servers spell what they name, besides the field's own name. Weak spellings are words of plain English, too.
_SPELLINGS = {
    "response_format": r"response[\s_-]*format|json[\s_-]*(?:schema|mode|object|output)|"
    r"structured[\s_-]*(?:output|generation|decoding|response)s?|(?:guided|constrained)[\s_-]*(?:json|decoding|generation|outputs?)"
    r"|response[\s_-]*(?:json[\s_-]*)?schema|response[\s_-]*mime[\s_-]*type|output[\s_-]*(?:format|config|schema)",
    "max_tokens": TOKENS,
    "max_completion_tokens": TOKENS,
    "seed": r"random[\s_-]*seed",
    "stop": r"stop[\s_-]*(?:sequence|word|string|token|list|param(?:eter)?)s?",
    "chat_template_kwargs": r"chat[\s_-]*template(?:[\s_-]*(?:kwargs|arguments|args))?|enable[\s_-]*thinking",
    "continue_final_message": r"(?:add[\s_-]*generation[\s_-]*prompt|(?:final|last) message|prefill\w*)",
    SYSTEM: r"(?:system|developer)[\s_-]*(?:role|message|prompt|instruction)s?|roles?\W{1,4}(?:system|developer)"
    r"|roles? must alternate|alternat\w+[^.]{0,30}(?:user|assistant)|only\b[^.]{0,40}\broles?\b"
    r"|(?:unknown|unsupported|invalid|unexpected) (?:message )?role|first message (?:must|should)"
    r"|messages\W{1,3}0\W{1,3}role",
}
_WEAK = {"response_format": r"schema|grammar"}
_WORDS_OF_ENGLISH = frozenset(
    {SYSTEM, "stop", "seed", "user", "n", "metadata", "store", "reasoning", "thinking", "models", "provider", "tools"}
)


class _Spelling(NamedTuple):
    parameter: re.Pattern[str]
    strong: re.Pattern[str]
    weak: re.Pattern[str] | None


def _whole(*spellings: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(filter(None, spellings))})(?![A-Za-z0-9])", re.I)


@functools.lru_cache(maxsize=256)
def _spelling(field: str) -> _Spelling:
    own = r"[\s_-]*".join(re.escape(part) for part in field.split("_") if part) + "s?"
    others, weak = _SPELLINGS.get(field, ""), _WEAK.get(field, "")
    if field not in _WORDS_OF_ENGLISH:
        return _Spelling(_whole(own, others), _whole(own, others), _whole(weak) if weak else None)
    quoted = rf"(?<=[`'\"“‘]){own}(?=[`'\"”’])"
    parameter = _whole(others) if field == SYSTEM else _whole(own, others)
    return _Spelling(parameter, _whole(quoted, others), _whole(own, weak))


class Named(NamedTuple):
    """A field that a refusal names.

    Attributes:
        strength: 0 if as its parameter, 1 if by a word that can hardly mean anything else, 2 if by plain English.
        place: Where in the text, in characters.
        field: Its name; `SYSTEM` stands for messages of that role.
    """

    strength: int
    place: int
    field: str


def fields_named(told: Told, body: Mapping[str, Any]) -> list[Named]:
    """Return the fields of the request `body` that a refusal names, the likeliest first."""
    fields = [name for name in body if name not in ("model", "messages")]
    if any(message.get("role") == SYSTEM for message in body.get("messages", ())):
        fields.append(SYSTEM)
    model = re.escape(str(body.get("model") or ""))
    text = re.sub(rf"(?<!\w){model}(?!\w)", " ", told.text) if model else told.text
    found = []
    for name in fields:
        spelling = _spelling(name)
        matches = (
            (0, spelling.parameter.search(told.parameter)),
            (1, spelling.strong.search(text)),
            (2, spelling.weak.search(text) if spelling.weak else None),
        )
        found += [Named(strength, match.start(), name) for strength, match in matches if match][:1]
    return sorted(found)
