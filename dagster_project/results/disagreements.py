"""Where judges disagree: the same quantity by one judge and by another, from the same draws.

In `match`, each judge scores other agents: those trained on its own verdicts. A disagreement there is one of the judges
as teachers and graders together.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dagster_project.results.intervals import Array, Draws, ratio_difference

COLUMNS = ["judging", "judge_a", "judge_b", "found_in", "model", "beta", "subject", "quantity"]
COLUMNS += ["estimate", "low", "high", "stderr", "df", "p", "generalises_to"]


class Measured(NamedTuple):
    """A quantity by one judge in every draw.

    Attributes:
        way: Judging and judge.
        found_in: The result table that has it.
        model: The source model; None for the average.
        beta: NaN where it is of all betas.
        subject: What it is of.
        quantity: What was measured.
        drawn: Shape (1 + draws,), the estimate first.
        over: Of a ratio, its denominator; `drawn` is then the numerator.
    """

    way: tuple[str, str | None]
    found_in: str
    model: str | None
    beta: float
    subject: str
    quantity: str
    drawn: Array
    over: Array | None = None


def disagreements(measured: Sequence[Measured], draws: Draws, confidence: float) -> pd.DataFrame:
    """Return, for every quantity that two judges measured in the same way, the first judge's minus the second's."""
    found: dict[tuple[Hashable, ...], list[Measured]] = {}
    for item in measured:
        place = item.way[0], item.found_in, item.model, str(item.beta), item.subject, item.quantity
        found.setdefault(place, []).append(item)
    rows = []
    for items in found.values():
        for one, other in itertools.combinations(sorted(items, key=lambda item: str(item.way[1])), 2):
            if one.over is not None and other.over is not None:
                difference = ratio_difference((one.drawn, one.over), (other.drawn, other.over), draws, confidence)
            else:
                difference = draws.summary(one.drawn - other.drawn, confidence)
            if not np.isnan(difference.estimate):
                rows.append((one.way[0], one.way[1], other.way[1], *one[1:6], *difference, draws.scope))
    return pd.DataFrame(rows, columns=COLUMNS)
