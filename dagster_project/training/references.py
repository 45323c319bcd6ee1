"""Reference log-probabilities kept on disk, shared by trainings that differ in beta, pairs or seed.

A conversation's depends on the base, on its tokens, on which of them count, and on how and with which others it was
computed; all of that is in its key, so a stored value is the one that would be computed again, and a training comes out
the same with an empty store. Each training adds a file of what it had to compute, whole or not at all; several may do
so at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq


class ReferenceStore:
    """Log-probabilities of conversations under one base, computed in one way.

    Args:
        folder: Where stores are kept.
        settings: All that the values depend on besides the conversations: hash of the base, precision, hardware …
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._folder = folder / _sha256(orjson.dumps(dict(settings), option=orjson.OPT_SORT_KEYS))

    def get(self, conversations: Mapping[str, Sequence[object]]) -> dict[str, float]:
        """Returns what is known of `conversations`, by their ids: tokens, or what `group_keys` says of them."""
        known: dict[str, float] = {}
        for path in sorted(self._folder.glob("*.parquet")):
            table = pq.read_table(path)
            known.update(zip(table["key"].to_pylist(), table["log_probability"].to_pylist(), strict=True))
        keys = {identity: _key(conversation) for identity, conversation in conversations.items()}
        return {identity: known[key] for identity, key in keys.items() if key in known}

    def put(self, conversations: Mapping[str, Sequence[object]], values: Mapping[str, float]) -> None:
        """Adds the values of some of `conversations`."""
        if not values:
            return
        rows = sorted((_key(conversations[identity]), value) for identity, value in values.items())
        keys, numbers = zip(*rows, strict=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_sha256(orjson.dumps(keys))}.parquet"
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        pq.write_table(pa.table({"key": keys, "log_probability": pa.array(numbers, pa.float64())}), partial)
        partial.replace(path)


def _key(conversation: Sequence[object]) -> str:
    return _sha256(orjson.dumps(list(conversation)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
