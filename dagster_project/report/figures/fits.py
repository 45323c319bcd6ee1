"""How far the line depends on the points it goes through: a forest plot of every fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.report.figures.frame import JUDGING_TITLES, ZERO, Group, frame, judgings_of, missing, text_width
from dagster_project.report.figures.frontier import MAIN_SET
from dagster_project.report.style import TEXT_WIDTH, look, tint

COLOURS = {"match": ("#0072B2", "o"), "cross": ("#D55E00", "D"), "all": ("#009E73", "s")}
STEP = 0.085
"""Inches between two estimates of one set of points."""


def fits_figure(fits: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws R² and slope with intervals of every set of points and way of judging; single judges are paler.

    Args:
        fits: `frontier_fits`.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    judgings = judgings_of(fits)
    sets = sorted(dict.fromkeys(fits["point_set"]), key=lambda name: bool(name != MAIN_SET))
    judges = sorted(fits["judge"].dropna().unique())
    order = [(judging, judge) for judging in judgings for judge in (None, *judges)]
    tall = STEP * (len(order) + 1.5)
    labels = [_set_label(fits[fits["point_set"] == name], str(name)) for name in sets]
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=1, label=JUDGING_TITLES[judging])
        for judging, (colour, marker) in COLOURS.items()
        if judging in judgings
    ]
    if judges:
        colour, marker = COLOURS[judgings[0]]
        name = "below each: " + ", ".join(map(str, judges)) + " alone"
        pale = tint(colour, 0.45)
        handles.append(Line2D([], [], color=pale, marker=marker, markersize=2.5, linewidth=0.7, label=name))
    with look():
        drawn = frame(
            ["R²", "slope"],
            title=title,
            toy=toy,
            height=tall * len(sets),
            groups=[Group("", handles, 2)],
            width=TEXT_WIDTH,
            sharex=False,
            reserved=max(text_width(label.split("\n")[0], 7) for label in labels),
        )
        for axes, value in zip(drawn.panels, ("r2", "slope"), strict=True):
            axes.axvline(0, **ZERO)
            for row in fits.to_dict("records"):
                judge = None if missing(row["judge"]) else row["judge"]
                y = sets.index(row["point_set"]) * tall + STEP * (order.index((row["judging"], judge)) + 1)
                _estimate(axes, y, row["judging"], row[value], row[f"{value}_low"], row[f"{value}_high"], judge is None)
            for place in range(1, len(sets)):
                axes.axhline(place * tall, color="#dddddd", linewidth=0.5, zorder=0)
        first, second = drawn.panels
        first.set(xlim=(-0.03, 1.03), ylim=(len(sets) * tall, 0))
        first.set_yticks([(place + 0.5) * tall for place in range(len(sets))], labels)
        second.axvline(-1, **ZERO)
        for axes in drawn.panels:
            axes.tick_params(axis="y", length=0)
    return drawn.figure


def _set_label(fits: pd.DataFrame, name: str) -> str:
    sizes = sorted({int(n) for n in fits["n"]})
    return f"{name.replace('_', ' ')}\nn = {', '.join(map(str, sizes))}"


def _estimate(axes: Axes, y: float, judging: str, value: float, low: float, high: float, main: bool) -> None:
    if np.isnan(value):
        return
    colour, marker = COLOURS[judging]
    colour = colour if main else tint(colour, 0.45)
    if not np.isnan([low, high]).any():
        axes.plot([low, high], [y, y], color=colour, linewidth=1.2 if main else 0.7, zorder=2)
    axes.plot(value, y, marker, color=colour, markersize=4 if main else 2.5, zorder=3)
