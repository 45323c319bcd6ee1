"""Persistence: how much of the first training's gain is left after the second.

The gain is against the source model. The paper's own measure is another one, `paper_position`: where the agent trained
on both in turn lies between the two agents trained on one. It can be near 1 where there was no gain to keep, and above
0 where all of the gain was lost; it is kept beside the gain, under that name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.results.disagreements import Measured, disagreements
from dagster_project.results.intervals import (
    Array,
    Draws,
    Summary,
    fieller,
    percentiles,
    ratio_difference,
    surely_positive,
)
from dagster_project.results.points import JUDGINGS
from dagster_project.results.scores import Scores, combinations, draws_of, judges_of

SEQUENCES = {
    "safe": (Recipe.safe, Recipe.safe_then_help, Recipe.help),
    "help": (Recipe.help, Recipe.help_then_safe, Recipe.safe),
}
"""For each metric: trained on it alone, on it and then the other, on the other alone."""
SMALLEST_GAIN = 1e-9
SHAKY = 0.05
"""An interval from which more than this share of draws is missing is drawn dotted."""
GAIN, NO_GAIN, NO_SOURCE = "gain", "no gain", "no source"
"""Whether there is a gain to keep: its interval is above 0; it is not; the source model was not scored."""
_BOUNDS = ("", "_low", "_high")
POINTS = ("gain", "kept", "other", "loss")
"""Of a metric's score, in points: first training minus source; both in turn minus source; the other training minus
source; first training minus both in turn."""
KEYS = ["judging", "judge", "model", "beta", "metric"]
COLUMNS = [*KEYS, *(f"{name}{bound}" for name in POINTS for bound in (*_BOUNDS, "_p")), "gain_verdict"]
COLUMNS += [f"share{bound}" for bound in _BOUNDS]
COLUMNS += [f"paper_position{bound}" for bound in _BOUNDS]
COLUMNS += ["paper_released_low", "paper_released_high", "paper_denominator", "paper_invalid_share", "n_bootstrap"]
COLUMNS += ["agents", "cells", "cases", "generalises_to"]
DIFFERENCES = ["judging", "judge", "model", "beta", "quantity", "estimate", "low", "high", "stderr", "df", "p"]
DIFFERENCES += ["verdict", "cells", "cases", "generalises_to"]


class Part(NamedTuple):
    """One model's agents at one beta by one judge, on one metric; arrays of shape (1 + draws,), the estimate first.

    Attributes:
        position: The paper's ratio; NaN where its denominator is not positive.
        denominator: Of it.
        alone: The paper's ratio as the released code draws it.
        gain: First training minus source, over the cells that all four have.
        kept: Both in turn minus source.
        other: The other training minus source.
        known: Which cells those are, shape (seeds, cases).
    """

    position: Array
    denominator: Array
    alone: Array
    gain: Array
    kept: Array
    other: Array
    known: npt.NDArray[np.bool_]


class Persistence(NamedTuple):
    """The tables of persistence."""

    persistence: pd.DataFrame
    differences: pd.DataFrame
    disagreements: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return them by the names they have in the database."""
        return {
            "persistence": self.persistence,
            "persistence_differences": self.differences,
            "persistence_disagreements": self.disagreements,
        }


Place = tuple[str, str, str, float, str]
"""Pairs' judge, judge, model, beta, metric."""


