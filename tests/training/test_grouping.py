from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.training.chat_template import Tokens
from dagster_project.training.grouping import PairOf, group_by_prompt, group_keys, order_by_case

PAIRS = st.lists(st.builds(PairOf, st.integers(0, 3), st.integers(0, 3), st.integers(4, 7)), max_size=40)


def cut(order: list[int], batch_size: int) -> list[list[int]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@given(PAIRS, st.integers(1, 9), st.integers(0, 5))
def test_every_pair_comes_once_and_the_same_seed_gives_the_same_order(
    pairs: list[PairOf], batch_size: int, seed: int
) -> None:
    order = order_by_case(pairs, batch_size, random.Random(seed))
    assert sorted(order) == list(range(len(pairs)))
    assert order == order_by_case(pairs, batch_size, random.Random(seed))


@given(PAIRS, st.integers(1, 9))
def test_each_case_fills_as_many_batches_of_its_own_as_it_can(pairs: list[PairOf], batch_size: int) -> None:
    batches = cut(order_by_case(pairs, batch_size, random.Random(0)), batch_size)
    for case in {pair.case for pair in pairs}:
        size = sum(pair.case == case for pair in pairs)
        own = sum(len(batch) == batch_size and all(pairs[place].case == case for place in batch) for batch in batches)
        assert own >= size // batch_size


def all_pairs(cases: int, chosen: int, rejected: int) -> list[PairOf]:
    sides = itertools.product(range(cases), range(chosen), range(rejected))
    return [PairOf(case, (case, "good", one), (case, "bad", other)) for case, one, other in sides]


@pytest.mark.parametrize("batch_size", [4, 6, 9])
def test_a_batch_holds_few_conversations(batch_size: int) -> None:
    pairs = all_pairs(3, 6, 6)

    def conversations(order: list[int]) -> int:
        batches = cut(order, batch_size)
        return sum(len({side for at in batch for side in (pairs[at].chosen, pairs[at].rejected)}) for batch in batches)

    by_case = conversations(order_by_case(pairs, batch_size, random.Random(0)))
    by_chance = conversations(random.Random(0).sample(range(len(pairs)), len(pairs)))
    assert by_case <= 0.75 * by_chance


def test_another_epoch_has_other_batches() -> None:
    pairs = all_pairs(3, 4, 4)
    one, other = (
        {frozenset(batch) for batch in cut(order_by_case(pairs, 4, random.Random(epoch)), 4)} for epoch in (0, 1)
    )
    assert one != other


CONVERSATIONS = st.dictionaries(
    st.text("abc", max_size=3),
    st.builds(lambda prompt, size: Tokens([prompt], [7] * size, [1] * size), st.integers(0, 2), st.integers(0, 9)),
    max_size=12,
)


@given(CONVERSATIONS, st.integers(1, 20))
def test_every_conversation_is_in_one_group_within_the_budget(conversations: dict[str, Tokens], budget: int) -> None:
    groups = group_by_prompt(conversations, budget)
    assert sorted(identity for group in groups for identity in group) == sorted(conversations)
    for group in groups:
        assert all(tokens == conversations[identity] for identity, tokens in group.items())
        assert len({tuple(tokens.prompt_ids) for tokens in group.values()}) == 1
        size = 1 + sum(len(tokens.completion_ids) for tokens in group.values())
        assert size <= budget or len(group) == 1


def test_conversations_with_one_prompt_go_together_as_far_as_the_budget_allows() -> None:
    conversations = {name: Tokens([1, 2], [3] * 4, [1] * 4) for name in "abc"} | {"d": Tokens([9], [3], [1])}
    assert [list(group) for group in group_by_prompt(conversations, 10)] == [["a", "b"], ["c"], ["d"]]
    assert [list(group) for group in group_by_prompt(conversations, 14)] == [["a", "b", "c"], ["d"]]


def test_a_value_depends_on_what_is_computed_with_it() -> None:
    one, two, other = (Tokens([1], [token], [1]) for token in (2, 3, 4))
    together, alone = group_keys([{"a": one, "b": two}]), group_keys([{"a": one}, {"b": two}])
    assert alone == {"a": tuple(one), "b": tuple(two)}
    assert together["a"] != alone["a"]
    assert together["a"] != group_keys([{"a": one, "c": other}])["a"]
    assert together == group_keys([{"a": one, "b": two}])
