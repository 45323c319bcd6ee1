"""The paper's persistence, where the second training led between the two single ones: a forest plot."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.report.figures.frame import ZERO, Group, frame, judging_titles, text_width, ticks
from dagster_project.report.style import GREY, INK, look, tint
from dagster_project.report.values import AVERAGE, PAPER_POSITION, Row, beta_name, column, judgings_of, missing
from dagster_project.results.persistence import SHAKY

METRIC_STYLES = {
    "safe": ("s", -0.26, "safety: of S→H between H and S"),
    "help": ("^", 0.17, "helpfulness: of H→S between S and H"),
}
CUT = (-2.0, 3.0)
"""Persistence beyond these is not drawn: ratios with a small denominator would hide all others."""
PUBLISHED = 0.19
"""How far below an interval the released code's lies, in rows."""


def paper_persistence_figure(table: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draw the paper's positions with intervals: a panel for every way of judging, a row for every model and beta.

    Averages over models are emphasised; an estimate that is not defined is said to be so; an interval from which
    many draws are missing is dotted. The interval as the released code computes it is a lighter bar below.

    Args:
        table: `persistence`; rows averaged over judges are drawn.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    table = table[table["judge"].isna()].rename(columns=PAPER_POSITION)
    judgings = judgings_of(table)
    titles, subtitle = judging_titles(judgings)
    keys = table[["beta", "model"]].drop_duplicates()
    keys = keys.sort_values(["beta", "model"], na_position="first")
    places: dict[tuple[str, str], int] = {}
    for beta, model in keys.itertuples(index=False):
        places.setdefault((beta_name(beta), _name(model)), len(places))
    several = len({beta for beta, _ in places}) > 1
    labels = [f"{name}, β = {beta}" if several else name for beta, name in places]
    with look():
        low, high = _limits(table)
        drawn = frame(
            titles,
            subtitle=subtitle,
            title=title,
            toy=toy,
            height=0.34 * len(places) + 0.35,
            groups=[Group("", _legend(table, cut=low in CUT or high in CUT), 2)],
            xlabel="position: 0 as the other one alone, 1 as the first",
            reserved=max(text_width(label, 7) for label in labels) + 0.2,
        )
        ticks(*drawn.panels)
        for axes, judging in zip(drawn.panels, judgings, strict=True):
            for value in (0, 1):
                axes.axvline(value, **ZERO)
            for row in table[table["judging"] == judging].to_dict("records"):
                _row(axes, row, places[beta_name(row["beta"]), _name(row["model"])], low, high)
        first = drawn.panels[0]
        first.set(yticks=range(len(places)), yticklabels=labels, ylim=(len(places) - 0.4, -0.6), xlim=(low, high))
    return drawn.figure


def _legend(table: pd.DataFrame, *, cut: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=INK, marker=marker, markersize=4.5, linewidth=1, label=label)
        for metric, (marker, _, label) in METRIC_STYLES.items()
    ]
    if column(table, "published_low").notna().any():
        label = "interval as the released code computes it"
        handles.append(Line2D([], [], color=tint(GREY, 0.5), linewidth=2, label=label))
    if (table["invalid_share"] > SHAKY).any():
        dotted = f"undefined in over {SHAKY:.0%} of draws"
        handles.append(Line2D([], [], color=GREY, linestyle="dotted", linewidth=1, label=dotted))
    if cut:
        handles.append(Line2D([], [], color=GREY, linestyle="", marker=">", markersize=4, label="goes on"))
    return handles


def _name(model: object) -> str:
    return AVERAGE if missing(model) else str(model)


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    names = [name for name in ("estimate", "low", "high", "published_low", "published_high") if name in table]
    values = table[names].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    low, high = min([0.0, *values]) - 0.1, max([1.0, *values]) + 0.1
    return max(CUT[0], low), min(CUT[1], high)


def _row(axes: Axes, row: Row, place: int, low: float, high: float) -> None:
    marker, shift, _ = METRIC_STYLES[row["metric"]]
    colour = INK
    bold, y = missing(row["model"]), place + shift
    if np.isnan(row["estimate"]):
        axes.text(low + 0.02 * (high - low), y, "undefined", fontsize=6, color=colour, va="center")
        return
    style = "dotted" if row["invalid_share"] > SHAKY else "solid"
    axes.plot([row["low"], row["high"]], [y, y], color=colour, linestyle=style, linewidth=1.6 if bold else 0.9)
    published = [row.get("published_low", np.nan), row.get("published_high", np.nan)]
    if not np.isnan(published).any():
        axes.plot(published, [y + PUBLISHED] * 2, color=tint(colour, 0.55), linewidth=1.6, solid_capstyle="butt")
    name = f"persistence:{row['judging']}:{_name(row['model'])}:{beta_name(row['beta'])}:{row['metric']}"
    axes.plot(row["estimate"], y, marker, color=colour, markersize=5 if bold else 4, gid=name)
    for beyond, end, arrow in ((row["low"] < low, low, "<"), (row["high"] > high, high, ">")):
        if beyond:
            axes.plot(end, y, arrow, color=colour, markersize=4, clip_on=False)