def persistence(
    scores: Scores, agents: pd.DataFrame, statistics: Statistics, *, as_published: bool = True
) -> Persistence:
    """Return persistence for every way of judging, judge, model and beta; a null is an average.

    Of a metric with score s, first trained alone, then with the other training after it, and the other training alone:

    * `gain` is s(first) - s(source), `kept` is s(first then other) - s(source), `other` is s(other) - s(source), and
      `loss` is s(first) - s(first then other), each averaged over seeds, models and judges.
    * `share` is `kept` / `gain`, a ratio of averages, with Fieller's interval; only where the gain's interval lies
      above 0 (`gain_verdict` is `gain`), since there is nothing to keep a share of elsewhere.
    * `paper_position` is the paper's (s(first then other) - s(other)) / (s(first) - s(other)): seeds are pooled before
      the ratio, models and judges averaged after it. A ratio whose denominator is not positive is left out of an
      average; `paper_invalid_share` says in how many draws that befell any of its parts.

    `paper_released_low` and `paper_released_high` are the interval as the paper's released code draws it: cases within
    each seed, and each model's and judge's anew, although models and judges share cases, and no seeds. Without
    `as_published` they are NaN, and judges are not compared.

    `differences` compares safety with helpfulness within the same draws, see `_differences`.
    """
    draws = draws_of(scores, statistics)
    trained = agents[agents["recipe"].notna() & agents["beta"].notna()]
    keys = {
        (str(row.model), str(row.recipe), float(row.beta), str(row.pairs_judge)): str(row.agent)  # type: ignore[arg-type]
        for row in trained.itertuples(index=False)
    }
    models = sorted({key[0] for key in keys})
    betas = sorted({key[2] for key in keys})
    ways = combinations(JUDGINGS, judges_of(scores), sorted({key[3] for key in keys}))
    own = statistics if as_published else statistics.model_copy(update={"n_bootstrap": 0})
    parts: dict[Place, Part] = {}
    for on, by in dict.fromkeys(pair for pairs in ways.values() for pair in pairs):
        for model, beta in itertools.product(models, betas):
            found = _parts(scores, draws, keys, (model, beta, on), by, own)
            parts.update({(on, by, model, beta, metric): part for metric, part in found.items()})
    rows, compared = [], []
    measured: list[Measured] = []
    for way, pairs in ways.items():
        for beta, chosen in itertools.product(betas, (None, *models)):
            both: dict[str, list[Part]] = {}
            for metric, recipes in SEQUENCES.items():
                asked = [
                    (on, by, model, beta, metric)
                    for model in (models if chosen is None else [chosen])
                    for on, by in pairs
                    if all((model, recipe.value, beta, on) in keys for recipe in recipes)
                ]
                wanted = [parts[place] for place in asked if place in parts]
                # An average is there only if everything is that it is of.
                if wanted and len(wanted) == len(asked):
                    both[metric] = wanted
                    numbers = (*way, chosen, beta, metric, *_row(wanted, draws, statistics.confidence))
                    rows.append(numbers)
                    if way[1] is not None and as_published:
                        row = dict(zip(COLUMNS, numbers, strict=True))
                        measured += _measured(way, chosen, beta, metric, wanted, row)
            if len(both) == len(SEQUENCES):
                if way[1] is not None and as_published:
                    lost = _mean(both["help"], "loss") - _mean(both["safe"], "loss")
                    measured.append(
                        Measured(way, "persistence_differences", chosen, beta, "safe minus help", "points", lost)
                    )
                found_rows = _differences(both["safe"], both["help"], draws, statistics.confidence)
                compared += [(*way, chosen, beta, *row) for row in found_rows]
    return Persistence(
        pd.DataFrame(rows, columns=COLUMNS),
        pd.DataFrame(compared, columns=DIFFERENCES),
        disagreements(measured, draws, statistics.confidence),
    )


def _parts(
    scores: Scores,
    draws: Draws,
    keys: Mapping[tuple[str, str, float, str], str],
    coordinates: tuple[str, float, str],
    judge: str,
    statistics: Statistics,
) -> dict[str, Part]:
    """Return what one model, beta and pairs' judge give by one judge, by metric."""
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
        position, denominator = _position(draws.means(cells))
        if weights is None:  # shared by both metrics, as by the released code
            weights = _own_weights(scores, statistics, f"{model}|{beta}|{pairs_judge}|{judge}")
        alone = _position(_stratified_means(cells, weights))[0]
        gains = cells - scores.cells(model, judge, metric)
        gain, kept, other = draws.means(gains)
        found[metric] = Part(position, denominator, alone, gain, kept, other, ~np.isnan(gains[0]))
    return found


def _position(means: Array) -> tuple[Array, Array]:
    alone, then_other, other = means
    denominator = alone - other
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > SMALLEST_GAIN, (then_other - other) / denominator, np.nan), denominator


