"""Tokens that a training will go over, before there are pairs: from lengths, and pairs of a case drawn by chance.

On the published pairs (gpt-5-mini, help, seed 0; with their mean lengths and their number) that is 1,091 tokens a pair
in batches of 8 by case, and 583 in batches of 32; counted in the batches of the pairs themselves, 1,030 and 516.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from typing import NamedTuple

from dagster_project.experiment.training import Trainer, Training
from dagster_project.training.grouping import PairOf, order_by_case

ENOUGH_CASES = 12
"""Cases to draw pairs of; more change the published pairs' number by at most 1.5%."""


class ExpectedPairs(NamedTuple):
    """What the pairs of a training are thought to be.

    Attributes:
        pairs: How many.
        cases: Of how many cases.
        trajectories: Of each case, out of which its pairs are.
        prompt: Tokens of a conversation up to the agent's first word.
        response: Tokens of it from there on.
    """

    pairs: float
    cases: int
    trajectories: int
    prompt: float
    response: float

    @property
    def conversations(self) -> float:
        """Distinct conversations, at most."""
        return min(self.cases * self.trajectories, 2 * self.pairs)

    def tokens_a_pair(self, training: Training, trainer: Trainer) -> float:
        """Returns the tokens that are computed for a pair, padding left out, shared ones once with `shared_text`."""
        if not trainer.shared_text or self.trajectories < 2:  # one makes no pairs, which could share something
            return 2 * (self.prompt + self.response)
        if training.batch_by == "pair":
            return self.prompt + 2 * self.response
        each = max(1, round(self.pairs / self.cases))
        prompts, responses = _distinct_by_case(
            self.cases, self.trajectories, each, training.batch_size, _at_once(training, trainer)
        )
        return prompts * self.prompt + responses * self.response

    def reference_tokens(self, training: Training, trainer: Trainer, trained: float) -> float:
        """Returns the tokens that are computed for the reference: those of every conversation, once.

        Args:
            training: What is trained.
            trainer: How it is computed.
            trained: Pairs trained on, in all epochs; with `sharding: fsdp` the reference is computed as often.
        """
        if trainer.sharding == "fsdp":
            return trained * 2 * (self.prompt + self.response)
        together = 1
        if trainer.shared_text:
            room = _at_once(training, trainer) * self.tokens_a_pair(training, trainer) - self.prompt
            together = max(1, min(int(room / self.response), math.ceil(self.conversations / self.cases)))
        return self.conversations * (self.prompt / together + self.response)


def _at_once(training: Training, trainer: Trainer) -> int:
    """Returns the pairs on a card at once; where memory decides, as many as a step has."""
    return trainer.micro_batch_size or max(1, training.batch_size // trainer.processes)


@functools.cache
def _distinct_by_case(cases: int, trajectories: int, each: int, batch: int, at_once: int) -> tuple[float, float]:
    """Returns how many prompts, and how many responses, a pair brings where `each` pairs a case are batched by case."""
    rng = random.Random(0)
    sides = list(itertools.combinations(range(trajectories), 2))
    drawn = [
        PairOf(case, (case, one), (case, other))
        for case in range(min(cases, ENOUGH_CASES))
        for one, other in rng.sample(sides, min(each, len(sides)))
    ]
    order = [drawn[place] for place in order_by_case(drawn, batch, rng)]
    groups = [order[start : start + at_once] for start in range(0, len(order), at_once)]
    prompts = sum(len({pair.case for pair in group}) for group in groups)
    responses = sum(len({side for pair in group for side in (pair.chosen, pair.rejected)}) for group in groups)
    return prompts / len(order), responses / len(order)
