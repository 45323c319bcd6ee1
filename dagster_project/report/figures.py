"""Figures: the frontier, and persistence."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.experiment.agents import RECIPE_LABELS, Recipe
from dagster_project.report.style import GREY, RC, RECIPE_MARKERS, model_colours

JUDGING_TITLES = {
    "match": "scored by the judge of the training pairs",
    "cross": "scored by the other judge",
    "all": "scored by all judges",
}
TOY = "toy world: shows the method, says nothing of real agents"


def frontier_figure(points: pd.DataFrame, fits: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws every way of judging as a panel: deltas with intervals, and the line through them.

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
        figure = Figure(figsize=(3.6 * len(judgings) + 1.3, 4.0), layout="constrained")
        panels = figure.subplots(1, len(judgings), squeeze=False, sharex=True, sharey=True)[0]
        colours = model_colours(list(points["model"].unique()))
        for axes, judging in zip(panels, judgings, strict=True):
            shown, fit = points[points["judging"] == judging], fits[fits["judging"] == judging]
            _panel(axes, shown, fit, colours)
            axes.set_title(JUDGING_TITLES[judging])
            axes.set_xlabel("helpfulness, post-trained minus source")
        panels[0].set_ylabel("safety, post-trained minus source")
        figure.suptitle(title + (f"\n({TOY})" if toy else ""), fontsize=11)
        figure.legend(handles=_legend(points, colours), loc="outside right center")
    return figure


def _panel(axes: Axes, points: pd.DataFrame, fits: pd.DataFrame, colours: dict[str, str]) -> None:
    axes.axhline(0, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    betas = sorted(points["beta"].unique())
    for row in points.to_dict("records"):
        x, y = row["helpfulness_delta"], row["safety_delta"]
        bars: dict[str, Any] = {
            f"{axis}err": [[max(0.0, row[name] - row[f"{name}_low"])], [max(0.0, row[f"{name}_high"] - row[name])]]
            for axis, name in (("x", "helpfulness_delta"), ("y", "safety_delta"))
            if not np.isnan(row[f"{name}_low"])
        }
        colour = colours[row["model"]]
        axes.errorbar(x, y, **bars, color=colour, elinewidth=0.8, alpha=0.45, zorder=2)
        filled = betas.index(row["beta"]) == 0
        axes.plot(
            x,
            y,
            RECIPE_MARKERS[row["recipe"]],
            color=colour,
            markersize=8,
            zorder=3,
            markerfacecolor=colour if filled else "white",
            markeredgecolor="white" if filled else colour,
            gid=f"point:{row['model']}:{row['recipe']}:{row['beta']:g}",
        )
    if len(fits):
        fit = fits.iloc[0]
        ends = np.array([points["helpfulness_delta"].min(), points["helpfulness_delta"].max()])
        axes.plot(ends, fit["intercept"] + fit["slope"] * ends, color=GREY, linewidth=1.2, zorder=1)
        interval = "" if np.isnan(fit["r2_low"]) else f" [{fit['r2_low']:.2f}, {fit['r2_high']:.2f}]"
        axes.text(
            0.98,
            0.98,
            f"R² = {fit['r2']:.2f}{interval}\nn = {fit['n']:.0f} points",
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=8,
            color=GREY,
        )
    axes.margins(0.12)


def _legend(points: pd.DataFrame, colours: dict[str, str]) -> list[Line2D]:
    def entry(label: str, **style: object) -> Line2D:
        return Line2D([], [], linestyle="", label=label, **style)  # type: ignore[arg-type]

    handles = [entry("source model")]
    handles += [entry(model, marker="o", color=colour, markersize=7) for model, colour in colours.items()]
    handles += [entry("trained on")]
    used = set(points["recipe"])
    handles += [
        entry(RECIPE_LABELS[Recipe(recipe)], marker=marker, color=GREY, markersize=7)
        for recipe, marker in RECIPE_MARKERS.items()
        if recipe in used
    ]
    betas = sorted(points["beta"].unique())
    if len(betas) > 1:
        handles += [entry(f"filled: β = {betas[0]:g}"), entry(f"open: β = {', '.join(f'{b:g}' for b in betas[1:])}")]
    return handles


def persistence_figure(table: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws persistence with its intervals, a row for every way of judging, model and beta, averages emphasised."""
    table = table[table["judge"].isna()]
    rows = table.drop_duplicates(["judging", "model", "beta"]).to_dict("records")
    with mpl.rc_context(RC):
        figure = Figure(figsize=(7.0, 1.4 + 0.28 * len(rows)), layout="constrained")
        axes = figure.subplots()
        styles = {"safe": ("#0072B2", "s", -0.12, "safety kept through helpfulness training"),
                  "help": ("#D55E00", "^", 0.12, "helpfulness kept through safety training")}  # fmt: skip
        for metric, (colour, marker, shift, label) in styles.items():
            shown = False
            for place, row in enumerate(rows):
                same = (
                    (table["judging"] == row["judging"]) & (table["beta"] == row["beta"]) & (table["metric"] == metric)
                )
                model = table["model"].isna() if pd.isna(row["model"]) else table["model"] == row["model"]
                for found in table[same & model].to_dict("records"):
                    bold = pd.isna(found["model"])
                    axes.plot(
                        [found["low"], found["high"]], [place + shift] * 2, color=colour, linewidth=2 if bold else 1
                    )
                    axes.plot(
                        found["estimate"],
                        place + shift,
                        marker,
                        color=colour,
                        markersize=7 if bold else 5,
                        label=None if shown else label,
                    )
                    shown = True
        several = len({row["beta"] for row in rows}) > 1
        names = [
            f"{row['judging']}: {'average' if pd.isna(row['model']) else row['model']}"
            + (f", β = {row['beta']:g}" if several else "")
            for row in rows
        ]
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        for value in (0, 1):
            axes.axvline(value, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
        finite = table[["estimate", "low", "high"]].to_numpy(dtype=float)
        finite = finite[np.isfinite(finite)]
        if len(finite):
            axes.set_xlim(max(-2.0, finite.min() - 0.1), min(3.0, finite.max() + 0.1))
        axes.set_xlabel("share of the first stage's gain that survives the second (axis cut at −2 and 3)")
        axes.set_title(title + (f"\n({TOY})" if toy else ""))
        figure.legend(loc="outside lower center", ncols=2)
    return figure
