"""Persistence: the share of the first stage's gain that survives the second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Statistics
from dagster_project.results.points import JUDGINGS
from dagster_project.results.scores import Array, Draws, Scores, combinations, draw, interval, judges_of

SEQUENCES = {
    "safe": (Recipe.safe, Recipe.safe_then_help, Recipe.help),
    "help": (Recipe.help, Recipe.help_then_safe, Recipe.safe),
}
"""For each metric: trained on it alone, on it and then the other, on the other alone."""
SMALLEST_GAIN = 1e-9
SHAKY = 0.05
"""An interval from which more than this share of draws is missing is drawn dotted."""
COLUMNS = ["judging", "judge", "model", "beta", "metric", "estimate", "low", "high", "n_bootstrap", "denominator"]
COLUMNS += ["invalid_share", "published_low", "published_high", "cautious_low", "cautious_high"]


class Part(NamedTuple):
    """One model's ratio by one judge: plain and resampled, its denominator, and resampled on its own."""

    ratio: Array
    denominator: Array
    alone: Array


def persistence(
    scores: Scores, agents: pd.DataFrame, statistics: Statistics, *, as_published: bool = True
) -> pd.DataFrame:
    """Returns persistence for every way of judging, judge, model and beta; a null is an average.

    For a metric m with score s: (s(m then other) - s(other)) / (s(m) - s(other)); seeds are pooled before the ratio,
    models and judges averaged after it. A ratio whose denominator is not positive is left out of an average;
    `invalid_share` says in how many bootstrap draws that befell any of its parts, and an interval is only as good as
    that share is small. `cautious_low` and `cautious_high` say how small: they bound the ratio even if all those draws
    lay on the wrong side, and are infinite where they are too many for that.

    `published_low` and `published_high` are the interval as the paper's released code draws it: cases within each
    seed, and each model's and judge's anew, although models and judges share cases. It says less than it seems to.
    Without `as_published` they are left out, NaN.
    """
    draws = draw(scores, statistics)
    trained = agents[agents["recipe"].notna() & agents["beta"].notna()]
    keys = {
        (str(row.model), str(row.recipe), float(row.beta), str(row.pairs_judge)): str(row.agent)  # type: ignore[arg-type]
        for row in trained.itertuples(index=False)
    }
    models = sorted({key[0] for key in keys})
    betas = sorted({key[2] for key in keys})
    ways = combinations(JUDGINGS, judges_of(scores), sorted({key[3] for key in keys}))
    parts: dict[tuple[str, str, str, float, str], Part] = {}
    for on, by in dict.fromkeys(pair for pairs in ways.values() for pair in pairs):
        for model in models:
            for beta in betas:
                own = statistics if as_published else statistics.model_copy(update={"n_bootstrap": 0})
                found = _parts(scores, draws, keys, (model, beta, on), by, own)
                parts.update({(on, by, model, beta, metric): part for metric, part in found.items()})
    rows = []
    for (judging, judge), pairs in ways.items():
        for beta in betas:
            for metric in SEQUENCES:
                for chosen in (None, *models):
                    asked = [
                        (on, by, model, beta, metric)
                        for model in (models if chosen is None else [chosen])
                        for on, by in pairs
                        if all((model, recipe.value, beta, on) in keys for recipe in SEQUENCES[metric])
                    ]
                    wanted = [parts[place] for place in asked if place in parts]
                    # An average is there only if everything is that it is of.
                    if wanted and len(wanted) == len(asked):
                        rows.append((judging, judge, chosen, beta, metric, *_summary(wanted, statistics)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _parts(
    scores: Scores,
    draws: Draws,
    keys: dict[tuple[str, str, float, str], str],
    coordinates: tuple[str, float, str],
    judge: str,
    statistics: Statistics,
) -> dict[str, Part]:
    """Returns the ratios of one model, beta and pairs' judge by one judge, those that can be had."""
    model, beta, pairs_judge = coordinates
    found: dict[str, Part] = {}
    weights: Array | None = None
    for metric, recipes in SEQUENCES.items():
        names = [keys.get((model, recipe.value, beta, pairs_judge)) for recipe in recipes]
        cells = np.array([scores.cells(str(name), judge, metric) for name in names])
        # Only what all three have can be compared.
        cells = np.where(np.isnan(cells).any(axis=0), np.nan, cells)
        if None in names or np.isnan(cells).all():
            continue
        ratio, denominator = _ratio(draws.means(cells))
        if weights is None:  # shared by both metrics, as by the released code
            weights = _own_weights(scores, statistics, f"{model}|{beta}|{pairs_judge}|{judge}")
        alone = _ratio(_stratified_means(cells, weights))[0]
        found[metric] = Part(ratio, denominator, alone)
    return found


def _ratio(means: Array) -> tuple[Array, Array]:
    alone, then_other, other = means
    denominator = alone - other
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > SMALLEST_GAIN, (then_other - other) / denominator, np.nan), denominator


def _own_weights(scores: Scores, statistics: Statistics, name: str) -> Array:
    """Returns how often each seed's cases are drawn, of shape (draws, seeds, cases), from a stream of `name`'s own.

    Each seed has its own held-out cases, and as many of them are drawn as there are. A case that is not among them
    has no score and takes no draw.
    """
    known = np.logical_not(np.all(np.isnan(scores.values), axis=0)).reshape(scores.values.shape[1:])
    generator = np.random.default_rng([statistics.seed, *name.encode()])
    weights = np.zeros((statistics.n_bootstrap, *known.shape), dtype=np.float32)
    for seed, there in enumerate(known):
        n = int(there.sum())
        if n:
            drawn = generator.integers(n, size=(statistics.n_bootstrap, n))
            drawn += (
                np.arange(statistics.n_bootstrap)[:, None] * n
            )  # counted at once: four times as fast as multinomial
            weights[:, seed, there] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
    return weights


def _stratified_means(cells: Array, weights: Array) -> Array:
    """Returns weighted means of three agents, shape (3, draws)."""
    known = ~np.isnan(cells[0])
    flat = weights[:, known].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = cells[:, known] @ flat.T / flat.sum(axis=1)
    return means


def _summary(parts: Sequence[Part], statistics: Statistics) -> tuple[float, ...]:
    averages, valid = _averages(np.array([part.ratio for part in parts]))
    low, high = interval(averages[1:], statistics.confidence)
    usable = int((~np.isnan(averages[1:])).sum())
    invalid = float((~valid[:, 1:]).any(axis=0).mean()) if averages.size > 1 else float("nan")
    denominator = float(np.mean([part.denominator[0] for part in parts]))
    alone = interval(_averages(np.array([part.alone for part in parts]))[0], statistics.confidence)
    cautious = _cautious(averages[1:], np.all(valid[:, 1:], axis=0, keepdims=True)[0], statistics.confidence)
    return float(averages[0]), low, high, usable, denominator, invalid, *alone, *cautious


def _cautious(drawn: Array, sound: npt.NDArray[np.bool_], confidence: float) -> tuple[float, float]:
    """Returns the interval if every draw that lacks a ratio is taken to lie below it, and then above it.

    Infinite where such draws alone are more than the tail; (NaN, NaN) without draws.
    """
    if not len(drawn):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low = np.quantile(np.where(sound, drawn, -np.inf), tail, method="lower")
    high = np.quantile(np.where(sound, drawn, np.inf), 1 - tail, method="higher")
    return float(low), float(high)


def _averages(ratios: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Returns the average of what is valid in every draw, and what is."""
    valid = np.logical_not(np.isnan(ratios))
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = np.where(valid.any(axis=0), np.where(valid, ratios, 0).sum(axis=0) / valid.sum(axis=0), np.nan)
    return averages, valid
