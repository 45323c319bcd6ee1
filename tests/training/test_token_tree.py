from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.training.token_tree import TokenTree, build_tree

# Three different tokens make sequences that share beginnings, repeat each other and begin one another.
SEQUENCES = st.lists(st.lists(st.integers(0, 2), max_size=9), max_size=9)


def path_of(tree: TokenTree, place: int) -> list[int]:
    return [node for node in tree.paths[place].tolist() if node >= 0]


@given(SEQUENCES)
def test_every_sequence_is_a_path_of_its_own_tokens(sequences: list[list[int]]) -> None:
    tree = build_tree(sequences)
    for place, sequence in enumerate(sequences):
        path = path_of(tree, place)
        assert tree.tokens[path].tolist() == sequence[:-1]
        assert tree.positions[path].tolist() == list(range(len(path)))
        assert tree.paths[place].tolist() == path + [-1] * (tree.paths.shape[1] - len(path))


@given(SEQUENCES)
def test_what_sequences_begin_with_alike_is_there_once(sequences: list[list[int]]) -> None:
    tree = build_tree(sequences)
    beginnings = {tuple(sequence[:stop]) for sequence in sequences for stop in range(2, len(sequence) + 1)}
    assert len(tree.tokens) == len(tree.positions) == len(tree.ends) == len(beginnings)
    nodes = {
        (tuple(sequence[: place + 2]), node)
        for at, sequence in enumerate(sequences)
        for place, node in enumerate(path_of(tree, at))
    }
    assert len(nodes) == len(beginnings)  # the same beginning is the same node, and another is another


@given(SEQUENCES)
def test_ends_tell_what_leads_to_a_node(sequences: list[list[int]]) -> None:
    tree = build_tree(sequences)
    nodes = np.arange(len(tree.ends))
    for place in range(len(sequences)):
        path = path_of(tree, place)
        for depth, node in enumerate(path):
            assert np.flatnonzero((nodes <= node) & (node < tree.ends)).tolist() == path[: depth + 1]


@given(SEQUENCES)
def test_runs_hold_every_node_once_and_know_what_comes_before(sequences: list[list[int]]) -> None:
    tree = build_tree(sequences)
    nodes = np.arange(len(tree.ends))
    assert [node for run in tree.runs for node in range(run.start, run.stop)] == nodes.tolist()
    assert len(tree.runs) <= len({tuple(sequence) for sequence in sequences})
    for run in tree.runs:
        before = [node for start, stop in run.before for node in range(start, stop)]
        leading = np.flatnonzero((nodes < run.start) & (run.start < tree.ends))
        assert before == leading.tolist()
        assert all(start < stop for start, stop in run.before)


def test_an_example() -> None:
    #                    0      1      2              3
    tree = build_tree([[5, 6, 7, 8], [5, 6, 7], [5, 6, 9], [5], []])
    assert tree.tokens.tolist() == [5, 6, 7, 6]
    assert tree.positions.tolist() == [0, 1, 2, 1]
    assert tree.ends.tolist() == [4, 3, 3, 4]
    assert tree.paths.tolist() == [[0, 1, 2], [0, 1, -1], [0, 3, -1], [-1, -1, -1], [-1, -1, -1]]
    assert [tuple(run) for run in tree.runs] == [(0, 2, ()), (2, 3, ((0, 2),)), (3, 4, ((0, 1),))]


def test_nothing_makes_no_tree() -> None:
    tree = build_tree([])
    assert tree.paths.shape == (0, 0)
    assert len(tree.tokens) == len(tree.runs) == 0
