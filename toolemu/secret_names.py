"""Where secrets belong, and where not: names that say that a value is secret, and values that look like keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_WORDS = frozenset(
    [
        *("key", "apikey", "token", "secret", "secrets", "password", "passwd", "passphrase", "pwd", "pass"),
        *("credential", "credentials", "auth", "authorization", "bearer", "cookie"),
    ]
)
_FIELD = re.compile(
    r"(?:.*_)?(?:api_?key|password|passwd|passphrase|secret|authorization|cookie|credentials?|(?:access|auth|bearer)_token)"
    r"|key|token|auth|bearer"
)
_KEY = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[a-z]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|(?:Bearer|Basic)\s+[\w+/=.~-]{12,})|-----BEGIN [A-Z ]*PRIVATE KEY"
)


def is_secret_variable(name: str) -> bool:
    """Return whether a variable's name says that it holds a secret, as `OPENAI_API_KEY` does."""
    return not _WORDS.isdisjoint(re.split(r"[^a-z0-9]+", name.lower()))


def is_secret_field(name: str) -> bool:
    """Return whether a field's name says that it holds a secret; `stop_token_ids` does not."""
    return _FIELD.fullmatch(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")) is not None


def looks_like_a_key(text: str) -> bool:
    """Return whether a text has the form of a well-known sort of key."""
    return _KEY.search(text) is not None


def keys_in(value: Any, place: str = "") -> Iterator[str]:
    """Yield the places in nested lists and mappings at which a text has the form of a key."""
    if isinstance(value, str):
        if looks_like_a_key(value):
            yield place
    elif isinstance(value, Mapping):
        for name, part in value.items():
            shown = "(a key)" if looks_like_a_key(str(name)) else str(name)
            if shown != name and isinstance(name, str):
                yield f"{place}.{shown}".lstrip(".")
            yield from keys_in(part, f"{place}.{shown}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from keys_in(part, f"{place}.{number}".lstrip("."))


def without_secrets(value: Any, name: str = "") -> Any:
    """Return a value for an error message, with `***` in place of what its name or its form says is secret."""
    if (name and is_secret_field(name)) or (isinstance(value, str) and looks_like_a_key(value)):
        return "***"
    if isinstance(value, Mapping):
        return {key: without_secrets(part, str(key)) for key, part in value.items()}
    return [without_secrets(part) for part in value] if isinstance(value, list | tuple) else value
