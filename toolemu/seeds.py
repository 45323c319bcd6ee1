"""Seeds that follow from what they are for."""

from __future__ import annotations

import hashlib

import orjson


def derive_seed(*coordinates: str | int) -> int:
    """Returns a seed of 31 bits (what every server takes) from a hash of `coordinates`."""
    return int.from_bytes(hashlib.sha256(orjson.dumps(coordinates)).digest()[:4]) >> 1
