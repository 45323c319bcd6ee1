"""Trainings against each other on the same cases, and how far training on both lands from the others' line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dagster_project.experiment.agents import PAPER, Recipe
from dagster_project.results.disagreements import Measured, disagreements
from dagster_project.results.fits import Cloud, fit_line
from dagster_project.results.intervals import Array
from dagster_project.results.points import AXES, Points
from dagster_project.results.scores import BEST

COMPARED = [
    *((Recipe.safe, other) for other in PAPER if other != Recipe.safe),
    *((Recipe.help, other) for other in PAPER if other not in (Recipe.safe, Recipe.help)),
    (Recipe.safe_then_help, Recipe.help_then_safe),
]
"""Each single training with every other of the paper, and the two orders of both."""
ORDERS = (Recipe.safe_then_help.value, Recipe.help_then_safe.value)
DISTANCE = "distance"
KEYS = ["judging", "judge", "model", "beta", "beta_minus", "first", "second", "axis"]
COLUMNS = [*KEYS, "estimate", "low", "high", "stderr", "df", "p", "n", "cells", "cases", "generalises_to"]
MISSING = float("nan")


class Pair(NamedTuple):
    """One agent against another, by one judge.

    Attributes:
        model: Their source model.
        first: The first one's position among the points.
        second: The second one's.
        difference: Of the scores in every draw, shape (3, 1 + draws): `AXES`, and the share safe and helpful at once.
        known: Which cells both have, shape (seeds, cases).
    """

    model: str
    first: int
    second: int
    difference: Array
    known: Array


class Group(NamedTuple):
    """One point of a way of judging: a model's recipe at one beta, and the positions that it is the mean of."""

    model: str
    recipe: str
    beta: float
    positions: list[int]


class Key(NamedTuple):
    """What a contrast is of; `model` None: the average over models; `beta_minus`: NaN, but for differences of betas."""

    model: str | None
    beta: float
    beta_minus: float
    first: str
    second: str | None
    axis: str


class Contrast(NamedTuple):
    """A contrast in every draw, and how much data is behind it."""

    drawn: Array
    n: int
    cells: int
    cases: int


