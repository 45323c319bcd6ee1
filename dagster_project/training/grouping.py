"""What is computed together: pairs of one case in a batch, conversations with one prompt in a reference pass."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import orjson

from dagster_project.training.chat_template import Tokens

Group = Mapping[str, Tokens]
"""Conversations that are computed together, by id."""


class PairOf(NamedTuple):
    """Which case a pair is of, and which two conversations it compares."""

    case: Hashable
    chosen: Hashable
    rejected: Hashable


def order_by_case(pairs: Sequence[PairOf], batch_size: int, rng: random.Random) -> list[int]:
    """Returns the places of all pairs, each once, so that every `batch_size` of them are a batch.

    A case's pairs are cut into batches that hold few distinct conversations; what is left of cases is put together to
    batches of several. Batches come in random order, but for one that is short, which comes last.
    """
    cases: dict[Hashable, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        cases[pair.case].append(place)
    batches: list[list[int]] = []
    left: list[int] = []
    for places in rng.sample(list(cases.values()), len(cases)):
        ordered = list(_clustered(places, pairs, batch_size, rng))
        whole = len(ordered) - len(ordered) % batch_size
        batches += [ordered[start : start + batch_size] for start in range(0, whole, batch_size)]
        left += ordered[whole:]
    whole = len(left) - len(left) % batch_size
    batches += [left[start : start + batch_size] for start in range(0, whole, batch_size)]
    rng.shuffle(batches)
    return [place for batch in (*batches, left[whole:]) for place in batch]


def _clustered(places: Sequence[int], pairs: Sequence[PairOf], batch_size: int, rng: random.Random) -> Iterator[int]:
    """Yields one case's pairs; of those left, the next is one that brings the fewest conversations new to its batch."""
    left = rng.sample(places, len(places))
    batch: list[int] = []
    known: set[Hashable] = set()
    while left:
        if len(batch) == batch_size:
            batch, known = [], set()
        best = min(left, key=lambda place: len({pairs[place].chosen, pairs[place].rejected} - known))
        left.remove(best)
        batch.append(best)
        known |= {pairs[best].chosen, pairs[best].rejected}
        yield best


def group_by_prompt(conversations: Mapping[str, Tokens], budget: int) -> list[Group]:
    """Returns conversations in groups with one prompt each, of at most `budget` tokens with the prompt counted once.

    A conversation that is longer by itself is a group of its own.
    """
    prompts: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for identity, tokens in conversations.items():
        prompts[tuple(tokens.prompt_ids)].append(identity)
    groups: list[Group] = []
    for prompt, identities in prompts.items():
        group: dict[str, Tokens] = {}
        room = 0
        for identity in identities:
            tokens = conversations[identity]
            own = tokens.own_tokens()
            room -= own
            if not group or room < 0:
                group, room = {}, budget - len(prompt) - own
                groups.append(group)
            group[identity] = tokens
    return groups


def group_keys(groups: Sequence[Group]) -> dict[str, tuple[object, ...]]:
    """Returns, by conversation, what its log-probability depends on: its tokens, and what is computed with them.

    Together with others, a conversation's sums are rounded otherwise than alone.
    """
    keys: dict[str, tuple[object, ...]] = {}
    for group in groups:
        members = hashlib.sha256(orjson.dumps([list(tokens) for tokens in group.values()])).hexdigest()
        together = (members,) if len(group) > 1 else ()
        keys |= {identity: (*tokens, *together) for identity, tokens in group.items()}
    return keys
