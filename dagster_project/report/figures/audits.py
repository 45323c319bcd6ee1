"""What a score alone does not show: how often agents run on, invent observations, or never call a tool."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from dagster_project.experiment.agents import Recipe
from dagster_project.report.figures.frame import Group, frame, text_width
from dagster_project.report.style import TEXT_WIDTH, look, model_styles
from dagster_project.report.values import recipe_order, with_agents

MEASURES = (
    {"runaway": "ran on to a limit", "token_budget": "ran out of tokens"},
    {"invented_only": "only invented tool results", "self_observed": "wrote tool results itself"},
    {"without_tool_call": "never called a tool"},
    {"emulator_unparsed": "emulator's answers not parsed"},
)
"""What is shown, a panel each: the first of the names that the table has."""
BAR = 0.125
SHARE, OF_ANSWERS, RANGE = (
    "share of trajectories",
    ", of the emulator's answers in the last panel",
    "; lines: least to greatest of the agents",
)


def audits_figure(audits: pd.DataFrame, agents: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draw shares of trajectories as bars: a panel for every measure, a bar for every model and recipe.

    A measure that is not known, or 0 everywhere, has no panel.

    A bar is the mean over a recipe's agents and seeds, weighted by their trajectories; the line across it goes from
    the least to the greatest of them.

    Args:
        audits: `audits`.
        agents: `agents`; needed where `audits` has no columns model and recipe. May be empty.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    measures, table = shown_measures(audits), with_agents(audits, agents)
    table = table.assign(recipe=table["recipe"].fillna(""), model=table["model"].astype(str))
    groups = {
        (str(model), str(recipe)): group for (model, recipe), group in table.groupby(["model", "recipe"], sort=True)
    }
    styles = model_styles({model for model, recipe in groups if recipe}, {model for model, _ in groups})
    order = list(styles)
    recipes = {"": -1, **recipe_order(recipe for _, recipe in groups if recipe)}
    keys = sorted(groups, key=lambda key: (order.index(key[0]), recipes[key[1]]))
    places = {key: place + 0.7 * order.index(key[0]) for place, key in enumerate(keys)}
    labels = [f"{model}  source" if not recipe else Recipe(recipe).label for model, recipe in keys]
    handles = [
        Patch(facecolor=style.colour, hatch=style.hatch, edgecolor="white", label=m) for m, style in styles.items()
    ]
    with look():
        drawn = frame(
            [textwrap.fill(name, 18) for name in measures.values()],
            title=title,
            toy=toy,
            height=BAR * (max(places.values()) + 1.5),
            groups=[Group("", handles, 1)],
            width=TEXT_WIDTH,
            sharex=False,
            xlabel=SHARE + OF_ANSWERS * ("emulator_unparsed" in measures) + RANGE,
            reserved=max(text_width(label, 7) for label in labels),
        )
        for axes, measure in zip(drawn.panels, measures, strict=True):
            most = 0.0
            for key, group in groups.items():
                values = group[measure].to_numpy(dtype=float)
                known = np.isfinite(values)
                if not known.any():
                    continue
                mean = float(np.average(values[known], weights=group["trajectories"].to_numpy(dtype=float)[known]))
                style, y = styles[key[0]], places[key]
                axes.barh(
                    y, mean, 0.8, color=style.colour, alpha=0.55 if key[1] else 1, hatch=style.hatch, edgecolor="white",
                    linewidth=0, gid=f"audit:{measure}:{key[0]}:{key[1] or 'source'}",
                )  # fmt: skip
                axes.plot([values[known].min(), values[known].max()], [y, y], color="#555555", linewidth=0.5)
                most = max(most, float(values[known].max()))
            axes.set_xlim(0, 1.06 * most or 0.01)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
            axes.locator_params(axis="x", nbins=4)
        first = drawn.panels[0]
        first.set_ylim(max(places.values()) + 0.8, -0.8)
        first.set_yticks(list(places.values()), labels)
        for axes in drawn.panels:
            axes.tick_params(axis="y", length=0)
    return drawn.figure


def shown_measures(audits: pd.DataFrame) -> dict[str, str]:
    """Return the measures that have a panel, with their titles: those that are known and not 0 everywhere."""
    return dict(found for names in MEASURES if (found := _first(names, audits)))


def _first(names: dict[str, str], table: pd.DataFrame) -> tuple[str, str] | None:
    return next(((name, text) for name, text in names.items() if name in table and (table[name] > 0).any()), None)
