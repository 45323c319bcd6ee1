"""The result table, as text for a terminal, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from dagster_project.experiment.agents import RECIPE_LABELS, Recipe

ORDER = ["safe", "help", "both", "safe_then_help", "help_then_safe"]


def result_rows(points: pd.DataFrame) -> pd.DataFrame:
    """Returns the frontier points averaged over judges, by judging, model and recipe, deltas with intervals."""
    shown = points[points["judge"].isna()].copy()
    shown["place"] = shown["recipe"].map(ORDER.index)
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
            "trained on": [RECIPE_LABELS[Recipe(recipe)] for recipe in shown["recipe"]],
            "beta": [f"{beta:g}" for beta in shown["beta"]],
            "safety": [f"{value:.2f}" for value in shown["safety"]],
            "helpfulness": [f"{value:.2f}" for value in shown["helpfulness"]],
            "Δ safety": [delta(row, "safety_delta") for row in shown.to_dict("records")],
            "Δ helpfulness": [delta(row, "helpfulness_delta") for row in shown.to_dict("records")],
        }
    )


def to_latex(rows: pd.DataFrame) -> str:
    """Returns the table in booktabs style."""
    escapes = {character: f"\\{character}" for character in "&_%$#{}"}
    escapes |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    escapes |= {"→": r"$\to$", "Δ": r"$\Delta$", "β": r"$\beta$"}
    table = str.maketrans(escapes)

    def cell(value: object) -> str:
        return str(value).translate(table)

    lines = [r"\begin{tabular}{" + "l" * len(rows.columns) + "}", r"\toprule"]
    lines += [" & ".join(map(cell, rows.columns)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(cell, row)) + r" \\" for row in rows.itertuples(index=False)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
