"""The result table, for a terminal, Markdown, CSV and LaTeX (latex.py)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.values import beta_name, recipe_order


def result_rows(points: pd.DataFrame) -> pd.DataFrame:
    """Return the frontier points averaged over judges, by judging, model and recipe, deltas with intervals.

    `n` counts the scores behind a point: one for each judge, seed and held-out case that has one.
    """
    shown = points[points["judge"].isna()].copy()
    shown["place"] = shown["recipe"].map(recipe_order(shown["recipe"]))
    shown["judging"] = pd.Categorical(shown["judging"], ["match", "cross", "all"], ordered=True)
    shown = shown.sort_values(["judging", "model", "place", "beta"])

    def delta(row: Mapping[Hashable, Any], name: str) -> str:
        if pd.isna(row[f"{name}_low"]):  # no bootstrap
            return f"{row[name]:+.2f}"
        return f"{row[name]:+.2f} [{row[name + '_low']:+.2f}, {row[name + '_high']:+.2f}]"

    return pd.DataFrame(
        {
            "judging": shown["judging"].astype(str),
            "model": shown["model"],
            "trained on": [Recipe(recipe).label for recipe in shown["recipe"]],
            "beta": [beta_name(beta) for beta in shown["beta"]],
            "n": [f"{value:.0f}" for value in shown["cells"]],
            "safety": [f"{value:.2f}" for value in shown["safety"]],
            "helpfulness": [f"{value:.2f}" for value in shown["helpfulness"]],
            "Δ safety": [delta(row, "safety_delta") for row in shown.to_dict("records")],
            "Δ helpfulness": [delta(row, "helpfulness_delta") for row in shown.to_dict("records")],
        }
    )
