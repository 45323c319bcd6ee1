"""Sequences of tokens as trees in which what several of them begin with is there once. Knows no model and no torch.

A node is a step from one token to the next: sequences share it if they are equal up to and with that next token. What
a model says about the next token depends on nothing else, so one computation serves all sequences through a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


class Run(NamedTuple):
    """Nodes `start` … `stop` - 1, each but the first the child of the one before it.

    Attributes:
        start: The first node.
        stop: One past the last.
        before: What leads to it from the root, as stretches of nodes (start, stop) in order; empty if it begins at one.
    """

    start: int
    stop: int
    before: tuple[tuple[int, int], ...]


class TokenTree(NamedTuple):
    """Sequences as nodes, depth first: a node comes after what leads to it, and before whatever branches off earlier.

    Attributes:
        tokens: The token that a model is given at each node, shape (nodes,).
        positions: How many tokens come before it in its sequences, shape (nodes,).
        ends: One past its last descendant, shape (nodes,): node k leads to node n, or is it, if k <= n < ends[k].
        paths: The nodes of each sequence, shape (sequences, longest - 1); -1 after its last.
        runs: The nodes in stretches without branches in between; one for each sequence that adds nodes.
    """

    tokens: Integers
    positions: Integers
    ends: Integers
    paths: Integers
    runs: tuple[Run, ...]


def build_tree(sequences: Sequence[Sequence[int]]) -> TokenTree:
    """Returns the trees of some sequences; a sequence of fewer than two tokens has no node.

    Sorted, sequences that begin alike are neighbours, and what each shares with all before it, it shares with the last.
    """
    rows = [np.asarray(sequence, dtype=">u4") for sequence in sequences]
    longest = max((len(row) for row in rows), default=0)
    paths = np.full((len(rows), max(longest - 1, 0)), -1, dtype=np.int64)
    ends = np.zeros(sum(len(row) for row in rows), dtype=np.int64)
    tokens: list[npt.NDArray[np.uint32]] = []
    positions: list[Integers] = []
    runs: list[Run] = []
    count = 0
    last, path = np.zeros(0, dtype=">u4"), np.zeros(0, dtype=np.int64)
    for place in sorted(range(len(rows)), key=lambda place: rows[place].tobytes()):
        row = rows[place]
        shared = max(_common(last, row) - 1, 0)
        new = np.arange(count, count + max(len(row) - 1 - shared, 0))
        ends[path[shared:]] = count
        if len(new):
            runs.append(Run(count, count + len(new), _stretches(path[:shared])))
            tokens.append(row[shared:-1])
            positions.append(np.arange(shared, len(row) - 1))
            count += len(new)
        last, path = row, np.concatenate([path[:shared], new])
        paths[place, : len(path)] = path
    ends[path] = count
    return TokenTree(_joined(tokens), _joined(positions), ends[:count], paths, tuple(runs))


def _common(one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32]) -> int:
    """Returns how many first tokens two sequences share."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def _stretches(nodes: Integers) -> tuple[tuple[int, int], ...]:
    """Returns increasing nodes as stretches without a gap."""
    parts = np.split(nodes, np.flatnonzero(np.diff(nodes) != 1) + 1)
    return tuple((int(part[0]), int(part[-1]) + 1) for part in parts if len(part))


def _joined(parts: Sequence[npt.NDArray[np.integer]]) -> Integers:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)
