"""Trainings case by case: held-out scores of every agent, and what a second training changed, with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.report.values import recipe_order
from dagster_project.results.intervals import Array
from dagster_project.results.points import AXES, Points, make_points
from dagster_project.results.scores import BEST, CELLS, GOOD, load_agents, load_scores

JUDGINGS = ("match", "cross")
"""Ways of judging that name one judge for each agent."""
STEP = 0.5
"""Points of score to which a case's means are rounded, so that equal slopes are one line."""
CHANGES = [
    "judging", "judge", "model", "beta", "first", "second", "metric", "before", "after", "change", "low", "high", "p",
    "pairs", "cases",
]  # fmt: skip


class Transition(NamedTuple):
    """A second training, and the metric that the first one trained for."""

    first: Recipe
    second: Recipe
    metric: str


SECOND_TRAININGS = (
    Transition(Recipe.safe, Recipe.safe_then_help, "safe"),
    Transition(Recipe.help, Recipe.help_then_safe, "help"),
)


def case_scores(warehouse: Path) -> pd.DataFrame:
    """Return the mean score of every agent, seed, judge, metric and held-out case, a row each.

    Samples and replicates of a case are averaged. A source model has rows for every seed: those of its held-out cases.
    """
    with open_database(warehouse) as database:
        table = database.execute(CELLS.format(where="true", best=BEST, good=GOOD)).df()
    judged: pd.DataFrame = table[table["metric"] != BEST].reset_index(drop=True)
    return judged


def load_changes(warehouse: Path, statistics: Statistics) -> pd.DataFrame:
    """Return `changes` of everything in a warehouse.

    Args:
        warehouse: The DuckDB file.
        statistics: How many bootstrap draws, from which seed, and the intervals' confidence.
    """
    points = make_points(load_scores(warehouse), load_agents(warehouse), statistics)
    return changes(points, statistics.confidence)


def changes(points: Points, confidence: float) -> pd.DataFrame:
    """Return the mean difference between two trainings on equal cases, for every model and for all models together.

    `second` minus `first`, where null stands for the source model. Agents are paired by model, beta and pairs' judge;
    seeds are pooled. `judge` is null where the judges of a way of judging are pooled, `model` where models are.
    Intervals and p-values are those of all results (`results.intervals`). `pairs` counts the pairs of agents by judge,
    `cases` the cases.
    """
    rows: list[tuple[Any, ...]] = []
    for names, members in _members(points):
        before = np.stack([_first(points, first, second) for first, second in members])
        after = points.cells[[second for _, second in members]]
        cells = after - before
        means = points.draws.means(cells.reshape(-1, *cells.shape[2:])).reshape(*cells.shape[:2], -1).mean(axis=0)
        both = ~np.isnan(cells)
        for place, metric in enumerate(AXES):
            known = both[:, place]
            if not known.any():
                continue
            found = points.draws.summary(means[place], confidence)
            first_mean, second_mean = (_mean(side[:, place], known) for side in (before, after))
            n_cases = int(known.any(axis=(0, 1)).sum())
            numbers = first_mean, second_mean, found.estimate, found.low, found.high, found.p
            rows.append((*names, metric, *numbers, len(members), n_cases))
    return pd.DataFrame(rows, columns=CHANGES)


def _first(points: Points, first: int | None, second: int) -> Array:
    """Return the cells of the agent that is compared with: an agent's own, or the source model's."""
    cells: Array = points.cells[second] - points.delta_cells[second] if first is None else points.cells[first]
    return cells


def _mean(cells: Array, known: np.ndarray[Any, Any]) -> float:
    """Return the mean over pairs of the means over the cells that both sides of a pair have."""
    counts = known.sum(axis=(1, 2))
    sums = np.where(known, cells, 0.0).sum(axis=(1, 2))
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def _members(points: Points) -> Iterator[tuple[tuple[Any, ...], list[tuple[int | None, int]]]]:
    """Yield judging, judge, model, beta, first and second recipe, and the positions of the pairs of agents."""
    places = {
        (key.model, key.recipe, str(key.beta), key.pairs_judge, key.judge): position
        for position, key in enumerate(points.keys)
    }
    recipes = list(recipe_order(key.recipe for key in points.keys))
    compared = [*((None, recipe) for recipe in recipes), *itertools.combinations(recipes, 2)]
    for (judging, judge), ways in points.ways.items():
        if judging not in JUDGINGS:
            continue
        found: dict[tuple[str, str, str | None, str], list[tuple[int | None, int]]] = {}
        for (model, recipe, beta, pairs_judge, scored_by), second in places.items():
            if (pairs_judge, scored_by) not in ways:
                continue
            for first_recipe, second_recipe in compared:
                if second_recipe != recipe:
                    continue
                first = (
                    None if first_recipe is None else places.get((model, first_recipe, beta, pairs_judge, scored_by))
                )
                if first is not None or first_recipe is None:
                    found.setdefault((model, beta, first_recipe, recipe), []).append((first, second))
        pooled: dict[tuple[str, str | None, str], list[tuple[int | None, int]]] = {}
        for (model, beta, first_recipe, recipe), members in found.items():
            yield (judging, judge, model, float(beta), first_recipe, recipe), members
            pooled.setdefault((beta, first_recipe, recipe), []).extend(members)
        for (beta, first_recipe, recipe), members in pooled.items():
            yield (judging, judge, None, float(beta), first_recipe, recipe), members


def paired_cases(scores: pd.DataFrame, agents: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return the scores before and after of every pair of agents, judge, seed, metric and held-out case.

    Args:
        scores: Of `case_scores`.
        agents: The warehouse's `agents`.
        first: The recipe before.
        second: The recipe after; agents are paired by model, beta and pairs' judge.
    """
    names = agents[agents["recipe"].isin([first, second])][["agent", "model", "recipe", "beta", "pairs_judge"]]
    rows = scores.merge(names.drop_duplicates("agent"), on="agent")
    rows["judging"] = np.where(rows["pairs_judge"] == rows["judge"], "match", "cross")
    keys = ["judging", "judge", "model", "beta", "pairs_judge", "seed", "metric", "case_idx"]
    before, after = (rows[rows["recipe"] == recipe][[*keys, "score"]] for recipe in (first, second))
    return before.merge(after, on=keys, suffixes=("_before", "_after")).rename(
        columns={"score_before": "before", "score_after": "after"}
    )


def slopes(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return how many cases went from which score to which, for every way of judging, judge and model.

    Args:
        pairs: Of `paired_cases`, of one metric. A case's scores are averaged over agents and seeds, then rounded to
            `STEP`.
    """
    keys = ["judging", "judge", "model"]
    means = pairs.groupby([*keys, "case_idx"])[["before", "after"]].mean()
    rounded = (means / STEP).round() * STEP
    return rounded.reset_index().groupby([*keys, "before", "after"]).size().rename("cases").reset_index()
