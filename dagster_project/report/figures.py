"""Figures: the frontier, and persistence. Sized for a page's text width, to be used unscaled."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dagster_project.experiment.agents import RECIPE_LABELS, Recipe
from dagster_project.report.style import GREY, RC, RECIPE_MARKERS, model_colours

JUDGING_TITLES = {
    "match": "scored by the judge of the training pairs",
    "cross": "scored by another judge",
    "all": "scored by all judges",
}
TOY = "toy world: shows the method, says nothing of real agents"
ZERO: dict[str, Any] = {"color": GREY, "linewidth": 0.6, "linestyle": (0, (4, 3)), "zorder": 0}
PANEL = 2.25
LEGEND_ROW = 0.17
"""Inches, at the fonts of `RC`: three panels and their labels fill a text width of seven."""
SHAKY = 0.05
"""Intervals of persistence from which more than this share of draws is missing are drawn dotted."""

Row = Mapping[Hashable, Any]


class _Canvas(NamedTuple):
    figure: Figure
    body: SubFigure
    panels: Sequence[Axes]
    key: SubFigure


def _canvas(
    judgings: Sequence[str],
    height: float,
    title: str,
    legend_rows: int,
    *,
    panel: float = PANEL,
    labels: float,
    toy: bool,
) -> _Canvas:
    """Returns a figure with a panel for each way of judging, room for a legend of so many rows below, and a title."""
    sizes = [height + 0.95 + 0.17 * toy, LEGEND_ROW * legend_rows + 0.12]
    width = max(panel * len(judgings) + labels, 4.2)
    figure = Figure(figsize=(width, sum(sizes)), layout="constrained")
    (top,), (key,) = figure.subfigures(2, 1, squeeze=False, height_ratios=sizes)
    panels = top.subplots(1, len(judgings), squeeze=False, sharex=True, sharey=True)[0]
    top.suptitle(title + (f"\n({TOY})" if toy else ""), fontsize=9)
    for axes, judging in zip(panels, judgings, strict=True):
        axes.set_title(textwrap.fill(JUDGING_TITLES[judging], 23))
    return _Canvas(figure, top, panels, key)


def frontier_figure(points: pd.DataFrame, fits: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws every way of judging as a panel: deltas with intervals, and the line through them.

    Both axes have one scale, so that a trade of one for one is a slope of 45 degrees. Every point is an element of
    the SVG with the id ``point:<judging>:<model>:<recipe>:<beta>``.

    Args:
        points: `frontier_points`; rows averaged over judges are drawn.
        fits: `frontier_fits`.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    points = points[points["judge"].isna()]
    fits = fits[fits["judge"].isna()]
    judgings = [judging for judging in JUDGING_TITLES if (points["judging"] == judging).any()]
    with mpl.rc_context(RC):
        colours = model_colours(list(points["model"].unique()))
        betas = sorted(points["beta"].unique())
        groups = _legend(points, colours, betas)
        rows = 1 + max(-(-len(handles) // columns) for _, handles, columns in groups)
        canvas = _canvas(judgings, PANEL, title, rows, labels=0.45, toy=toy)
        for axes, judging in zip(canvas.panels, judgings, strict=True):
            shown, fit = points[points["judging"] == judging], fits[fits["judging"] == judging]
            _panel(axes, shown, fit, colours, betas)
            axes.set_box_aspect(1)
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.set_xlabel("Δ helpfulness")
        low, high = _limits(points)
        canvas.panels[0].set(ylabel="Δ safety (post-trained − source)", xlim=(low, high), ylim=(low, high))
        for place, (name, handles, columns) in enumerate(groups):
            canvas.key.legend(
                handles=handles,
                title=name,
                ncols=columns,
                loc="upper center",
                bbox_to_anchor=((place + 0.5) / len(groups), 1.0),
                alignment="left",
            )
    return canvas.figure


def _limits(points: pd.DataFrame) -> tuple[float, float]:
    """Returns limits that hold every delta and interval, and the origin."""
    names = [f"{axis}_delta{bound}" for axis in ("helpfulness", "safety") for bound in ("", "_low", "_high")]
    values = points[names].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    low, high = min(0.0, values.min()), max(0.0, values.max())
    margin = 0.05 * (high - low) or 0.1
    return float(low - margin), float(high + margin)


def _panel(
    axes: Axes, points: pd.DataFrame, fits: pd.DataFrame, colours: dict[str, str], betas: Sequence[float]
) -> None:
    axes.axhline(0, **ZERO)
    axes.axvline(0, **ZERO)
    for row in points.to_dict("records"):
        x, y, colour = row["helpfulness_delta"], row["safety_delta"], colours[row["model"]]
        bars: dict[str, Any] = {"color": colour, "linewidth": 0.6, "alpha": 0.4, "zorder": 1}
        axes.plot([row["helpfulness_delta_low"], row["helpfulness_delta_high"]], [y, y], **bars)
        axes.plot([x, x], [row["safety_delta_low"], row["safety_delta_high"]], **bars)
        axes.plot(
            x,
            y,
            RECIPE_MARKERS[row["recipe"]],
            zorder=3,
            gid=f"point:{row['judging']}:{row['model']}:{row['recipe']}:{row['beta']:g}",
            **_marker(colour, filled=row["beta"] == betas[0]),
        )
    if len(fits):
        fit = fits.iloc[0]
        ends = np.array([points["helpfulness_delta"].min(), points["helpfulness_delta"].max()])
        axes.plot(ends, fit["intercept"] + fit["slope"] * ends, color=GREY, linewidth=1.1, zorder=2)
        interval = "" if np.isnan(fit["r2_low"]) else f" [{fit['r2_low']:.2f}, {fit['r2_high']:.2f}]"
        # Above the panel, where no point can be.
        axes.set_title(f"{axes.get_title()}\nR² = {fit['r2']:.2f}{interval}, {fit['n']:.0f} points")


def _marker(colour: str, *, filled: bool) -> dict[str, Any]:
    face, edge = (colour, "white") if filled else ("white", colour)
    width = 0.5 if filled else 1.0
    return {"markersize": 5.5, "markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": width}


def _legend(
    points: pd.DataFrame, colours: dict[str, str], betas: Sequence[float]
) -> list[tuple[str, list[Line2D], int]]:
    """Returns title, handles and columns of each group of the legend."""

    def entry(label: str, marker: str, colour: str, *, filled: bool = True) -> Line2D:
        return Line2D([], [], linestyle="", label=label, marker=marker, **_marker(colour, filled=filled))

    used = set(points["recipe"])
    recipes = [
        entry(RECIPE_LABELS[Recipe(recipe)], marker, GREY)
        for recipe, marker in RECIPE_MARKERS.items()
        if recipe in used
    ]
    models = [entry(model, "o", colour) for model, colour in colours.items()]
    groups = [
        ("source model", models, 1),
        ("trained on safety (S), helpfulness (H)", recipes, min(3, len(recipes))),
    ]
    if len(betas) > 1:
        others = ", ".join(f"{beta:g}" for beta in betas[1:])
        handles = [entry(f"{betas[0]:g}", "o", GREY), entry(others, "o", GREY, filled=False)]
        groups.append(("β of DPO", handles, 1))
    return groups


METRIC_STYLES = {
    "safe": ("#0072B2", "s", -0.16, "safety kept through helpfulness training"),
    "help": ("#D55E00", "^", 0.16, "helpfulness kept through safety training"),
}


def persistence_figure(table: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws persistence with its intervals: a panel for every way of judging, a row for every model and beta.

    Averages over models are emphasised; an estimate that is not defined is said to be so; an interval from which
    many draws are missing is dotted.
    """
    table = table[table["judge"].isna()]
    judgings = [judging for judging in JUDGING_TITLES if (table["judging"] == judging).any()]
    keys = table[["beta", "model"]].drop_duplicates()
    keys = keys.sort_values(["beta", "model"], na_position="first").reset_index(drop=True)
    places = {(row.beta, _name(row.model)): place for place, row in enumerate(keys.itertuples(index=False))}
    several = keys["beta"].nunique() > 1
    with mpl.rc_context(RC):
        low, high = _persistence_limits(table)
        handles = _persistence_legend(table, cut=low in CUT or high in CUT)
        columns = 2 if len(judgings) > 1 else 1
        rows = -(-len(handles) // columns)
        canvas = _canvas(judgings, 0.3 * len(places) + 0.15, title, rows, panel=1.95, labels=1.3, toy=toy)
        for axes, judging in zip(canvas.panels, judgings, strict=True):
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            for value in (0, 1):
                axes.axvline(value, **ZERO)
            for row in table[table["judging"] == judging].to_dict("records"):
                _persistence_row(axes, row, places[row["beta"], _name(row["model"])], low, high)
        labels = [f"{name}, β = {beta:g}" if several else name for beta, name in places]
        first = canvas.panels[0]
        first.set(yticks=range(len(places)), yticklabels=labels, ylim=(len(places) - 0.4, -0.6), xlim=(low, high))
        canvas.key.legend(handles=handles, loc="upper center", ncols=columns)
        canvas.body.supxlabel("share of the first stage's gain that survives the second", fontsize=8)
    return canvas.figure


def _persistence_legend(table: pd.DataFrame, *, cut: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1, label=label)
        for colour, marker, _, label in METRIC_STYLES.values()
    ]
    if (table["invalid_share"] > SHAKY).any():
        dotted = f"no first gain to keep in over {SHAKY:.0%} of draws"
        handles.append(Line2D([], [], color=GREY, linestyle="dotted", linewidth=1, label=dotted))
    if cut:
        handles.append(Line2D([], [], color=GREY, linestyle="", marker=">", markersize=4, label="goes on"))
    return handles


