"""How far the line depends on the points it goes through: a forest plot of every fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dagster_project.report.figures.frame import (
    JUDGING_TITLES,
    ZERO,
    Group,
    Row,
    frame,
    judgings_of,
    missing,
    text_width,
)
from dagster_project.report.figures.frontier import MAIN_SET
from dagster_project.report.style import TEXT_WIDTH, look, tint

COLOURS = {"match": ("#0072B2", "o"), "cross": ("#D55E00", "D"), "all": ("#009E73", "s")}
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
                _estimate(axes, y, row, value)
            for place in range(1, len(sets)):
                axes.axhline(place * tall, color="#dddddd", linewidth=0.5, zorder=0)
        first, second = drawn.panels
        # R² is below 0 where a line through the origin fits worse than none.
        least = float(np.nanmin(fits[["r2", "r2_low"]].to_numpy(dtype=float), initial=0.0))
        first.set(xlim=(1.05 * least - 0.03, 1.03), ylim=(len(sets) * tall, 0))
        first.set_yticks([(place + 0.5) * tall for place in range(len(sets))], labels)
        second.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        for axes in drawn.panels:
            axes.tick_params(axis="y", length=0)
    return drawn.figure


def _set_label(fits: pd.DataFrame, name: str) -> str:
    averaged = fits[fits["judge"].isna()]
    sizes = sorted({int(n) for n in (averaged if len(averaged) else fits)["n"]})
    return (
        f"{'all models, recipes, β' if name == MAIN_SET else name.replace('_', ' ')}\nn = {', '.join(map(str, sizes))}"
    )


def alone(colour: str) -> dict[str, Any]:
    """Returns the marker of a single judge's estimate."""
    return {"marker": "|", "markersize": 6, "markeredgewidth": 1.0, "color": tint(colour, 0.3)}


def _estimate(axes: Axes, y: float, row: Row, name: str) -> None:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if np.isnan(value):
        return
    colour, marker = COLOURS[row["judging"]]
    if not missing(row["judge"]):
        axes.plot(value, y, zorder=2.5, **alone(colour))
        return
    if not np.isnan([low, high]).any():
        axes.plot([low, high], [y, y], color=colour, linewidth=1.0, zorder=2)
    axes.plot(value, y, marker, color=colour, markersize=4.5, zorder=3)
