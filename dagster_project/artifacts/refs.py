"""A reference to one partition of one asset."""

from __future__ import annotations

from typing import NamedTuple


class Ref(NamedTuple):
    """One partition of one asset; `partition` holds (dimension, key) pairs in order of the dimensions' names."""

    asset: str
    partition: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, asset: str, **partition: str) -> Ref:
        """Returns the reference with its dimensions in order."""
        return cls(asset, tuple(sorted(partition.items())))

    def key(self, dimension: str) -> str:
        """Returns the partition's key in `dimension`."""
        return dict(self.partition)[dimension]

    @property
    def label(self) -> str:
        """`asset [key, key]`, for people."""
        return f"{self.asset} [{', '.join(key for _, key in self.partition)}]" if self.partition else self.asset

    @property
    def partition_label(self) -> str:
        """`dimension=key/dimension=key`; empty without partitions. The form in paths and tables."""
        return "/".join(f"{dimension}={key}" for dimension, key in self.partition)
