"""The frontier: where trained agents land relative to their source models, and the line through them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.results.contrasts import contrasts
from dagster_project.results.disagreements import COLUMNS as DISAGREEMENTS
from dagster_project.results.disagreements import Measured, disagreements
from dagster_project.results.fits import FIT_COLUMNS, Cloud, band, fit_line, fit_row, origin_row
from dagster_project.results.intervals import Array
from dagster_project.results.pareto import hypervolumes, undominated
from dagster_project.results.points import Points, make_points
from dagster_project.results.scores import BEST, Scores

NAMES = ("helpfulness", "safety")
MAIN = "model_recipe"
"""The point set of the paper: a point for every model, recipe and beta."""
WITHIN, ORIGIN = "within_models", "through_origin"
"""The points of `MAIN`, each minus its model's mean; and those with a line through no change in either."""
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
    disagreements: pd.DataFrame

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
            "frontier_disagreements": self.disagreements,
        }


def frontier(scores: Scores, agents: pd.DataFrame, statistics: Statistics, *, main_fit_only: bool = False) -> Frontier:
    """Returns every frontier point and fit, with bootstrap intervals; with `main_fit_only` the fit of `MAIN` alone.

    A point is a model, recipe and beta, averaged over seeds and over the (pairs' judge, judge) combinations of its
    way of judging; a recipe's point is averaged over models, too.
    """
    points = make_points(scores, agents, statistics)
    confidence = statistics.confidence
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    measured: list[Measured] = []
    for way in points.ways:
        names = dict(zip(("judging", "judge"), way, strict=True))
        found = list(points.groups(way, ("model", "recipe", "beta", "label")))
        own = [points.own[positions].mean(axis=0) for _, positions in found]
        delta = [points.delta[positions].mean(axis=0) for _, positions in found]
        models = sorted({str(values[0]) for values, _ in found})
        source = {model: points.source_mean(way, model) for model in models}
        front = undominated([values[:, 0] for values in (*own, *source.values())])
        of_way = []
        for place, (values, positions) in enumerate(found):
            key = dict(zip(("model", "recipe", "beta", "label"), values, strict=True))
            row = _row(points, positions, own[place], delta[place], confidence)
            if points.keys[positions[0]].here and not np.isnan(delta[place][:, 0]).any():
                of_way.append((values[0], row))
            rows["points"].append({**key, **names, **row, "pareto": bool(front[place])})
        for values, positions in points.groups(way, ("recipe", "beta", "label")):
            key = dict(zip(("recipe", "beta", "label"), values, strict=True))
            means = points.own[positions].mean(axis=0), points.delta[positions].mean(axis=0)
            rows["recipes"].append({**key, **names, **_row(points, positions, *means, confidence)})
        if source:
            base = np.mean(list(source.values()), axis=0)
            key = {"recipe": None, "beta": float("nan"), "label": "source"}
            rows["recipes"].append({**key, **names, **_values(points, base, base * 0, confidence)})
        for model, values_of in source.items():
            rows["sources"].append({"model": model, **names, **_bounds(points, values_of, "", confidence)})
        for name, cloud in _clouds(points, way, found, own, delta, source):
            if main_fit_only and name != MAIN:
                break  # it comes first, and the others are not even computed
            if name == ORIGIN:
                fitted = origin_row(cloud, points.draws, confidence)
            else:
                lost = 1 + len(models) if name == WITHIN else 2
                fitted = fit_row(cloud, points.draws, confidence, lost)
            if name == WITHIN:  # 0 by construction
                fitted |= {key: float("nan") for key in fitted if str(key).startswith("intercept")}
            behind = [row for model, row in of_way if name in (MAIN, f"only_{model}") or not name.startswith("only_")]
            least = {count: min((row[count] for row in behind), default=0) for count in ("cells", "cases")}
            rows["fits"].append({"point_set": name, **names, **fitted, **least})
            if way[1] is not None and name in (MAIN, *(f"only_{model}" for model in models)):
                of_model = None if name == MAIN else name.removeprefix("only_")
                line = fit_line(cloud)
                for quantity in ("slope", "intercept"):
                    drawn = getattr(line, quantity)
                    measured.append(Measured(way, "frontier_fits", of_model, float("nan"), MAIN, quantity, drawn))
            if name in (MAIN, "raw_scores"):
                rows["bands"] += [
                    {"point_set": name, **names, **dict(zip(("x", "y", "low", "high"), step, strict=True))}
                    for step in band(cloud, points.draws, confidence)
                ]
        for owner, volume in hypervolumes([str(values[0]) for values, _ in found], own, source):
            low, high = points.draws.interval(volume, confidence)
            area = {"hypervolume": float(volume[0]), "hypervolume_low": low, "hypervolume_high": high}
            rows["pareto"].append({"model": owner, **names, **area})
    tables = {name: pd.DataFrame(rows[name], columns=COLUMNS[name]) for name in COLUMNS}
    compared, between_judges = contrasts(points, confidence, compare_judges=not main_fit_only)
    of_lines = disagreements(measured, points.draws, confidence)
    parts = [part for part in (of_lines, between_judges) if len(part)]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=DISAGREEMENTS)
    return Frontier(**tables, contrasts=compared, disagreements=joined)


