"""Persistence: the share of the first stage's gain that survives the second."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Statistics
from dagster_project.results.frontier import JUDGINGS, Draws, draw
from dagster_project.results.scores import Array, Scores, combinations, interval, judges_of

SEQUENCES = {
    "safe": (Recipe.safe, Recipe.safe_then_help, Recipe.help),
    "help": (Recipe.help, Recipe.help_then_safe, Recipe.safe),
}
"""For each metric: trained on it alone, on it and then the other, on the other alone."""
SMALLEST_GAIN = 1e-9
COLUMNS = ["judging", "judge", "model", "beta", "metric", "estimate", "low", "high", "n_bootstrap", "denominator"]
COLUMNS += ["invalid_share"]


def persistence(scores: Scores, agents: pd.DataFrame, statistics: Statistics) -> pd.DataFrame:
    """Returns persistence for every way of judging, judge, model and beta; a null is an average.

    For a metric m with score s: (s(m then other) - s(other)) / (s(m) - s(other)); seeds are pooled before the ratio,
    models and judges averaged after it. A ratio whose denominator is not positive is left out of an average;
    `invalid_share` says in how many bootstrap draws that befell any of its parts, and an interval is only as good as
    that share is small.
    """
    draws = draw(scores, statistics)
    trained = agents[agents["recipe"].notna()]
    keys = {
        (str(row.model), str(row.recipe), float(row.beta), str(row.pairs_judge)): str(row.agent)  # type: ignore[arg-type]
        for row in trained.itertuples(index=False)
    }
    models = sorted({key[0] for key in keys})
    rows = []
    ways = combinations(JUDGINGS, judges_of(scores), sorted({key[3] for key in keys}))
    for (judging, judge), pairs in ways.items():
        for beta in sorted({key[2] for key in keys}):
            for metric, recipes in SEQUENCES.items():
                for chosen in (None, *models):
                    parts = [
                        ratio
                        for model in (models if chosen is None else [chosen])
                        for on, by in pairs
                        if (ratio := _ratio(draws, keys, (model, beta, on), by, metric, recipes)) is not None
                    ]
                    if parts:
                        rows.append((judging, judge, chosen, beta, metric, *_summary(parts, statistics)))
    return pd.DataFrame(rows, columns=COLUMNS)


Part = tuple[Array, Array]


def _ratio(
    draws: Draws,
    keys: dict[tuple[str, str, float, str], str],
    coordinates: tuple[str, float, str],
    judge: str,
    metric: str,
    recipes: tuple[Recipe, Recipe, Recipe],
) -> Part | None:
    """Returns ratio and denominator, plain and resampled, or None if one of the three agents is missing."""
    model, beta, pairs_judge = coordinates
    names = [keys.get((model, recipe.value, beta, pairs_judge)) for recipe in recipes]
    if any(name is None for name in names):
        return None
    alone, then_other, other = draws.shared([str(name) for name in names], judge, metric)
    denominator = alone - other
    if np.isnan(denominator[0]):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(denominator > SMALLEST_GAIN, (then_other - other) / denominator, np.nan)
    return ratio, denominator


def _summary(parts: list[Part], statistics: Statistics) -> tuple[float, float, float, int, float, float]:
    ratios = np.array([ratio for ratio, _ in parts])
    denominators = np.array([denominator for _, denominator in parts])
    valid = ~np.isnan(ratios)
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = np.where(valid.any(axis=0), np.where(valid, ratios, 0).sum(axis=0) / valid.sum(axis=0), np.nan)
    low, high = interval(averages[1:], statistics.confidence)
    usable = int((~np.isnan(averages[1:])).sum())
    invalid = float((~valid[:, 1:]).any(axis=0).mean()) if averages.size > 1 else float("nan")
    return float(averages[0]), low, high, usable, float(denominators[:, 0].mean()), invalid
