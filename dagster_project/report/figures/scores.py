"""How often each score was given by recipe, and how far apart the seeds of one agent are."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from dagster_project.experiment.agents import Recipe
from dagster_project.report.figures.frame import ZERO, Group, frame, letters_in, text_width
from dagster_project.report.figures.points import PLAIN, beta_group, model_group, recipe_group
from dagster_project.report.palette import SCORE_COLOURS
from dagster_project.report.runs import METRICS, SCORES
from dagster_project.report.style import TEXT_WIDTH, look, marker_style, model_styles, recipe_markers
from dagster_project.report.values import beta_name, levels, missing, own_ways, recipe_order, scorings
from dagster_project.report.wording import scoring_title

ROW = 0.17
"""Inches of a recipe's row."""


def distributions_figure(table: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draw the shares of scores 0 to 3 as bars of four parts: a panel a metric and judge, a bar a recipe.

    Args:
        table: Of `distributions`.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    panels = [(metric, *way) for metric in METRICS for way in scorings(table)]
    panels = [panel for panel in panels if len(_of(table, panel))]
    recipes = [None, *recipe_order(table["recipe"])]
    places = {recipe: place for place, recipe in enumerate(recipes)}
    labels = ["source" if recipe is None else Recipe(recipe).label for recipe in recipes]
    handles = [Patch(facecolor=colour, label=str(score)) for score, colour in enumerate(SCORE_COLOURS)]
    columns = min(2, len(panels))
    with look():
        drawn = frame(
            [
                textwrap.fill(f"{METRICS[metric]}, scored by {scoring_title(judging, judge)}", 46)
                for metric, judging, judge in panels
            ],
            title=title,
            toy=toy,
            height=ROW * len(recipes) + 0.1,
            groups=[Group("score", handles, 1)],
            width=TEXT_WIDTH,
            xlabel="share of held-out cases, over source models, β and seeds",
            reserved=max(text_width(label, 7) for label in labels),
            columns=columns,
        )
        for axes, panel in zip(drawn.panels, panels, strict=True):
            for row in _of(table, panel).to_dict("records"):
                counts = np.array([row[name] for name in SCORES], dtype=float)
                shares = counts / max(counts.sum(), 1.0)
                left = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
                place = places[None if missing(row["recipe"]) else row["recipe"]]
                axes.barh([place] * 4, shares, 0.82, left=left, color=SCORE_COLOURS, edgecolor="white", linewidth=0.3)
            axes.set(xlim=(0, 1), ylim=(len(recipes) - 0.5, -0.5))
            axes.set_yticks(range(len(recipes)), labels)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
            axes.tick_params(axis="y", length=0)
    return drawn.figure


def _of(table: pd.DataFrame, panel: tuple[str, str, str | None]) -> pd.DataFrame:
    metric, judging, judge = panel
    return table[(table["metric"] == metric) & (table["judging"] == judging) & (table["judge"] == judge)]


def seeds_figure(runs: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draw every seed's difference to the source model, a row for every recipe: how much a seed decides.

    Where judges scored agents trained on their own verdicts, they are not drawn on those of other judges.

    Args:
        runs: A row for every agent, seed and judge with `safety_delta` and `helpfulness_delta`, of `run_scores`.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    ways = own_ways(runs)
    panels = [(axis, *way) for way in ways for axis in ("safety", "helpfulness")]
    models, betas = model_styles(runs["model"]), levels(runs["beta"])
    order = recipe_order(runs["recipe"])
    markers = recipe_markers(order)
    rows = runs.assign(
        place=[order[recipe] for recipe in runs["recipe"]], beta_name=[beta_name(b) for b in runs["beta"]]
    )
    keys = sorted(set(zip(rows["model"], rows["place"], rows["recipe"], rows["beta_name"], strict=True)))
    gaps = {model: place for place, model in enumerate(dict.fromkeys(model for model, *_ in keys))}
    places = {(model, recipe, beta): place + 0.8 * gaps[model] for place, (model, _, recipe, beta) in enumerate(keys)}
    several = len(betas) > 1
    labels = [f"{Recipe(recipe).label}{f', {beta}' if several else ''}" for _, _, recipe, beta in keys]
    with look():
        drawn = frame(
            [
                textwrap.fill(
                    f"Δ {axis}, scored by {scoring_title(judging, judge)}",
                    letters_in(TEXT_WIDTH / len(panels) - 0.3, 8),
                )
                for axis, judging, judge in panels
            ],
            title=title,
            toy=toy,
            height=0.115 * (max(places.values()) + 1.5),
            groups=[
                model_group(models),
                recipe_group(list(rows["recipe"])),
                beta_group(betas),
                Group("", [_seed_mark()]),
            ],
            width=TEXT_WIDTH,
            reserved=max(text_width(label, 7) for label in labels),
            columns=len(panels),
        )
        for axes, (axis, judging, judge) in zip(drawn.panels, panels, strict=True):
            axes.axvline(0, **ZERO)
            own = rows[(rows["judging"] == judging) & (rows["judge"] == judge)]
            for names, group in own.groupby(["model", "recipe", "beta_name"]):
                model, recipe, beta = map(str, names)
                y, values = places[model, recipe, beta], group[f"{axis}_delta"].to_numpy(dtype=float)
                style = marker_style(models[model], betas[beta], len(betas), 4)
                axes.plot(values, [y] * len(values), "|", color=models[model].colour, markersize=5, markeredgewidth=0.8)
                axes.plot([values.min(), values.max()], [y, y], color=models[model].colour, linewidth=0.6)
                axes.plot(values.mean(), y, markers[recipe], zorder=3, **style)
            axes.set_ylim(max(places.values()) + 0.8, -0.8)
            axes.set_yticks([places[model, recipe, beta] for model, _, recipe, beta in keys], labels)
            axes.tick_params(axis="y", length=0, labelsize=6)
            axes.locator_params(axis="x", nbins=4)
    return drawn.figure


def _seed_mark() -> Line2D:
    return Line2D(
        [], [], color=PLAIN.colour, marker="|", markersize=5, linewidth=0.6, label="seeds; marker: their mean"
    )
