"""Recipes averaged over source models: their deltas, and the way from parent to child."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from dagster_project.experiment.agents import Recipe, TrainedMetric
from dagster_project.report.figures.frame import ZERO, Frame, Group, frame, ticks
from dagster_project.report.figures.labels import place_labels
from dagster_project.report.figures.points import (
    OVER_MODELS,
    Array,
    beta_group,
    draw_crosses,
    draw_regions,
    extents,
    identified,
    recipe_group,
    square,
)
from dagster_project.report.style import (
    GREY,
    INK,
    SOURCE_MARKER,
    freeze,
    look,
    marker_style,
    recipe_markers,
)
from dagster_project.report.values import AVERAGE, Row, beta_name, judgings_of, levels, missing, point_id, recipe_order
from dagster_project.report.wording import JUDGING_TITLES

LAST = {"safe": "safety", "help": "helpfulness", "both": "both at once", "either": "pairs for either"}
LINES: dict[str, Any] = {"safe": (0, (4, 2)), "help": "solid", "both": (0, (1, 1.5)), "either": (0, (4, 1.5, 1, 1.5))}
BENDS = (0.2, -0.2, 0.1, -0.1, 0.35, -0.35, 0.5, -0.5, 0.75, -0.75)
CLEAR = 7.0
"""Points (1/72 inch) that an arrow should stay away from every marker it does not join."""


def delta_all_figure(recipes: pd.DataFrame, title: str, *, toy: bool, judging: str | None = None) -> Figure:
    """Draws the deltas of all recipes, averaged over source models and judges, each with its label.

    Args:
        recipes: `recipe_points`.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
        judging: The way of judging; by default the first there is, `match` before the others.
    """
    points = _chosen(recipes, judging)
    points = points[points["recipe"].notna()]
    markers = recipe_markers(recipe_order(recipes["recipe"]))
    with look():
        drawn = _frame(points, [], title, toy=toy)
        axes = drawn.panels[0]
        axes.axhline(0, **ZERO)
        axes.axvline(0, **ZERO)
        draw_regions(axes, points, [INK] * len(points))
        x, y = extents(points)
        xlim, ylim = square(np.append(x, 0.0), np.append(y, 0.0))
        axes.set(xlabel="Δ helpfulness (post-trained − source)", ylabel="Δ safety", xlim=xlim, ylim=ylim)
        _markers(axes, points, "_delta", markers)
        freeze(drawn.figure, square=drawn.panels)
        _label(axes, points, "_delta", np.empty((0, 2)))
    return drawn.figure


def intermediates_figure(
    recipes: pd.DataFrame, metric: Literal["safe", "help"], title: str, *, toy: bool, judging: str | None = None
) -> Figure:
    """Draws the recipes that end with training on `metric` and what they were trained from, with arrows.

    Args:
        recipes: `recipe_points`, averaged over source models; the source models' own row is where arrows start.
        metric: The metric trained last.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
        judging: The way of judging; by default the first there is, `match` before the others.
    """
    points = _chosen(recipes, judging)
    last = [recipe for recipe in _trained(points) if recipe.metrics[-1] == metric]
    family = {recipe.stages(n) for recipe in last for n in range(1, len(recipe.metrics) + 1)}
    points = points[points["recipe"].isna() | points["recipe"].isin(family)].reset_index(drop=True)
    arrows, markers = _arrows(points), recipe_markers(recipe_order(recipes["recipe"]))
    with look():
        trained = {trained for _, _, trained in arrows}
        lines = [
            Line2D([], [], color=GREY, linewidth=0.9, linestyle=style, label=LAST[name])
            for name, style in LINES.items()
            if name in trained
        ]
        drawn = _frame(points, [Group("arrows: trained on", lines)], title, toy=toy)
        axes = drawn.panels[0]
        draw_crosses(axes, points, [INK] * len(points), "")
        x, y = extents(points, "")
        xlim, ylim = square(x, y)
        axes.set(xlabel="helpfulness", ylabel="safety", xlim=xlim, ylim=ylim)
        _markers(axes, points, "", markers)
        freeze(drawn.figure, square=drawn.panels)
        _label(axes, points, "", _draw_arrows(axes, points, arrows))
    return drawn.figure


def _chosen(recipes: pd.DataFrame, judging: str | None) -> pd.DataFrame:
    points = recipes[recipes["judge"].isna() & recipes["safety"].notna() & recipes["helpfulness"].notna()]
    return points[points["judging"] == (judging or judgings_of(points)[0])]


def _trained(points: pd.DataFrame) -> list[Recipe]:
    """Returns the recipes of trained agents, mixtures not among them."""
    recipes = [Recipe(recipe) for recipe in points["recipe"].dropna()]
    return [recipe for recipe in recipes if not recipe.mixture]


def _recipe(row: Row) -> str | None:
    return None if missing(row["recipe"]) else str(row["recipe"])


def _frame(points: pd.DataFrame, groups: list[Group], title: str, *, toy: bool) -> Frame:
    judging = str(points["judging"].iloc[0])
    trained = points[points["recipe"].notna()]
    subtitle = f"average over source models and judges, {JUDGING_TITLES[judging]}; numbers: β of DPO"
    legends = [*groups, recipe_group(list(trained["recipe"])), beta_group(levels(trained["beta"]))]
    drawn = frame([""], title=title, toy=toy, height=None, groups=legends, subtitle=subtitle)
    ticks(*drawn.panels)
    return drawn


def _markers(axes: Axes, points: pd.DataFrame, kind: str, markers: Mapping[str, str]) -> None:
    betas = levels(points.loc[points["recipe"].notna(), "beta"])
    for row in points.to_dict("records"):
        recipe, x, y = _recipe(row), row[f"helpfulness{kind}"], row[f"safety{kind}"]
        if recipe is None:
            name = f"source:{row['judging']}:{AVERAGE}"
            identified(axes, x, y, name, SOURCE_MARKER, **marker_style(OVER_MODELS, size=10))
        else:
            name = point_id(row["judging"], AVERAGE, recipe, row["beta"])
            look_of_it = marker_style(OVER_MODELS, betas[beta_name(row["beta"])], len(betas), 6)
            identified(axes, x, y, name, markers[recipe], **look_of_it)


def _label(axes: Axes, points: pd.DataFrame, kind: str, avoid: Array) -> None:
    labels = []
    for row in points.to_dict("records"):
        recipe = _recipe(row)
        labels.append("source" if recipe is None else f"{Recipe(recipe).label} {beta_name(row['beta'])}")
    x, y = list(points[f"helpfulness{kind}"]), list(points[f"safety{kind}"])
    place_labels(axes, labels, x, y, avoid, colours=[INK] * len(labels))


def _arrows(points: pd.DataFrame) -> list[tuple[int, int, TrainedMetric]]:
    """Returns rows of parent and child, and what the child was trained on; a stage keeps its parent's beta."""
    rows = points.to_dict("records")
    recipes = [None if missing(row["recipe"]) else Recipe(str(row["recipe"])) for row in rows]
    places = {
        (recipe, beta_name(row["beta"])): place for place, (recipe, row) in enumerate(zip(recipes, rows, strict=True))
    }
    source = next((place for place, recipe in enumerate(recipes) if recipe is None), None)
    found = []
    for child, (recipe, row) in enumerate(zip(recipes, rows, strict=True)):
        if recipe is None:
            continue
        earlier = len(recipe.metrics) - 1
        parent = places.get((recipe.stages(earlier), beta_name(row["beta"]))) if earlier else source
        # Of an agent whose stages' betas differ, the parent's beta is not known here.
        if parent is not None and not (earlier and missing(row["beta"])):
            found.append((parent, child, recipe.metrics[-1]))
    return found


