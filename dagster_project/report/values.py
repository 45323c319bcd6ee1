"""Names and numbers as figures and tables show them, and what of a table may be null or absent."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.wording import JUDGING_TITLES
from dagster_project.results.persistence import GAIN

MAIN_SET = "model_recipe"
"""The points of the published line: a source model's recipe at one beta, judges averaged."""
SET_TITLES = {MAIN_SET: "all models, recipes, β", "without_help": "without H", "without_both": "without S&H"}
"""Sets of points whose names would not say what they are."""
AVERAGE = "average"
"""In place of a model's name, what is averaged over models."""

Row = Mapping[Hashable, Any]
CLOSE = 0.03
"""A bound that is nearer to what it is held against has a third digit."""
MOST_DIGITS = 5


def point_id(judging: str, model: str, recipe: str, beta: float | None, judge: str | None = None) -> str:
    """Returns the id of a point's element in an SVG; a judge's own points have the judge's name at the end."""
    name = f"point:{judging}:{model}:{recipe}:{beta_name(beta)}"
    return name if missing(judge) else f"{name}:{judge}"


def set_title(point_set: str) -> str:
    """Returns what a set of points is called."""
    return SET_TITLES.get(point_set) or point_set.replace("_", " ")


def beta_name(beta: float | None) -> str:
    """Returns beta for people: the stages of an agent without one have several."""
    return "mixed" if beta is None or missing(beta) else f"{beta:g}"


def recipe_order(recipes: Iterable[object]) -> dict[str, int]:
    """Returns the place of each recipe in every figure and table; nulls have none."""
    known = {Recipe(str(recipe)) for recipe in recipes if not missing(recipe)}
    return {recipe.value: place for place, recipe in enumerate(sorted(known, key=lambda recipe: recipe.place))}


def missing(value: object) -> bool:
    """Whether a table's cell is null."""
    return bool(pd.isna(value))  # type: ignore[call-overload]


def levels(betas: Iterable[float | None]) -> dict[str, int]:
    """Returns the place of each beta by its name, in ascending order, `mixed` last."""
    known = sorted({float(beta) for beta in betas if beta is not None and not missing(beta)})
    names = [beta_name(beta) for beta in known] + ["mixed"] * any(missing(beta) for beta in betas)
    return {name: place for place, name in enumerate(names)}


def judgings_of(table: pd.DataFrame) -> list[str]:
    """Returns the ways of judging in the table, in the order in which they are shown."""
    return [judging for judging in JUDGING_TITLES if (table["judging"] == judging).any()]


def scorings(table: pd.DataFrame) -> list[tuple[str, str | None]]:
    """Return the ways in which one judge scored, as (judging, judge), in the order in which they stand side by side.

    A judge scores agents trained on its own verdicts (`match`), on another's (`cross`), and both together (`all`),
    which is left out beside the other two. A table without single judges has its averages in their place.
    """
    judged = table[table["judging"].isin(list(JUDGING_TITLES))]  # a claim without data has none
    ways = judged[["judging", "judge"]].drop_duplicates().itertuples(index=False)
    found = [(str(judging), None if missing(judge) else str(judge)) for judging, judge in ways]
    alone = [way for way in found if way[1] is not None] or found
    chosen = [way for way in alone if way[0] in ("match", "cross")] or alone
    return sorted(chosen, key=lambda way: (list(JUDGING_TITLES).index(way[0]), way[1] or ""))


def own_ways(table: pd.DataFrame) -> list[tuple[str, str | None]]:
    """Return the `scorings` of agents trained on the judge's own verdicts; all of them where there are none."""
    found = scorings(table)
    return [way for way in found if way[0] == found[0][0]]


def scored(table: pd.DataFrame, judging: str, judge: str | None) -> pd.DataFrame:
    """Return a table's rows of one judge, or (None) of the average of judges, in a way of judging."""
    rows = table[table["judging"] == judging]
    return rows[rows["judge"].isna() if judge is None else rows["judge"] == judge]


def column(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Returns a column, all null where the table has none of that name."""
    return table[name] if name in table.columns else pd.Series(np.nan, index=table.index)


def number(value: float, digits: int = 2) -> str:
    """Returns the number with a true minus sign."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")


def between(low: float, high: float) -> str:
    """Returns an interval with a space before it, nothing where there is none."""
    return "" if np.isnan([low, high]).any() else f" [{number(low)}, {number(high)}]"


