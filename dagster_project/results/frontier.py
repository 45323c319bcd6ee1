"""The frontier: where trained agents land relative to their source models, and the line through them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.spec import Statistics
from dagster_project.results.contrasts import contrasts
from dagster_project.results.fits import FIT_COLUMNS, Cloud, band, fit_row, origin_row
from dagster_project.results.pareto import hypervolumes, undominated
from dagster_project.results.points import Points, make_points
from dagster_project.results.scores import Array, Scores, clustered_stderr, interval

NAMES = ("helpfulness", "safety")
MAIN = "model_recipe"
"""The point set of the paper: a point for every model, recipe and beta."""
INTERPOLATED = "interpolated"
"""Mixtures of two trained agents, and these."""
Way = tuple[str, str | None]


class Frontier(NamedTuple):
    """The points, averages of them, and the fits, as tables."""

    points: pd.DataFrame
    recipes: pd.DataFrame
    sources: pd.DataFrame
    fits: pd.DataFrame
    bands: pd.DataFrame
    pareto: pd.DataFrame
    contrasts: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """Returns them by the names they have in the database."""
        return {
            "frontier_points": self.points,
            "recipe_points": self.recipes,
            "source_points": self.sources,
            "frontier_fits": self.fits,
            "frontier_bands": self.bands,
            "pareto": self.pareto,
            "contrasts": self.contrasts,
        }


def frontier(scores: Scores, agents: pd.DataFrame, statistics: Statistics, *, main_fit_only: bool = False) -> Frontier:
    """Returns every frontier point and fit, with bootstrap intervals; with `main_fit_only` the fit of `MAIN` alone.

    A point is a model, recipe and beta, averaged over seeds and over the (pairs' judge, judge) combinations of its
    way of judging; a recipe's point is averaged over models, too.
    """
    points = make_points(scores, agents, statistics)
    confidence = statistics.confidence
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for way in points.ways:
        names = dict(zip(("judging", "judge"), way, strict=True))
        found = list(points.groups(way, ("model", "recipe", "beta", "label")))
        own = [points.own[positions].mean(axis=0) for _, positions in found]
        delta = [points.delta[positions].mean(axis=0) for _, positions in found]
        models = sorted({str(values[0]) for values, _ in found})
        source = {model: points.source_mean(way, model) for model in models}
        front = undominated([values[:, 0] for values in (*own, *source.values())])
        for place, (values, positions) in enumerate(found):
            key = dict(zip(("model", "recipe", "beta", "label"), values, strict=True))
            row = _row(points, positions, own[place], delta[place], confidence)
            rows["points"].append({**key, **names, **row, "pareto": bool(front[place])})
        for values, positions in points.groups(way, ("recipe", "beta", "label")):
            key = dict(zip(("recipe", "beta", "label"), values, strict=True))
            means = points.own[positions].mean(axis=0), points.delta[positions].mean(axis=0)
            rows["recipes"].append({**key, **names, **_row(points, positions, *means, confidence)})
        if source:
            base = np.mean(list(source.values()), axis=0)
            key = {"recipe": None, "beta": float("nan"), "label": "source"}
            rows["recipes"].append({**key, **names, **_values(base, base * 0, confidence)})
        for model, values_of in source.items():
            rows["sources"].append({"model": model, **names, **_bounds(values_of, "", confidence)})
        for name, cloud in _clouds(points, way, found, own, delta, source):
            if main_fit_only and name != MAIN:
                break  # it comes first, and the others are not even computed
            fit = origin_row if name == "through_origin" else fit_row
            rows["fits"].append({"point_set": name, **names, **fit(cloud, confidence)})
            if name in (MAIN, "raw_scores"):
                rows["bands"] += [
                    {"point_set": name, **names, **dict(zip(("x", "y", "low", "high"), step, strict=True))}
                    for step in band(cloud, confidence)
                ]
        for owner, volume in hypervolumes([str(values[0]) for values, _ in found], own, source):
            low, high = interval(volume[1:], confidence)
            area = {"hypervolume": float(volume[0]), "hypervolume_low": low, "hypervolume_high": high}
            rows["pareto"].append({"model": owner, **names, **area})
    tables = {name: pd.DataFrame(rows[name], columns=COLUMNS[name]) for name in COLUMNS}
    return Frontier(**tables, contrasts=contrasts(points, confidence))


_KEYS = {"points": ["model", "recipe", "beta", "judging", "judge", "label"]}
_KEYS["recipes"] = _KEYS["points"][1:]
_VALUES = [f"{axis}{kind}{bound}" for kind in ("", "_delta") for axis in NAMES for bound in ("", "_low", "_high")]
_VALUES += ["runs", *(f"{axis}{kind}" for kind in ("_sd", "_delta_se") for axis in NAMES)]
_VALUES += [*(f"delta_sd_{axis}" for axis in NAMES), "delta_corr"]
_FIT_KEYS = ["point_set", "judging", "judge"]
COLUMNS = {
    "points": [*_KEYS["points"], *_VALUES, "pareto"],
    "recipes": [*_KEYS["recipes"], *_VALUES],
    "sources": ["model", "judging", "judge", *(f"{axis}{bound}" for axis in NAMES for bound in ("", "_low", "_high"))],
    "fits": [*_FIT_KEYS, *FIT_COLUMNS],
    "bands": [*_FIT_KEYS, "x", "y", "low", "high"],
    "pareto": ["model", "judging", "judge", "hypervolume", "hypervolume_low", "hypervolume_high"],
}


def _bounds(values: Array, kind: str, confidence: float) -> dict[str, float]:
    row: dict[str, float] = {}
    for axis, drawn in zip(NAMES, values, strict=True):
        low, high = interval(drawn[1:], confidence)
        row |= {f"{axis}{kind}": float(drawn[0]), f"{axis}{kind}_low": low, f"{axis}{kind}_high": high}
    return row


def _values(own: Array, delta: Array, confidence: float) -> dict[str, float]:
    row = {**_bounds(own, "", confidence), **_bounds(delta, "_delta", confidence)}
    drawn = delta[:, 1:][:, ~np.isnan(delta[:, 1:]).any(axis=0)]
    if drawn.shape[1] > 1:
        deviations = drawn.std(axis=1, ddof=1)
        row |= {f"delta_sd_{axis}": float(value) for axis, value in zip(NAMES, deviations, strict=True)}
        row["delta_corr"] = float(np.corrcoef(drawn[0], drawn[1])[0, 1]) if (deviations > 0).all() else float("nan")
    return row


def _row(points: Points, positions: Sequence[int], own: Array, delta: Array, confidence: float) -> dict[str, float]:
    """Returns a point's columns. `_sd` is over runs (an agent of one seed by one judge), `_se` clustered by case."""
    cells = points.cells[positions]  # (keys, 2, seeds, cases)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = ~np.isnan(cells)
        runs = np.where(known, cells, 0).sum(axis=3) / known.sum(axis=3)
    counted = int((~np.isnan(runs).any(axis=1)).sum())
    row: dict[str, float] = {"runs": counted}
    for axis, name in enumerate(NAMES):
        values = runs[:, axis][~np.isnan(runs[:, axis])]
        row[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        row[f"{name}_delta_se"] = clustered_stderr(points.delta_cells[positions, axis].reshape(-1, cells.shape[3]))
    return {**row, **_values(own, delta, confidence)}


def _clouds(
    points: Points,
    way: Way,
    found: Sequence[tuple[tuple[Any, ...], list[int]]],
    own: Sequence[Array],
    delta: Sequence[Array],
    source: dict[str, Array],
) -> Iterator[tuple[str, Cloud]]:
    """Yields every set of points that a line is fitted to, those of three points or more.

    Mixtures have a line of their own, which goes through what they are mixed from, too: they were not trained. Agents
    that were trained elsewhere are on none: they are seen beside the experiment's line, and do not move it.
    """
    known = [place for place, values in enumerate(delta) if not np.isnan(values[:, 0]).any()]
    usable = [place for place in known if points.keys[found[place][1][0]].here]
    if len(usable) < 3:
        return
    models = sorted({found[place][0][0] for place in usable})

    def cloud(chosen: Sequence[int]) -> Cloud:
        return Cloud(*(np.array([delta[place][axis] for place in chosen]) for axis in (0, 1)))

    def subset(name: str, keep: Any) -> Iterator[tuple[str, Cloud]]:
        chosen = [place for place in usable if keep(found[place][0])]
        if len(chosen) >= 3 and (name == MAIN or len(chosen) < len(usable)):
            yield name, cloud(chosen)

    yield from subset(MAIN, lambda values: True)
    for model in models:
        yield from subset(f"only_{model}", lambda values, model=model: values[0] == model)
        yield from subset(f"without_{model}", lambda values, model=model: values[0] != model)
    yield from subset("without_help", lambda values: values[1] != "help")
    yield from subset("without_both", lambda values: values[1] != "both")
    yield "through_origin", cloud(usable)
    everything = [*(own[place] for place in usable), *source.values()]
    yield "raw_scores", Cloud(*(np.array([values[axis] for values in everything]) for axis in (0, 1)))
    yield from _clouds_by_seed(points, [found[place][1] for place in usable])
    mixed = [place for place in known if Recipe(found[place][0][1]).mixture]
    ends = {(found[place][0][0], end.recipe) for place in mixed for end in Recipe(found[place][0][1]).mixture}
    through = [place for place in known if place in mixed or found[place][0][:2] in ends]
    if mixed and len(through) >= 3:
        yield INTERPOLATED, cloud(through)


def _clouds_by_seed(points: Points, groups: Sequence[list[int]]) -> Iterator[tuple[str, Cloud]]:
    """Yields a point for every run, and for every seed of every point; a draw weighs them like it weighs seeds."""
    positions = [position for group in groups for position in group]
    cells = points.delta_cells[positions]
    n_runs, _, n_seeds, n_cases = cells.shape
    by_seed = points.draws.by_seed(cells.reshape(n_runs * 2, n_seeds, n_cases)).reshape(n_runs, 2, n_seeds, -1)
    means = np.swapaxes(by_seed, 1, 2)  # (runs, seeds, 2, 1 + draws)
    seed_weights = points.draws.seeds.T

    def cloud(values: Array) -> Cloud | None:
        flat = values.reshape(-1, 2, values.shape[-1])
        weight = np.tile(seed_weights, (len(values), 1))
        there = ~np.isnan(flat[:, :, 0]).any(axis=1)
        if there.sum() < 3:
            return None
        return Cloud(flat[there, 0], flat[there, 1], weight[there])

    starts = np.cumsum([0, *(len(group) for group in groups)])
    averaged = np.array([means[start:end].mean(axis=0) for start, end in itertools.pairwise(starts)])
    for name, values in (("per_run", means), ("per_seed", averaged)):
        found = cloud(values)
        if found is not None:
            yield name, found
