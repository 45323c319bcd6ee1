"""How far the line depends on the points it goes through: a forest plot of every fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dagster_project.report.figures.frame import ZERO, Group, frame, text_width
from dagster_project.report.style import TEXT_WIDTH, look, tint
from dagster_project.report.values import MAIN_SET, Row, judgings_of, missing, set_title
from dagster_project.report.wording import JUDGING_TITLES

COLOURS = {"match": ("#0072B2", "o"), "cross": ("#D55E00", "D"), "all": ("#009E73", "s")}
CUT = {"r2": (-0.3, 1.0), "slope": (-3.0, 2.0)}
"""Beyond these nothing is drawn: lines through few points, or through the origin, would hide all others."""
STEP = 0.13
"""Inches between two estimates of one set of points."""


def fits_figure(fits: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws R² and slope with intervals of every set of points and way of judging; single judges are strokes.

    Args:
        fits: `frontier_fits`.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    judgings = judgings_of(fits)
    sets = sorted(dict.fromkeys(fits["point_set"]), key=lambda name: bool(name != MAIN_SET))
    judges = sorted(fits["judge"].dropna().unique())
    tall = STEP * (len(judgings) + 1)
    labels = [_set_label(fits[fits["point_set"] == name], str(name)) for name in sets]
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=1, label=JUDGING_TITLES[judging])
        for judging, (colour, marker) in COLOURS.items()
        if judging in judgings
    ]
    if judges:
        name = f"one judge's alone ({', '.join(map(str, judges))})"
        handles.append(Line2D([], [], linestyle="", label=name, **alone("#6b6b6b")))
    averaged = fits[fits["judge"].isna()]
    shown = {name: _limits(fits, name) for name in CUT}
    if any(
        (averaged[f"{name}_low"] < low).any() or (averaged[f"{name}_high"] > high).any()
        for name, (low, high) in shown.items()
    ):
        handles.append(Line2D([], [], color="#6b6b6b", linestyle="", marker=">", markersize=4, label="goes on"))
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
                y = sets.index(row["point_set"]) * tall + STEP * (judgings.index(row["judging"]) + 1)
                _estimate(axes, y, row, value, shown[value])
            for place in range(1, len(sets)):
                axes.axhline(place * tall, color="#dddddd", linewidth=0.5, zorder=0)
        first = drawn.panels[0]
        first.set(ylim=(len(sets) * tall, 0))
        first.set_yticks([(place + 0.5) * tall for place in range(len(sets))], labels)
        for axes, limits in zip(drawn.panels, shown.values(), strict=True):
            margin = 0.03 * (limits[1] - limits[0])
            axes.set_xlim(limits[0] - margin, limits[1] + margin)
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        for axes in drawn.panels:
            axes.tick_params(axis="y", length=0)
    return drawn.figure


def _set_label(fits: pd.DataFrame, name: str) -> str:
    averaged = fits[fits["judge"].isna()]
    sizes = sorted({int(n) for n in (averaged if len(averaged) else fits)["n"]})
    return f"{set_title(name)}\nn = {', '.join(map(str, sizes))}"


def alone(colour: str) -> dict[str, Any]:
    """Returns the marker of a single judge's estimate."""
    return {"marker": "|", "markersize": 6, "markeredgewidth": 1.0, "color": tint(colour, 0.3)}


def _limits(fits: pd.DataFrame, name: str) -> tuple[float, float]:
    """Returns the least and greatest of what is drawn; 0 is always, and for R², 1."""
    values = fits[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    low, high = CUT[name]
    greatest = 1.0 if name == "r2" else min(high, max([0.0, *values]))
    return max(low, min([0.0, *values])), greatest


def _estimate(axes: Axes, y: float, row: Row, name: str, limits: tuple[float, float]) -> None:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if np.isnan(value):
        return
    colour, marker = COLOURS[row["judging"]]
    least, greatest = limits
    averaged = missing(row["judge"])
    for beyond, end, arrow in (
        (value < least or (averaged and low < least), least, "<"),
        (value > greatest or (averaged and high > greatest), greatest, ">"),
    ):
        if beyond:
            axes.plot(end, y, arrow, color=colour if averaged else tint(colour, 0.3), markersize=4, zorder=2)
    if averaged and not np.isnan([low, high]).any():
        axes.plot(np.clip([low, high], least, greatest), [y, y], color=colour, linewidth=1.0, zorder=2)
    if least <= value <= greatest:
        style: dict[str, Any] = {"marker": marker, "color": colour, "markersize": 4.5, "zorder": 3}
        axes.plot(value, y, **(style if averaged else alone(colour) | {"zorder": 2.5}))
