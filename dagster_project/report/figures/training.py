"""Where trainings start: mean loss and accuracy of their first steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.experiment.agents import Recipe
from dagster_project.report.figures.frame import ZERO, Group, frame, ticks
from dagster_project.report.figures.labels import place_labels
from dagster_project.report.figures.points import OVER_MODELS, beta_group, recipe_group
from dagster_project.report.style import GREY, INK, look, marker_style, recipe_markers, tint
from dagster_project.report.values import START_STEPS, beta_name, levels, recipe_order

CHANCE_LOSS = float(np.log(2))
"""DPO's loss of a policy that is its own reference."""


def training_figure(starts: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws start accuracy on start loss: a pale marker for every training, a labelled one for each recipe's mean.

    Args:
        starts: What `training_starts` returns.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    betas, markers = levels(starts["beta"]), recipe_markers(recipe_order(starts["recipe"]))
    means = starts.groupby(["recipe", "beta"], dropna=False)[["loss", "reward_accuracy"]].mean().reset_index()
    pale = Line2D([], [], linestyle="", marker="o", markersize=2.5, color=tint(GREY, 0.5), label="one training")
    with look():
        drawn = frame(
            [""],
            subtitle=f"mean of the first {START_STEPS} steps of each recipe's last stage",
            title=title,
            toy=toy,
            height=2.3,
            groups=[recipe_group(list(starts["recipe"])), beta_group(betas), Group("", [pale])],
        )
        axes = drawn.panels[0]
        axes.axhline(0.5, **ZERO)
        axes.axvline(CHANCE_LOSS, **ZERO)
        for recipe, group in starts.groupby("recipe"):
            axes.plot(
                group["loss"], group["reward_accuracy"], markers[str(recipe)], markersize=2.5, color=tint(GREY, 0.5)
            )
        labels = []
        for row in means.to_dict("records"):
            style = marker_style(OVER_MODELS, betas[beta_name(row["beta"])], len(betas), 6)
            axes.plot(row["loss"], row["reward_accuracy"], markers[row["recipe"]], zorder=3, **style)
            labels.append(f"{Recipe(row['recipe']).label} {beta_name(row['beta'])}")
        axes.set(
            xlabel="loss at the start",
            ylabel="reward accuracy at the start",
            xlim=_limits([*starts["loss"], CHANCE_LOSS]),
            ylim=_limits([*starts["reward_accuracy"], 0.5]),
        )
        ticks(axes)
        x, y = list(means["loss"]), list(means["reward_accuracy"])
        place_labels(axes, labels, x, y, np.empty((0, 2)), colours=[INK] * len(labels))
    return drawn.figure


def _limits(values: list[float]) -> tuple[float, float]:
    """Returns limits with margins, not too close to each other."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = max(0.08 * (high - low), 0.05)
    return low - margin, high + margin
