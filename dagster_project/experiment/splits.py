"""Train and test halves of the cases."""

from __future__ import annotations

import functools
import random
from typing import NamedTuple


class Split(NamedTuple):
    """The case indices of one seed's halves, each ascending; together all cases, each once."""

    train: tuple[int, ...]
    test: tuple[int, ...]


@functools.lru_cache(maxsize=1024)
def split_cases(n_cases: int, seed: int) -> Split:
    """Returns the halves of `n_cases` cases for `seed`.

    The rule is the paper's released code's, so that its seeds pick its halves: shuffle the indices with Python's
    generator, the last half is the test half.
    """
    indices = list(range(n_cases))
    random.Random(seed).shuffle(indices)
    cut = n_cases - n_cases // 2
    return Split(tuple(sorted(indices[:cut])), tuple(sorted(indices[cut:])))