_KEYS = {"points": ["model", "recipe", "beta", "judging", "judge", "label"]}
_KEYS["recipes"] = _KEYS["points"][1:]
_VALUES = [f"{axis}{kind}{bound}" for kind in ("", "_delta") for axis in NAMES for bound in ("", "_low", "_high")]
_VALUES += [f"{BEST}{bound}" for bound in ("", "_low", "_high")]
_VALUES += [f"{axis}_delta_{kind}" for kind in ("se", "df", "p") for axis in NAMES]
_VALUES += ["delta_corr", "generalises_to", "runs", *(f"{axis}_sd" for axis in NAMES), "cells", "cases"]
_FIT_KEYS = ["point_set", "judging", "judge"]
COLUMNS = {
    "points": [*_KEYS["points"], *_VALUES, "pareto"],
    "recipes": [*_KEYS["recipes"], *_VALUES],
    "sources": ["model", "judging", "judge", *(f"{axis}{bound}" for axis in NAMES for bound in ("", "_low", "_high"))],
    "fits": [*_FIT_KEYS, *FIT_COLUMNS],
    "bands": [*_FIT_KEYS, "x", "y", "low", "high"],
    "pareto": ["model", "judging", "judge", "hypervolume", "hypervolume_low", "hypervolume_high"],
}


SCALE = (0.0, 3.0)
"""Of scores: an interval of a mean score ends there."""


def _bounds(points: Points, values: Array, kind: str, confidence: float) -> dict[str, float]:
    row: dict[str, float] = {}
    for axis, drawn in zip(NAMES, values, strict=True):
        low, high = np.clip(points.draws.interval(drawn, confidence), *SCALE)
        row |= {f"{axis}{kind}": float(drawn[0]), f"{axis}{kind}_low": float(low), f"{axis}{kind}_high": float(high)}
    return row


def _values(points: Points, own: Array, delta: Array, confidence: float) -> dict[str, Any]:
    row: dict[str, Any] = {**_bounds(points, own, "", confidence), "generalises_to": points.draws.scope}
    for axis, drawn in zip(NAMES, delta, strict=True):
        found = points.draws.summary(drawn, confidence)
        name = f"{axis}_delta"
        row |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
        row |= {f"{name}_se": found.stderr, f"{name}_df": found.df, f"{name}_p": found.p}
    drawn = delta[:, 1:][:, ~np.isnan(delta[:, 1:]).any(axis=0)]
    varies = drawn.shape[1] > 1 and (drawn.std(axis=1) > 0).all()
    return row | {"delta_corr": float(np.corrcoef(drawn[0], drawn[1])[0, 1]) if varies else float("nan")}


def _row(points: Points, positions: Sequence[int], own: Array, delta: Array, confidence: float) -> dict[str, Any]:
    """Return a point's columns; `_sd` is over runs (an agent of one seed by one judge)."""
    cells = points.cells[positions]  # (keys, 2, seeds, cases)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = ~np.isnan(cells)
        runs = np.where(known, cells, 0).sum(axis=3) / known.sum(axis=3)
    there = ~np.isnan(points.delta_cells[positions]).any(axis=1)
    row: dict[str, Any] = {"runs": int((~np.isnan(runs).any(axis=1)).sum())}
    row |= {"cells": int(there.sum()), "cases": int(there.any(axis=0).any(axis=0).sum())}
    for axis, name in enumerate(NAMES):
        values = runs[:, axis][~np.isnan(runs[:, axis])]
        row[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    best = points.draws.means(points.best_cells[positions]).mean(axis=0)
    low, high = np.clip(points.draws.interval(best, confidence), 0, 1)
    row |= {BEST: float(best[0]), f"{BEST}_low": float(low), f"{BEST}_high": float(high)}
    return {**row, **_values(points, own, delta, confidence)}


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

    shown: set[tuple[int, ...]] = set()

    def subset(name: str, keep: Any) -> Iterator[tuple[str, Cloud]]:
        chosen = tuple(place for place in usable if keep(found[place][0]))
        if len(chosen) >= 3 and chosen not in shown:  # a set of points has one line, under the first of its names
            shown.add(chosen)
            yield name, cloud(chosen)

    yield from subset(MAIN, lambda values: True)
    for model in models:
        yield from subset(f"only_{model}", lambda values, model=model: values[0] == model)
        yield from subset(f"without_{model}", lambda values, model=model: values[0] != model)
    yield from subset("without_help", lambda values: values[1] != "help")
    yield from subset("without_both", lambda values: values[1] != "both")
    if len(models) > 1:
        yield WITHIN, _within(cloud(usable), [found[place][0][0] for place in usable])
    yield ORIGIN, cloud(usable)
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
    sets = {"per_run": means} if n_seeds > 1 or len(averaged) < n_runs else {}  # else they are the points themselves
    if n_seeds > 1 and len(averaged) < n_runs:  # else they are the runs
        sets["per_seed"] = averaged
    for name, values in sets.items():
        found = cloud(values)
        if found is not None:
            yield name, found


def _within(cloud: Cloud, models: Sequence[str]) -> Cloud:
    """Return the points, each minus the mean of its model's."""
    names = np.array(models)
    x, y = cloud.x.copy(), cloud.y.copy()
    for model in dict.fromkeys(models):
        for values in (x, y):
            values[names == model] -= values[names == model].mean(axis=0)
    return Cloud(x, y)