def contrasts(points: Points, confidence: float, *, compare_judges: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return differences between recipes over the same models, pairs' judges and cases, and where judges disagree.

    `axis` is `safe` or `help`: the score of `first` minus that of `second`, over the cells that both have;
    `best_of_both`: the same of the share of trajectories with 2 or more in both; or `distance`: how far `first`
    (training on both) lies beyond the line through all points of other trainings, in points of score, at a right angle
    to it and positive where it is better in both; `second` is then null. Where `beta_minus` is given, the row is the
    difference at `beta` minus the difference at `beta_minus`. `n` counts the agents (model and pairs' judge, by judge)
    compared, or the points; `cells` the (agent, seed, case) behind them; `cases` the distinct cases.
    """
    pairs = _pairs(points)
    rows = []
    measured: list[Measured] = []
    for way in points.ways:
        for key, found in _contrasts(points, pairs, way).items():
            summary = points.draws.summary(found.drawn, confidence)
            rows.append((*way, *key, *summary, *found[1:], points.draws.scope))
            if way[1] is not None and compare_judges:
                subject = f"{key.first} minus {key.second}" if key.second else key.first
                if not np.isnan(key.beta_minus):
                    subject += f", minus that at {key.beta_minus:g}"
                measured.append(Measured(way, "contrasts", key.model, key.beta, subject, key.axis, found.drawn))
    return pd.DataFrame(rows, columns=COLUMNS), disagreements(measured, points.draws, confidence)


def _contrasts(
    points: Points, pairs: Mapping[tuple[str, str, str], Sequence[Pair]], way: tuple[str, str | None]
) -> dict[Key, Contrast]:
    groups = [
        Group(str(model), str(recipe), float(beta), positions)  # type: ignore[arg-type]
        for (model, recipe, beta), positions in points.groups(way, ("model", "recipe", "beta"))
    ]
    there = {position for group in groups for position in group.positions}
    found: dict[Key, Contrast] = {}
    for (first, second, beta), of_beta in pairs.items():
        chosen = [pair for pair in of_beta if {pair.first, pair.second} <= there]
        for model in (None, *dict.fromkeys(pair.model for pair in chosen)):
            of_model = [pair for pair in chosen if model in (None, pair.model)]
            for place, axis in enumerate((*AXES, BEST) if of_model else ()):
                drawn = np.mean([pair.difference[place] for pair in of_model], axis=0)
                if axis == BEST and np.isnan(drawn[0]):
                    continue
                known = np.array([pair.known for pair in of_model])
                counts = len(of_model), int(known.sum()), int(known.any(axis=(0, 1)).sum())
                found[Key(model, float(beta), MISSING, first, second, axis)] = Contrast(drawn, *counts)
    return {**found, **dict(_between_betas(found)), **dict(_distances(points, groups))}


def _between_betas(found: Mapping[Key, Contrast]) -> Iterator[tuple[Key, Contrast]]:
    """Yield by how much the effect of the order at one beta differs from that at another."""
    orders = {key: contrast for key, contrast in found.items() if (key.first, key.second) == ORDERS}
    for (one, here), (other, there) in itertools.combinations(orders.items(), 2):
        if (one.model, one.axis) == (other.model, other.axis) and not np.isnan([one.beta, other.beta]).any():
            counts = (min(pair) for pair in zip(here[1:], there[1:], strict=True))
            yield one._replace(beta_minus=other.beta), Contrast(here.drawn - there.drawn, *counts)


def _pairs(points: Points) -> dict[tuple[str, str, str], list[Pair]]:
    """Return every pair that differs in nothing but the recipe, by (first, second, beta as text: NaN is a beta)."""
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
    everything = np.concatenate([points.cells, points.best_cells[:, None]], axis=1)
    cells = everything[[first for _, first, _ in found]] - everything[[second for *_, second in found]]
    means = points.draws.means(cells.reshape(-1, *cells.shape[2:])).reshape(*cells.shape[:2], -1)
    pairs: dict[tuple[str, str, str], list[Pair]] = {}
    for (names, first, second), difference, own in zip(found, means, cells, strict=True):
        known = ~np.isnan(own[: len(AXES)]).any(axis=0)
        pairs.setdefault(names, []).append(Pair(points.keys[first].model, first, second, difference, known))
    return pairs


def _distances(points: Points, groups: Sequence[Group]) -> Iterator[tuple[Key, Contrast]]:
    """Yield how far training on both lies beyond the line of the others, by beta, for all models and for each."""
    deltas = [points.delta[group.positions].mean(axis=0) for group in groups]
    known = [(group, delta) for group, delta in zip(groups, deltas, strict=True) if not np.isnan(delta[:, 0]).any()]
    trained = [(group, delta) for group, delta in known if points.keys[group.positions[0]].here]
    others = np.array([delta for group, delta in trained if group.recipe != Recipe.both])
    ours = [(group, delta) for group, delta in known if group.recipe == Recipe.both]
    if len(others) < 3 or np.ptp(others[:, 0, 0]) == 0:
        return
    line = fit_line(Cloud(others[:, 0], others[:, 1]))
    for beta in dict.fromkeys(str(group.beta) for group, _ in ours):
        for model in (None, *dict.fromkeys(group.model for group, _ in ours)):
            chosen = [item for item in ours if str(item[0].beta) == beta and model in (None, item[0].model)]
            if not chosen:
                continue
            above = [safety - line.intercept - line.slope * helpfulness for _, (helpfulness, safety) in chosen]
            drawn = np.mean(above, axis=0) / np.sqrt(1 + line.slope**2)
            there = ~np.isnan(points.delta_cells[[place for group, _ in chosen for place in group.positions]]).any(
                axis=1
            )
            counts = len(chosen), int(there.sum()), int(there.any(axis=0).any(axis=0).sum())
            yield Key(model, float(beta), MISSING, Recipe.both.value, None, DISTANCE), Contrast(drawn, *counts)
