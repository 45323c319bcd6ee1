"""How far the line depends on the points it goes through: a forest plot of every fit, judges side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dagster_project.report.figures.frame import ZERO, Group, frame, text_width
from dagster_project.report.style import GREY, INK, TEXT_WIDTH, look, tint
from dagster_project.report.values import MAIN_SET, Row, scored, scorings, set_title
from dagster_project.report.wording import scoring_title

STYLES = ((INK, "o"), (tint(INK, 0.45), "D"), (INK, "s"), (tint(INK, 0.45), "^"))
"""Of those who scored: shades of grey, since colours are for source models."""
TITLES = {"r2": "R²", "slope": "slope", "intercept": "intercept"}
CUT = {"r2": (-0.3, 1.0), "slope": (-3.0, 2.0), "intercept": (-1.0, 2.0)}
"""Beyond these nothing is drawn: lines through few points, or through the origin, would hide all others."""
STEP = 0.13
"""Inches between two estimates of one set of points."""


def fits_figure(fits: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draw R², slope and intercept with intervals, for every set of points and everyone who scored.

    Args:
        fits: `frontier_fits`; where there are rows of single judges, those are drawn.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    ways = scorings(fits)
    styles = {way: STYLES[place % len(STYLES)] for place, way in enumerate(ways)}
    fits = pd.concat([scored(fits, *way) for way in ways], ignore_index=True)
    sets = sorted(dict.fromkeys(fits["point_set"]), key=lambda name: bool(name != MAIN_SET))
    tall = STEP * (max(len(ways), 2) + 1)
    labels = [_set_label(fits[fits["point_set"] == name], str(name)) for name in sets]
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=1, label=scoring_title(*way))
        for way, (colour, marker) in styles.items()
    ]
    shown = {name: _limits(fits, name) for name in TITLES if f"{name}_low" in fits}
    if any(
        (fits[f"{name}_low"] < low).any() or (fits[f"{name}_high"] > high).any() for name, (low, high) in shown.items()
    ):
        handles.append(Line2D([], [], color=GREY, linestyle="", marker=">", markersize=4, label="goes on"))
    with look():
        drawn = frame(
            [TITLES[name] for name in shown],
            title=title,
            toy=toy,
            height=tall * len(sets),
            groups=[Group("", handles, len(handles))],
            width=TEXT_WIDTH,
            sharex=False,
            reserved=max(text_width(label.split("\n")[0], 7) for label in labels),
        )
        for axes, value in zip(drawn.panels, shown, strict=True):
            axes.axvline(0, **ZERO)
            for row in fits.to_dict("records"):
                way = str(row["judging"]), None if pd.isna(row["judge"]) else str(row["judge"])
                y = sets.index(row["point_set"]) * tall + tall * (ways.index(way) + 1) / (len(ways) + 1)
                _estimate(axes, y, row, value, (shown[value], styles[way]))
            for place in range(1, len(sets)):
                axes.axhline(place * tall, color="#dddddd", linewidth=0.5, zorder=0)
        first = drawn.panels[0]
        first.set(ylim=(len(sets) * tall, 0))
        first.set_yticks([(place + 0.5) * tall for place in range(len(sets))], labels)
        for axes, limits in zip(drawn.panels, shown.values(), strict=True):
            margin = 0.03 * (limits[1] - limits[0])
            axes.set_xlim(limits[0] - margin, limits[1] + margin)
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        for axes in drawn.panels:
            axes.tick_params(axis="y", length=0)
    return drawn.figure


def _set_label(fits: pd.DataFrame, name: str) -> str:
    sizes = sorted({int(n) for n in fits["n"]})
    return f"{set_title(name)}\nn = {', '.join(map(str, sizes))}"


def _limits(fits: pd.DataFrame, name: str) -> tuple[float, float]:
    """Return the least and greatest of what is drawn; 0 is always, and for R², 1."""
    values = fits[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    low, high = CUT[name]
    greatest = 1.0 if name == "r2" else min(high, max([0.0, *values]))
    return max(low, min([0.0, *values])), greatest


def _estimate(axes: Axes, y: float, row: Row, name: str, drawn: tuple[tuple[float, float], tuple[str, str]]) -> None:
    """Draw one estimate with its interval, and arrows where they go on beyond the panel."""
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if np.isnan(value):
        return
    (least, greatest), (colour, marker) = drawn
    for beyond, end, arrow in ((min(value, low) < least, least, "<"), (max(value, high) > greatest, greatest, ">")):
        if beyond:
            axes.plot(end, y, arrow, color=colour, markersize=4, zorder=2)
    if not np.isnan([low, high]).any():
        axes.plot(np.clip([low, high], least, greatest), [y, y], color=colour, linewidth=1.0, zorder=2)
    if least <= value <= greatest:
        style: dict[str, Any] = {"marker": marker, "color": colour, "markersize": 4, "zorder": 3}
        axes.plot(value, y, **style)
