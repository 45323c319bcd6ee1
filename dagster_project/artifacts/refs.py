"""A reference to one partition of one asset."""

from __future__ import annotations

from typing import NamedTuple


class Ref(NamedTuple):
    """One partition of one asset; `partition` holds (dimension, key) pairs in order of the dimensions' names."""

    asset: str
    partition: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, asset: str, **partition: str | int) -> Ref:
        """Return the reference with its dimensions in order; a seed may be given as a number."""
        return cls(asset, tuple(sorted((name, str(key)) for name, key in partition.items())))

    def key(self, dimension: str) -> str:
        """Returns the partition's key in `dimension`."""
        return dict(self.partition)[dimension]

    @property
    def seed(self) -> int | None:
        """The partition's seed; None for a partition of no seed, such as a source model's."""
        found = dict(self.partition).get("seed")
        return None if found is None else int(found)

    @property
    def path(self) -> tuple[str, ...]:
        """The parts of the asset's name, as Dagster's keys have them."""
        return tuple(self.asset.split("/"))

    @property
    def label(self) -> str:
        """`asset [key, key]`, for people."""
        return f"{self.asset} [{', '.join(key for _, key in self.partition)}]" if self.partition else self.asset

    @property
    def partition_label(self) -> str:
        """`dimension=key/dimension=key`; empty without partitions. The form in paths and tables."""
        return "/".join(f"{dimension}={key}" for dimension, key in self.partition)