def _own_weights(scores: Scores, statistics: Statistics, name: str) -> Array:
    """Return how often each seed's cases are drawn, of shape (draws, seeds, cases), from a stream of `name`'s own.

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
    """Return weighted means of three agents, shape (3, draws)."""
    known = ~np.isnan(cells[0])
    flat = weights[:, known].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = cells[:, known] @ flat.T / flat.sum(axis=1)
    return means


def _row(parts: Sequence[Part], draws: Draws, confidence: float) -> tuple[Any, ...]:
    points: list[float] = []
    for name in POINTS:
        found = draws.summary(_mean(parts, name), confidence)
        points += [found.estimate, found.low, found.high, found.p]
    verdict = NO_SOURCE if np.isnan(points[0]) else GAIN if _has_gain(parts, draws, confidence) else NO_GAIN
    positions, valid = _averages(np.array([part.position for part in parts]))
    usable = int((~np.isnan(positions[1:])).sum())
    invalid = float((~valid[:, 1:]).any(axis=0).mean()) if positions.size > 1 else float("nan")
    denominator = float(np.mean([part.denominator[0] for part in parts]))
    released = percentiles(_averages(np.array([part.alone for part in parts]))[0], confidence)
    position = float(positions[0]), *draws.interval(positions, confidence)
    counts = denominator, invalid, usable, len(parts), *_counts(parts), draws.scope
    return *points, verdict, *_share(parts, draws, confidence), *position, *released, *counts


def _mean(parts: Sequence[Part], name: str) -> Array:
    """Return the average over parts of a quantity of `POINTS`, shape (1 + draws,)."""
    if name == "loss":
        return _mean(parts, "gain") - _mean(parts, "kept")
    mean: Array = np.mean([getattr(part, name) for part in parts], axis=0)
    return mean


def _has_gain(parts: Sequence[Part], draws: Draws, confidence: float) -> bool:
    return surely_positive(draws.summary(_mean(parts, "gain"), confidence), confidence)


def _share(parts: Sequence[Part], draws: Draws, confidence: float) -> tuple[float, float, float]:
    """Return the share of the gain that is left, with its interval; NaN where there is no clear gain."""
    gain, kept = _mean(parts, "gain"), _mean(parts, "kept")
    if not _has_gain(parts, draws, confidence):
        return float("nan"), float("nan"), float("nan")
    return float(kept[0] / gain[0]), *fieller(kept, gain, draws, confidence)


def _counts(parts: Sequence[Part]) -> tuple[int, int]:
    known = np.array([part.known for part in parts])
    return int(known.sum()), int(known.any(axis=(0, 1)).sum())


def _differences(
    safety: Sequence[Part], helpfulness: Sequence[Part], draws: Draws, confidence: float
) -> Iterator[tuple[Any, ...]]:
    """Yield safety's persistence minus helpfulness's, from the same draws, in three forms.

    `share`: of the shares, only where both have a clear gain. `points`: points of helpfulness lost to safety training
    minus points of safety lost to helpfulness training, which is defined in any case; positive where safety persists
    better, as in the others. `paper_position`: of the paper's positions.
    """
    cells = tuple(min(pair) for pair in zip(_counts(safety), _counts(helpfulness), strict=True))
    missing = float("nan")
    ratios = [(_mean(parts, "kept"), _mean(parts, "gain")) for parts in (safety, helpfulness)]
    if all(_has_gain(parts, draws, confidence) for parts in (safety, helpfulness)):
        yield "share", *ratio_difference(ratios[0], ratios[1], draws, confidence), GAIN, *cells, draws.scope
    else:
        yield "share", *Summary(*(missing,) * 6), NO_GAIN, *cells, draws.scope
    lost = _mean(helpfulness, "loss") - _mean(safety, "loss")
    yield "points", *draws.summary(lost, confidence), None, *cells, draws.scope
    one, other = (_averages(np.array([part.position for part in parts]))[0] for parts in (safety, helpfulness))
    bounds = draws.interval(one - other, confidence)
    # Positions with small denominators have no variance to speak of, and no p-value.
    yield "paper_position", float(one[0] - other[0]), *bounds, missing, missing, missing, None, *cells, draws.scope


def _measured(
    way: tuple[str, str | None],
    model: str | None,
    beta: float,
    metric: str,
    parts: Sequence[Part],
    row: Mapping[str, Any],
) -> Iterator[Measured]:
    """Yield what two judges' persistence is compared in."""
    place = way, "persistence", model, beta, metric
    for name in POINTS:
        yield Measured(*place, name, _mean(parts, name))
    if row["gain_verdict"] == GAIN:
        yield Measured(*place, "share", _mean(parts, "kept"), _mean(parts, "gain"))


def _averages(ratios: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the average of what is valid in every draw, and what is."""
    valid = np.logical_not(np.isnan(ratios))
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = np.where(valid.any(axis=0), np.where(valid, ratios, 0).sum(axis=0) / valid.sum(axis=0), np.nan)
    return averages, valid
