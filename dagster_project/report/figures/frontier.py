"""The frontier: deltas of trained agents to their source models, and the line through them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.experiment.agents import Recipe
from dagster_project.report.figures.frame import MOST_COLUMNS, ZERO, Group, frame, judging_titles, letters_in, ticks
from dagster_project.report.figures.points import (
    Array,
    beta_group,
    draw_regions,
    extents,
    identified,
    model_group,
    recipe_group,
    square,
    uncertainty,
)
from dagster_project.report.style import (
    COLUMN_WIDTH,
    GREY,
    TEXT_WIDTH,
    ModelStyle,
    freeze,
    look,
    marker_style,
    model_styles,
    recipe_markers,
)
from dagster_project.report.values import (
    MAIN_SET,
    beta_name,
    between,
    judgings_of,
    levels,
    missing,
    number,
    point_id,
    recipe_order,
    scored,
    scorings,
)
from dagster_project.report.wording import scoring_title

NO_BANDS = pd.DataFrame({"point_set": [], "judging": [], "judge": [], "x": [], "low": [], "high": []})


class Panel(NamedTuple):
    """What a panel shows: a way of judging, and one judge or (None) the average over judges."""

    judging: str
    judge: str | None
    name: str


def frontier_figure(
    points: pd.DataFrame, fits: pd.DataFrame, title: str, *, toy: bool, bands: pd.DataFrame | None = None
) -> Figure:
    """Draw every judge as a panel: deltas with their uncertainty, and the line through them.

    A judge has a panel for the agents trained on its own verdicts, and one for those trained on another judge's.
    A judge's points have the id ``point:<judging>:<model>:<recipe>:<beta>:<judge>``. Both axes have one scale, so that
    a trade of one for one is a slope of 45 degrees.

    Args:
        points: `frontier_points`; where there are rows of single judges, those are drawn. Where the spread and
            correlation of the draws are known, a point's uncertainty is an ellipse, otherwise a cross of its intervals.
        fits: `frontier_fits`.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
        bands: `frontier_bands`, the confidence bands of the lines.
    """
    ways = scorings(points)
    columns = 2 if len(ways) == 4 else min(3, len(ways))
    letters = letters_in((TEXT_WIDTH if columns > 1 else COLUMN_WIDTH) / columns - 0.4, 8)
    panels = [Panel(judging, judge, textwrap.fill(scoring_title(judging, judge), letters)) for judging, judge in ways]
    return _figure(points, fits, bands, panels, title, toy=toy, columns=columns)


def averaged_frontier_figure(
    points: pd.DataFrame, fits: pd.DataFrame, title: str, *, toy: bool, bands: pd.DataFrame | None = None
) -> Figure:
    """Draw the paper's figure: the frontier averaged over judges, a panel for every way of judging.

    The arguments are those of `frontier_figure`; a point's id is ``point:<judging>:<model>:<recipe>:<beta>``.
    """
    shown = points[points["judge"].isna()]
    judgings = judgings_of(shown)
    titles, subtitle = judging_titles(judgings)
    panels: list[Panel] = [Panel(judging, None, name) for judging, name in zip(judgings, titles, strict=True)]
    return _figure(shown, fits, bands, panels, title, toy=toy, subtitle=f"average over judges; {subtitle}".rstrip("; "))


def _figure(
    points: pd.DataFrame,
    fits: pd.DataFrame,
    bands: pd.DataFrame | None,
    chosen: Sequence[Panel],
    title: str,
    *,
    toy: bool,
    subtitle: str = "",
    columns: int = MOST_COLUMNS,
) -> Figure:
    fits = fits[fits["point_set"] == MAIN_SET]
    bands = NO_BANDS if bands is None else bands[bands["point_set"] == MAIN_SET]
    styles, betas = model_styles(points["model"]), levels(points["beta"])
    markers = recipe_markers(recipe_order(points["recipe"]))
    lines = {place: scored(fits, judging, judge) for place, (judging, judge, _) in enumerate(chosen)}
    groups = [
        model_group(styles),
        recipe_group(list(points["recipe"])),
        beta_group(betas),
        Group("", [*uncertainty(points), *_line_legend(fits, bands)]),
    ]
    with look():
        drawn = frame(
            [f"{panel.name}\n{_statistics(lines[place])}".strip() for place, panel in enumerate(chosen)],
            title=title,
            toy=toy,
            height=None,
            groups=groups,
            subtitle=subtitle,
            columns=columns,
        )
        for place, (axes, (judging, judge, _)) in enumerate(zip(drawn.panels, chosen, strict=True)):
            axes.set_xlabel("Δ helpfulness")
            _line(axes, lines[place], scored(bands, judging, judge), scored(points, judging, judge))
            _points(axes, scored(points, judging, judge), styles, betas, markers)
        x, y = extents(points)
        reached = _of_all(bands, chosen)
        # A band of few points may be wider than all of them; no point is cut, so it may be.
        xlim, ylim = square(np.append(x, 0.0), np.concatenate([y, [0.0], reached]))
        drawn.panels[0].set(xlim=xlim, ylim=ylim)
        for axes in drawn.panels[:: min(columns, len(chosen))]:
            axes.set_ylabel("Δ safety (post-trained − source)")
        ticks(*drawn.panels)
        freeze(drawn.figure, square=drawn.panels)
    return drawn.figure


def _of_all(bands: pd.DataFrame, chosen: Sequence[Panel]) -> Array:
    """Returns what the bands of all panels reach in y."""
    found = [
        scored(bands, judging, judge)[["low", "high"]].to_numpy(dtype=float).ravel() for judging, judge, _ in chosen
    ]
    values = np.concatenate(found) if found else np.empty(0)
    return values[np.isfinite(values)]


def _statistics(fits: pd.DataFrame) -> str:
    """Returns what is written of a line, above its panel, where no point can be."""
    if fits.empty or missing(fits.iloc[0]["slope"]):
        return ""
    fit = fits.iloc[0]
    lines = [f"R² = {number(fit['r2'])}{between(fit['r2_low'], fit['r2_high'])}, n = {fit['n']:.0f}"]
    lines.append(f"slope {number(fit['slope'])}{between(fit['slope_low'], fit['slope_high'])}")
    if "intercept_low" in fits:
        lines.append(f"intercept {number(fit['intercept'])}{between(fit['intercept_low'], fit['intercept_high'])}")
    return "\n".join(lines)


def _line(axes: Axes, fits: pd.DataFrame, band: pd.DataFrame, points: pd.DataFrame) -> None:
    axes.axhline(0, **ZERO)
    axes.axvline(0, **ZERO)
    if len(band):
        edges = band.sort_values("x")[["x", "low", "high"]].to_numpy(dtype=float).T
        axes.fill_between(*edges, color=GREY, alpha=0.18, linewidth=0, zorder=0.5)
    if len(fits) and len(points):
        fit = fits.iloc[0]
        ends = np.array([points["helpfulness_delta"].min(), points["helpfulness_delta"].max()])
        axes.plot(ends, fit["intercept"] + fit["slope"] * ends, color=GREY, linewidth=1.1, zorder=2)


def _points(
    axes: Axes,
    points: pd.DataFrame,
    styles: Mapping[str, ModelStyle],
    betas: Mapping[str, int],
    markers: Mapping[str, str],
) -> None:
    _ways(axes, points, styles)
    draw_regions(axes, points, [styles[model].colour for model in points["model"]])
    for row in points.to_dict("records"):
        x, y, beta = row["helpfulness_delta"], row["safety_delta"], row["beta"]
        name = point_id(row["judging"], row["model"], row["recipe"], beta, row["judge"])
        style = marker_style(styles[row["model"]], betas[beta_name(beta)], len(betas))
        identified(axes, x, y, name, markers[row["recipe"]], **style)


def _ways(axes: Axes, points: pd.DataFrame, styles: Mapping[str, ModelStyle]) -> None:
    """Draws the way from one trained agent over its mixtures to the other, a line each."""
    ways: dict[tuple[str, str, Recipe, Recipe], dict[float, tuple[float, float]]] = {}
    places = {
        (row["model"], row["recipe"], beta_name(row["beta"])): (row["helpfulness_delta"], row["safety_delta"])
        for row in points.to_dict("records")
    }
    for (model, recipe, beta), place in places.items():
        shares = Recipe(recipe).mixture
        if shares:
            one, other = (share.recipe for share in shares)
            way = ways.setdefault((model, beta, one, other), {})
            way[shares[0].weight] = place
            way |= {
                weight: places[model, end, beta]
                for weight, end in ((1.0, one), (0.0, other))
                if (model, end, beta) in places
            }
    for (model, *_), way in ways.items():
        x, y = zip(*(way[weight] for weight in sorted(way)), strict=True)
        axes.plot(x, y, color=styles[model].colour, linewidth=0.8, linestyle=(0, (1, 1.2)), zorder=2)


def _line_legend(fits: pd.DataFrame, bands: pd.DataFrame) -> list[Line2D]:
    handles = []
    if len(fits):
        handles.append(
            Line2D([], [], color=GREY, linewidth=1.1, label="least squares" + ", 95% band" * bool(len(bands)))
        )
    return handles
