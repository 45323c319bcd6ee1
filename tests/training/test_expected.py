"""What is expected of trainings before there are pairs, against the published pairs themselves."""

from __future__ import annotations

import json
import random
from statistics import mean

import pytest

from dagster_project.experiment.training import Trainer, Training
from dagster_project.training.expected import ExpectedPairs
from dagster_project.training.grouping import PairOf, order_by_case
from tests.conftest import ROOT

FOUND = json.loads((ROOT / "benchmarks" / "published_lengths.json").read_bytes())
PROMPTS: dict[str, int] = FOUND["prompts"]
CONVERSATIONS: list[tuple[str, int]] = FOUND["conversations"]
PAIRS = [PairOf(CONVERSATIONS[one][0], one, other) for one, other in FOUND["pairs"]]
EXPECTED = ExpectedPairs(
    pairs=len(PAIRS),
    cases=len(PROMPTS),
    trajectories=27,
    prompt=mean(PROMPTS[pair.case] for pair in PAIRS),
    response=mean(CONVERSATIONS[side][1] for pair in PAIRS for side in (pair.chosen, pair.rejected)),
)


def tokens(pairs: list[PairOf]) -> int:
    """Counts the tokens of pairs, every prompt and every response once."""
    prompts, sides = {pair.case for pair in pairs}, {side for pair in pairs for side in (pair.chosen, pair.rejected)}
    return sum(PROMPTS[case] for case in prompts) + sum(CONVERSATIONS[side][1] for side in sides)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_batches_by_case_are_as_those_of_the_published_pairs(size: int) -> None:
    training = Training(batch_by="case", batch_size=size)
    order = [PAIRS[place] for place in order_by_case(PAIRS, size, random.Random(1))]
    found = sum(tokens(order[start : start + size]) for start in range(0, len(order), size)) / len(order)
    expected = EXPECTED.tokens_a_pair(training, Trainer(shared_text=True))
    assert found < expected < 1.2 * found  # drawn by chance, pairs have a little less in common
    assert expected < EXPECTED.tokens_a_pair(training, Trainer(shared_text=True, micro_batch_size=2))


def test_prompts_are_shared_by_a_pair_where_batches_are_not_by_case() -> None:
    found = mean(tokens([pair]) for pair in PAIRS)
    assert EXPECTED.tokens_a_pair(Training(), Trainer(shared_text=True)) == pytest.approx(found)


def test_the_reference_is_of_every_conversation_once() -> None:
    assert EXPECTED.conversations == pytest.approx(len(CONVERSATIONS), rel=0.02)
    alone = sum(PROMPTS[case] + length for case, length in CONVERSATIONS)
    assert EXPECTED.reference_tokens(Training(), Trainer(), len(PAIRS)) == pytest.approx(alone, rel=0.07)
    together = tokens(PAIRS)
    for size, limit in ((8, 1.4), (32, 1.15)):  # what a step has room for is computed together, not all of a case
        training, trainer = Training(batch_by="case", batch_size=size), Trainer(shared_text=True)
        assert together < EXPECTED.reference_tokens(training, trainer, len(PAIRS)) < limit * together
