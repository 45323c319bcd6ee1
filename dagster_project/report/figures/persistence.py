"""Persistence against the source model: what the first training gained, and what is left after the second."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.experiment.agents import Recipe
from dagster_project.report.figures.frame import ZERO, Group, frame, letters_in, text_width
from dagster_project.report.figures.points import OVER_MODELS, beta_group, entry, model_group
from dagster_project.report.style import GREY, PAPER_MARKERS, TEXT_WIDTH, ModelStyle, look, marker_style, model_styles
from dagster_project.report.values import AVERAGE, Row, beta_name, kept_share, levels, missing, scored, scorings
from dagster_project.report.wording import scoring_title
from dagster_project.results.persistence import SEQUENCES

METRICS = {"safe": "safety", "help": "helpfulness"}
QUANTITIES = ("gain", "kept", "other")
"""Of `persistence`, in the order of `SEQUENCES`: after the first training, after both, after the other one alone."""
ROW = 0.2
"""Inches of a row."""
ROOM = 0.36
"""Of the panel's width, on the right, for the share in numbers."""


class Look(NamedTuple):
    """What a row's marks look like: the model's style, and the place of its β among all."""

    style: ModelStyle
    level: int
    levels: int


def persistence_figure(table: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draw each metric's difference to the source model after the first training, after both, and after the other.

    A panel for every metric and judge, a row for every model and β; averages over models come first, in black. On the
    right stands the share of the gain that is left, where there is a gain clearly above 0. Every mark has the id
    ``persistence:<judging>:<judge>:<model>:<beta>:<metric>:<quantity>``.

    Args:
        table: `persistence`; where there are rows of single judges, those are drawn.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    ways = scorings(table)[:4]
    panels = [(metric, *way) for metric in METRICS for way in ways]
    keys = table[["beta", "model"]].drop_duplicates().sort_values(["beta", "model"], na_position="first")
    places = {
        (beta_name(beta), _name(model)): place for place, (beta, model) in enumerate(keys.itertuples(index=False))
    }
    models, betas = model_styles(table["model"].dropna()), levels(table["beta"])
    styles = {AVERAGE: OVER_MODELS, **models}
    labels = [f"{name}, β {beta}" if len(betas) > 1 else name for beta, name in places]
    columns = len(ways)
    reserved = max(text_width(label, 7) for label in labels) + 0.2
    width = (TEXT_WIDTH - reserved) / columns - 0.2
    low, high = _limits(table)
    with look():
        drawn = frame(
            [_heading(panel, width) for panel in panels],
            title=title,
            toy=toy,
            height=ROW * len(places) + 0.1,
            groups=[_recipes(), beta_group(betas), model_group(styles), _intervals()],
            width=TEXT_WIDTH,
            xlabel="points of score, against the source model; right: share of the gain that is left",
            reserved=reserved,
            columns=columns,
        )
        for axes, (metric, judging, judge) in zip(drawn.panels, panels, strict=True):
            axes.axvline(0, **ZERO)
            rows = scored(table, judging, judge)
            for row in rows[rows["metric"] == metric].to_dict("records"):
                name, beta = _name(row["model"]), beta_name(row["beta"])
                place = places[beta, name]
                _row(axes, row, place, Look(styles[name], betas[beta], len(betas)))
                axes.text(high, place, kept_share(row), fontsize=6, va="center", ha="right")
            axes.set(ylim=(len(places) - 0.4, -0.6), xlim=(low, high))
            axes.set_yticks(range(len(places)), labels)
            axes.tick_params(axis="y", length=0)
            axes.locator_params(axis="x", nbins=5)
    return drawn.figure


def _row(axes: Axes, row: Row, place: int, look_of_it: Look) -> None:
    style, level, n_levels = look_of_it
    spread = {"gain": -0.24, "kept": 0.0, "other": 0.24}
    for quantity, recipe in zip(QUANTITIES, SEQUENCES[str(row["metric"])], strict=True):
        value, low, high = (row[f"{quantity}{bound}"] for bound in ("", "_low", "_high"))
        if missing(value):
            continue
        y = place + spread[quantity]
        axes.plot([low, high], [y, y], color=style.colour, linewidth=1.2 if quantity == "kept" else 0.6, zorder=2)
        name = f"persistence:{row['judging']}:{row['judge']}:{_name(row['model'])}:{beta_name(row['beta'])}"
        marker = PAPER_MARKERS[recipe]
        axes.plot(
            value,
            y,
            marker,
            gid=f"{name}:{row['metric']}:{quantity}",
            zorder=3,
            **marker_style(style, level, n_levels, 4),
        )


def _heading(panel: tuple[str, str, str | None], width: float) -> str:
    metric, judging, judge = panel
    return textwrap.fill(f"{METRICS[metric]}, scored by {scoring_title(judging, judge)}", letters_in(width, 8))


def _recipes() -> Group:
    used = dict.fromkeys(recipe for recipes in SEQUENCES.values() for recipe in recipes)
    handles = [entry(Recipe(recipe).label, PAPER_MARKERS[recipe]) for recipe in used]
    return Group("trained on", handles, 2)


def _intervals() -> Group:
    return Group("", [Line2D([], [], color=GREY, linewidth=1.2, label="95% interval")])


def _name(model: object) -> str:
    return AVERAGE if missing(model) else str(model)


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    names = [f"{quantity}{bound}" for quantity in QUANTITIES for bound in ("", "_low", "_high")]
    values = table[names].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    low, high = min([0.0, *values]), max([0.0, *values])
    span = max(high - low, 0.1)
    return low - 0.05 * span, high + span * ROOM / (1 - ROOM)