CUT = (-2.0, 3.0)
"""Persistence beyond these is not drawn: ratios with a small denominator would hide all others."""


def _name(model: object) -> str:
    return "average" if pd.isna(model) else str(model)  # type: ignore[call-overload]


def _persistence_limits(table: pd.DataFrame) -> tuple[float, float]:
    values = table[["estimate", "low", "high"]].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    low, high = min([0.0, *values]) - 0.1, max([1.0, *values]) + 0.1
    return max(CUT[0], low), min(CUT[1], high)


def _persistence_row(axes: Axes, row: Row, place: int, low: float, high: float) -> None:
    colour, marker, shift, _ = METRIC_STYLES[row["metric"]]
    bold, y = pd.isna(row["model"]), place + shift
    if np.isnan(row["estimate"]):
        axes.text(low + 0.02 * (high - low), y, "no first gain to keep", fontsize=6, color=colour, va="center")
        return
    style = "dotted" if row["invalid_share"] > SHAKY else "solid"
    axes.plot([row["low"], row["high"]], [y, y], color=colour, linestyle=style, linewidth=1.6 if bold else 0.8)
    axes.plot(row["estimate"], y, marker, color=colour, markersize=6 if bold else 4)
    for beyond, end, arrow in ((row["low"] < low, low, "<"), (row["high"] > high, high, ">")):
        if beyond:
            axes.plot(end, y, arrow, color=colour, markersize=4, clip_on=False)
