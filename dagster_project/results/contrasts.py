"""Trainings against each other on the same cases, and how far training on both lands from the others' line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dagster_project.experiment.agents import PAPER, Recipe
from dagster_project.results.fits import Cloud, fit_line
from dagster_project.results.points import AXES, Points
from dagster_project.results.scores import Array, interval

COMPARED = [
    *((Recipe.safe, other) for other in PAPER if other != Recipe.safe),
    *((Recipe.help, other) for other in PAPER if other not in (Recipe.safe, Recipe.help)),
    (Recipe.safe_then_help, Recipe.help_then_safe),
]
"""Each single training with every other of the paper, and the two orders of both."""
DISTANCE = "distance"
COLUMNS = ["judging", "judge", "beta", "first", "second", "axis", "estimate", "low", "high", "p", "n"]


class Pair(NamedTuple):
    """One agent against another, by one judge: their positions among the points, and score differences in every draw.

    `difference` has the shape (2, 1 + draws).
    """

    first: int
    second: int
    difference: Array


class Group(NamedTuple):
    """One point of a way of judging: a model's recipe at one beta, and the positions that it is the mean of."""

    recipe: str
    beta: float
    positions: list[int]


def contrasts(points: Points, confidence: float) -> pd.DataFrame:
    """Returns differences between recipes over the same models, pairs' judges and cases, by beta.

    `axis` is `safe` or `help`: the score of `first` minus that of `second`, over the cases that both have; or
    `distance`: how far `first` (training on both) lies beyond the line through all points of other trainings, in points
    of score, at a right angle to it and positive where it is better in both; `second` is then null. `n` counts the
    agents (model and pairs' judge, by judge) compared, or the points. `p` is two-sided, from the bootstrap.
    """
    pairs = _pairs(points)
    rows: list[tuple[Any, ...]] = []
    for way in points.ways:
        groups = [
            Group(str(recipe), float(beta), positions)  # type: ignore[arg-type]
            for (_, recipe, beta), positions in points.groups(way, ("model", "recipe", "beta"))
        ]
        there = {position for group in groups for position in group.positions}
        for (first, second, beta), of_beta in pairs.items():
            chosen = [pair.difference for pair in of_beta if {pair.first, pair.second} <= there]
            for place, axis in enumerate(AXES if chosen else ()):
                drawn = np.mean([difference[place] for difference in chosen], axis=0)
                rows.append((*way, float(beta), first, second, axis, *_summary(drawn, confidence), len(chosen)))
        for distance_beta, drawn, n in _distances(points, groups):
            which = (*way, distance_beta, Recipe.both.value, None, DISTANCE)
            rows.append((*which, *_summary(drawn, confidence), n))
    return pd.DataFrame(rows, columns=COLUMNS)


def _pairs(points: Points) -> dict[tuple[str, str, str], list[Pair]]:
    """Returns every pair that differs in nothing but the recipe, by (first, second, beta as text: NaN is a beta)."""
    positions: dict[tuple[str, ...], int] = {
        (key.recipe, str(key.beta), key.model, key.pairs_judge, key.judge): position
        for position, key in enumerate(points.keys)
    }
    found = [
        ((first.value, second.value, beta), position, positions[second.value, beta, *rest])
        for first, second in COMPARED
        for (recipe, beta, *rest), position in positions.items()
        if recipe == first.value and (second.value, beta, *rest) in positions
    ]
    if not found:
        return {}
    cells = points.cells[[first for _, first, _ in found]] - points.cells[[second for *_, second in found]]
    means = points.draws.means(cells.reshape(-1, *cells.shape[2:])).reshape(*cells.shape[:2], -1)
    pairs: dict[tuple[str, str, str], list[Pair]] = {}
    for (names, first, second), difference in zip(found, means, strict=True):
        pairs.setdefault(names, []).append(Pair(first, second, difference))
    return pairs


def _distances(points: Points, groups: Sequence[Group]) -> Iterator[tuple[float, Array, int]]:
    """Yields beta, distance in every draw, and the number of points it is the mean of."""
    deltas = [points.delta[group.positions].mean(axis=0) for group in groups]
    known = [(group, delta) for group, delta in zip(groups, deltas, strict=True) if not np.isnan(delta[:, 0]).any()]
    trained = [(group, delta) for group, delta in known if points.keys[group.positions[0]].here]
    others = np.array([delta for group, delta in trained if group.recipe != Recipe.both])
    ours = [(group, delta) for group, delta in known if group.recipe == Recipe.both]
    if len(others) < 3 or np.ptp(others[:, 0, 0]) == 0:
        return
    line = fit_line(Cloud(others[:, 0], others[:, 1]))
    for beta in dict.fromkeys(str(group.beta) for group, _ in ours):
        chosen = [delta for group, delta in ours if str(group.beta) == beta]
        above = [safety - line.intercept - line.slope * helpfulness for helpfulness, safety in chosen]
        yield float(beta), np.mean(above, axis=0) / np.sqrt(1 + line.slope**2), len(chosen)


def _summary(drawn: Array, confidence: float) -> tuple[float, float, float, float]:
    """Returns estimate, interval and p."""
    known = drawn[1:][~np.isnan(drawn[1:])]
    if np.isnan(drawn[0]) or not len(known):
        return float(drawn[0]), float("nan"), float("nan"), float("nan")
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(known) + 1))
    return float(drawn[0]), *interval(drawn[1:], confidence), p
