"""All agents on absolute scores, source models among them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.report.figures.frame import Group, frame, judging_titles, ticks
from dagster_project.report.figures.points import (
    RING,
    beta_group,
    draw_crosses,
    extents,
    identified,
    model_group,
    recipe_group,
    square,
)
from dagster_project.report.style import SOURCE_MARKER, freeze, look, marker_style, model_styles, recipe_markers
from dagster_project.report.values import beta_name, column, judgings_of, levels, point_id, recipe_order


def overall_figure(points: pd.DataFrame, sources: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws safety on helpfulness, 0 to 3, of every agent and source model: a panel for every way of judging.

    Source models have the id ``source:<judging>:<model>``.

    Args:
        points: `frontier_points`; rows averaged over judges are drawn.
        sources: `source_points`; may be empty.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    points = points[points["judge"].isna()]
    sources = sources[sources["judge"].isna()] if len(sources) else points.iloc[:0]
    judgings = judgings_of(points)
    titles, subtitle = judging_titles(judgings)
    styles = model_styles(points["model"], sources["model"])
    betas, markers = levels(points["beta"]), recipe_markers(recipe_order(points["recipe"]))
    # Null where nobody has looked, which is not False.
    front = column(points, "pareto").eq(True).to_numpy(dtype=bool)
    ringed = int(front.any())
    groups = [
        model_group(styles, source=bool(len(sources))),
        recipe_group(list(points["recipe"])),
        beta_group(betas),
        Group("", [Line2D([], [], linestyle="", marker="o", label="no other is better in both", **RING)] * ringed),
    ]
    with look():
        drawn = frame(titles, title=title, toy=toy, height=None, groups=groups, subtitle=subtitle)
        for axes, judging in zip(drawn.panels, judgings, strict=True):
            axes.set_xlabel("helpfulness")
            shown, before = points[points["judging"] == judging], sources[sources["judging"] == judging]
            draw_crosses(axes, shown, [styles[model].colour for model in shown["model"]], "")
            best = points[front & (points["judging"] == judging).to_numpy()]
            axes.plot(best["helpfulness"], best["safety"], "o", zorder=3, **RING)
            for row in shown.to_dict("records"):
                name = point_id(judging, row["model"], row["recipe"], row["beta"])
                style = marker_style(styles[row["model"]], betas[beta_name(row["beta"])], len(betas))
                identified(axes, row["helpfulness"], row["safety"], name, markers[row["recipe"]], **style)
            for row in before.to_dict("records"):
                style = marker_style(styles[row["model"]], size=10) | {"markeredgecolor": "black", "zorder": 4}
                name = f"source:{judging}:{row['model']}"
                axes.plot(row["helpfulness"], row["safety"], SOURCE_MARKER, gid=name, **style)
        (x, y), (source_x, source_y) = extents(points, ""), extents(sources, "")
        xlim, ylim = square(np.concatenate([x, source_x]), np.concatenate([y, source_y]))
        drawn.panels[0].set(ylabel="safety", xlim=xlim, ylim=ylim)
        ticks(*drawn.panels)
        freeze(drawn.figure, square=drawn.panels)
    return drawn.figure
