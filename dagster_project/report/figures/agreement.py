"""Where two judges agree: confusion matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from dagster_project.report.figures.frame import LINE, heading_height, headings, write_heading
from dagster_project.report.style import COLUMN_WIDTH, TEXT_WIDTH, freeze, look
from dagster_project.report.values import WHOSE, missing, most_telling, number
from dagster_project.report.wording import METRIC_TITLES

SCORES = (0, 1, 2, 3)
COLUMNS = 4
SHARE = "share of trajectories {}, in %"


def agreement_figure(confusion: pd.DataFrame, agreement: pd.DataFrame, title: str, *, toy: bool) -> Figure:
    """Draws how often each pair of scores was given: a matrix for every metric and pair of judges.

    Args:
        confusion: `judge_confusion`.
        agreement: `judge_agreement`: kappa and alpha stand above the matrix. May be empty.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    whose = most_telling(confusion)
    if whose is not None:
        confusion = confusion[confusion["whose"] == whose]
        agreement = agreement[agreement["whose"] == whose] if len(agreement) else agreement
    keys = confusion[["metric", "judge_a", "judge_b"]].drop_duplicates().sort_values(["judge_a", "judge_b", "metric"])
    columns = max(2, min(COLUMNS, len(keys)))
    rows = -(-len(keys) // columns)
    width = COLUMN_WIDTH if columns == 2 else TEXT_WIDTH
    side = width / columns - 0.45
    heading = headings(title, SHARE.format(WHOSE.get(str(whose), "that both scored")), width, toy=toy)
    with look():
        height = rows * (side + 0.4 + 3 * LINE) + heading_height(heading)
        figure = Figure(figsize=(width, height), layout="constrained")
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(rect=(0, 0, 1, 1 - heading_height(heading) / height))
        write_heading(figure, heading)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        cells = {key: _shares(group) for key, group in confusion.groupby(["metric", "judge_a", "judge_b"])}
        top = max(float(shares.max()) for shares in cells.values())
        for axes, key in zip(panels, keys.itertuples(index=False, name=None), strict=False):
            _matrix(axes, cells[key], top)
            metric, judge_a, judge_b = map(str, key)
            axes.set_title(
                "\n".join([METRIC_TITLES.get(metric, metric), _statistics(agreement, metric, judge_a, judge_b)])
            )
            axes.set(xlabel=judge_b, ylabel=judge_a)
        for axes in panels[len(keys) :]:
            axes.set_axis_off()
        freeze(figure, square=list(panels))
    return figure


def _shares(confusion: pd.DataFrame) -> npt.NDArray[np.float64]:
    counts = np.zeros((len(SCORES), len(SCORES)))
    cells = confusion[["score_a", "score_b"]].to_numpy(dtype=int)
    np.add.at(counts, (cells[:, 0], cells[:, 1]), confusion["n"].to_numpy(dtype=float))
    return np.asarray(counts / max(float(counts.sum()), 1.0), dtype=np.float64)


def _statistics(agreement: pd.DataFrame, metric: str, judge_a: str, judge_b: str) -> str:
    if agreement.empty:
        return ""
    rows = agreement[
        (agreement["metric"] == metric) & (agreement["judge_a"] == judge_a) & (agreement["judge_b"] == judge_b)
    ]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    parts = [
        f"{sign} = {number(row[name])}"
        for sign, name in (("κ", "weighted_kappa"), ("α", "alpha"))
        if name in rows.columns and not missing(row[name])
    ]
    return ", ".join([*parts]) + f"\nn = {row['n']:,.0f}"


def _matrix(axes: Axes, shares: npt.NDArray[np.float64], top: float) -> None:
    # pcolormesh, not imshow: cells stay vector graphics.
    axes.pcolormesh(
        np.arange(5) - 0.5,
        np.arange(5) - 0.5,
        shares,
        cmap="Purples",
        vmin=0,
        vmax=top,
        edgecolor="white",
        linewidth=0.5,
    )
    for a in SCORES:
        for b in SCORES:
            colour = "white" if shares[a, b] > 0.6 * top else "black"
            axes.text(b, a, f"{100 * shares[a, b]:.1f}", ha="center", va="center", fontsize=6.5, color=colour)
    axes.set(xticks=SCORES, yticks=SCORES)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