def estimate(value: float, low: float, high: float, thresholds: Iterable[float] = (0.0,), *, sign: bool = False) -> str:
    """Return an estimate with its interval, with more digits where two would hide which side of a threshold a bound is.

    Args:
        value: The estimate.
        low: The interval's lower bound; NaN: there is none.
        high: Its upper bound.
        thresholds: What the interval is held against.
        sign: Whether positive numbers have a plus sign.
    """
    if missing(value):
        return "–"
    bounds = [] if missing(low) or missing(high) else [float(low), float(high)]
    near = [(bound, threshold) for bound in bounds for threshold in thresholds if bound != threshold]
    digits = 3 if any(abs(bound - threshold) < CLOSE for bound, threshold in near) else 2
    while digits < MOST_DIGITS and any(round(bound, digits) == round(threshold, digits) for bound, threshold in near):
        digits += 1
    shown = [number(part, digits) for part in (float(value), *bounds)]
    if sign:
        shown = [text if text.startswith("−") or not float(text) else f"+{text}" for text in shown]
    return shown[0] + (f" [{shown[1]}, {shown[2]}]" if bounds else "")


LEAST_P = 0.001
"""Smaller p-values are not told apart: with few seeds they are too small (docs/warehouse.md has by how much)."""


def p_value(p: float) -> str:
    """Return a p-value in words, as in “p 0.012” or “p < 0.001”."""
    return f"p < {LEAST_P:g}" if p < LEAST_P else f"p {p:.2g}"


def kept_share(row: Row) -> str:
    """Return the share of a gain that is left in percent, or why there is none, of a row of `persistence`."""
    if row["gain_verdict"] != GAIN:
        return str(row["gain_verdict"])
    share, low, high = (row[f"share{bound}"] for bound in ("", "_low", "_high"))
    if missing(low) or missing(high):
        return f"{number(100 * share, 0)}% [unbounded]"
    if high < 0:
        return "none left"
    return f"{number(100 * share, 0)}% [{number(100 * low, 0)}, {number(100 * high, 0)}]"


PAPER_POSITION = {
    "paper_position": "estimate",
    "paper_position_low": "low",
    "paper_position_high": "high",
    "paper_released_low": "published_low",
    "paper_released_high": "published_high",
    "paper_denominator": "denominator",
    "paper_invalid_share": "invalid_share",
}
"""Columns of `persistence` that have the paper's measure, and what a figure of it calls them."""


def most_telling(table: pd.DataFrame) -> str | None:
    """Return whose trajectories say most of how far judges agree, of those that both scored; None without any.

    Args:
        table: `judge_confusion` or `judge_agreement`.
    """
    there = set(table.loc[table["n"] > 0, "whose"]) if "whose" in table else set()
    return next((whose for whose in ("trained", "source_held_out", "source") if whose in there), None)


WHOSE = {
    "source": "of source models on all cases",
    "source_held_out": "of source models on held-out cases",
    "trained": "of trained agents on held-out cases",
}
"""Whose trajectories two judges scored."""


def with_agents(table: pd.DataFrame, agents: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with columns model, recipe and beta, from `agents` where it has none of its own."""
    absent = [name for name in ("model", "recipe", "beta") if name not in table.columns]
    if not absent:
        return table
    if agents.empty:
        return table.assign(**{name: np.nan for name in absent}).iloc[:0]
    return table.merge(agents[["agent", *absent]].drop_duplicates("agent"), on="agent", how="left")


START_STEPS = 40
"""As many optimiser steps as the released code logs together; at the very first one every loss is log 2."""


def training_starts(steps: pd.DataFrame, agents: pd.DataFrame) -> pd.DataFrame:
    """Returns mean loss and reward accuracy of the first `START_STEPS` steps of each agent's last stage.

    Args:
        steps: `training_steps`.
        agents: `agents`; needed where `steps` has no columns model and recipe.
    """
    table = with_agents(steps, agents)
    table = table[table["recipe"].notna()]
    last = table.groupby(["agent", "seed"])["stage"].transform("max")
    started = table[(table["stage"] == last) & (table["step"] <= START_STEPS)]
    keys = ["agent", "seed", "stage", "model", "recipe", "beta"]
    return started.groupby(keys, as_index=False, dropna=False)[["loss", "reward_accuracy"]].mean()
