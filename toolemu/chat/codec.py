"""JSON at the network's border: what is sent is always valid, what is received is repaired or refused as a whole.

orjson is strict and fast: it refuses half a surrogate pair, bytes that are not UTF-8, NaN and raw control characters.
Servers and models write all of these. The slow, tolerant way is taken only after orjson refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from toolemu.jsonl import encodable


class Decoded(NamedTuple):
    """A JSON value, and whether it had to be repaired."""

    value: Any
    repaired: bool


def dump(value: Any, option: int | None = None) -> bytes:
    """Return `value` as UTF-8 JSON; lone surrogates become question marks, integer keys become text.

    Raises:
        TypeError: Something in it is no JSON, such as a date. `check_json` finds this in settings beforehand.
    """
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return orjson.dumps(repair(value), option=option)


def load(content: bytes) -> Decoded:
    """Return the JSON value in `content`, in whichever encoding and form of JSON it is.

    Repaired are: UTF-16, UTF-32 and a byte order mark, bytes that are not UTF-8 and lone surrogates (both become
    replacement characters), raw control characters in texts, NaN and Infinity (they become null).

    Raises:
        ValueError: It is no JSON even so, for instance because half of it is missing.
    """
    try:
        return Decoded(orjson.loads(content), False)
    except orjson.JSONDecodeError:
        pass
    text = content.decode(json.detect_encoding(content), errors="replace").removeprefix("\ufeff")
    try:
        value = json.loads(text, strict=False, parse_constant=lambda name: None)
        return Decoded(repair(value), True)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def repair(value: Any) -> Any:
    """Return a copy of a JSON-like value that orjson takes: texts without lone surrogates, keys that are texts."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {encodable(str(key)): repair(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [repair(member) for member in value]
    return value


_DEEPEST = 64
_LARGEST = 2**63


def check_json(value: object, place: str = "") -> Any:
    """Return `value` as JSON would hold it: mappings, lists, texts, finite numbers, true, false and null.

    Integer keys, such as the token ids of `logit_bias`, become texts.

    Args:
        value: What stands in a settings file.
        place: Where in the field it stands, for the message.

    Raises:
        ValueError: Something in it is no JSON; names the place.
    """
    where = f"{place.removeprefix('.')}: " if place else ""
    if place.count(".") > _DEEPEST:
        raise ValueError(f"{where[:80]}… is nested too deeply")
    if isinstance(value, Mapping):
        checked: dict[str, Any] = {}
        for key, member in value.items():
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise ValueError(f"{where}the key {key!r} is no text; put it in quotes")
            if str(key) in checked:
                raise ValueError(f"{where}the key {key!r} is there twice, as a number and as a text")
            checked[encodable(str(key))] = check_json(member, f"{place}.{key}")
        return checked
    if isinstance(value, list | tuple):
        return [check_json(member, f"{place}.{number}") for number, member in enumerate(value)]
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -_LARGEST <= value < _LARGEST:
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    raise ValueError(
        f"{where}{value!r} cannot be sent as JSON. Expected a text, a finite number, true, false, null, a list or a "
        "mapping. Put it in quotes if it is a text"
    )