def _draw_arrows(axes: Axes, points: pd.DataFrame, arrows: list[tuple[int, int, TrainedMetric]]) -> Array:
    """Draws each arrow with the bend that keeps it clearest of other points; returns places on them, in data units."""
    data = points[["helpfulness", "safety"]].to_numpy(dtype=float)
    places = axes.transData.transform(data)
    figure = axes.get_figure(root=True)
    assert figure is not None
    clear = CLEAR / 72 * figure.dpi
    taken = np.empty((0, 2))
    for parent, child, metric in arrows:
        others = np.delete(places, [parent, child], axis=0)
        curves = {bend: _curve(places[parent], places[child], bend) for bend in BENDS}
        bend = min(BENDS, key=lambda bend: _cost(curves[bend], others, taken, clear) + clear * bend**2)
        taken = np.concatenate([taken, curves[bend]])
        axes.add_patch(
            FancyArrowPatch(
                (float(data[parent, 0]), float(data[parent, 1])),
                (float(data[child, 0]), float(data[child, 1])),
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle="-|>",
                mutation_scale=7,
                shrinkA=4,
                shrinkB=4,
                linewidth=0.9,
                linestyle=LINES[metric],
                color=GREY,
                zorder=2,
            )
        )
    return np.asarray(axes.transData.inverted().transform(taken), dtype=np.float64).reshape(-1, 2)


def _curve(start: Array, end: Array, bend: float) -> Array:
    """Returns places on matplotlib's `arc3` connection, a quadratic Bézier curve, shape (48, 2)."""
    dx, dy = end - start
    control = (start + end) / 2 + bend * np.array([dy, -dx])
    t = np.linspace(0.05, 0.95, 48)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end)


def _cost(curve: Array, points: Array, taken: Array, clear: float) -> float:
    """Returns how much of a curve lies close to points and, far less important, to curves drawn before."""
    cost = 0.0
    for weight, obstacles, reach in ((2.0, points, clear), (0.05, taken, clear / 2)):
        if len(obstacles):
            nearest = np.linalg.norm(curve[:, None] - obstacles[None], axis=2).min(axis=1)
            cost += weight * float(np.clip(reach - nearest, 0, None).sum())
    return round(cost, 3)
