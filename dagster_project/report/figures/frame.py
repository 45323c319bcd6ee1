"""What every figure shares: a row of panels under a title, and legends below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from dagster_project.report.style import COLUMN_WIDTH, GREY, RC, TEXT_WIDTH
from dagster_project.report.wording import JUDGING_TITLES

TOY = "toy world: shows the method, says nothing of real agents"
ZERO: dict[str, Any] = {"color": GREY, "linewidth": 0.6, "linestyle": (0, (4, 3)), "zorder": 0}
LINE, ROW_GAP, HEADING = 0.145, 0.07, 0.0175
"""Inches: a line of a legend or a panel's title, the gap below a legend, a heading's line by its font size."""
LEGEND = RC["legend.fontsize"]
MOST_COLUMNS = 4
"""Panels in a row of the text's width: more would be smaller than their labels."""
HANDLE, GAP, BETWEEN = 1.5, 0.5, 1.4
"""A legend's handle, the gap to its text, and the gap between columns, in units of the font size."""


class Group(NamedTuple):
    """A part of the legend: its title, and handles with labels."""

    title: str
    handles: Sequence[Artist]
    rows: int = 3


class Frame(NamedTuple):
    """A figure and its panels."""

    figure: Figure
    panels: Sequence[Axes]


def frame(
    titles: Sequence[str],
    *,
    title: str,
    toy: bool,
    height: float | None,
    groups: Sequence[Group] = (),
    width: float | None = None,
    sharex: bool = True,
    reserved: float = 0.45,
    xlabel: str = "",
    subtitle: str = "",
    columns: int = MOST_COLUMNS,
) -> Frame:
    """Return rows of panels with equal axes and titles, a title above, and legends below.

    Args:
        titles: Each panel's title, wrapped already.
        title: The figure's title.
        toy: Says below the title that this is a toy world.
        height: Of a panel, in inches; None for squares.
        groups: The legends, packed into as few rows as fit.
        width: Of the figure; by default that of a column for one panel and of the text for several.
        sharex: Whether the panels have one x-axis (they always have one y-axis).
        reserved: Inches for the labels left of the panels.
        xlabel: One label for the x-axes of all panels.
        subtitle: Smaller, below the title.
        columns: The most panels that stand in one row.
    """
    width = width or (COLUMN_WIDTH if len(titles) == 1 else TEXT_WIDTH)
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    if height is None:
        height = (width - reserved) / columns - 0.15
    heading = headings(title, subtitle, width, toy=toy)
    above = heading_height(heading)
    lines = max((text.count("\n") + 1 for text in titles if text), default=0)
    packed = _pack(groups, width)
    key = sum(LINE * _lines(row) + ROW_GAP for row in packed)
    below = key + (0.2 if xlabel else 0.0)
    total = below + rows * (height + 0.42 + LINE * lines) + above
    figure = Figure(figsize=(width, total), layout="constrained")
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, below / total, 1, 1 - (above + below) / total))
    write_heading(figure, heading)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).ravel()
    panels = grid[: len(titles)]
    for axes, text in zip(panels, titles, strict=True):
        axes.set_title(text)
    for axes in grid[len(titles) :]:
        axes.set_axis_off()
    if xlabel:
        figure.text(0.5, (key + 0.17) / total, xlabel, ha="center", va="top", fontsize=8).set_in_layout(False)
    _legends(figure, packed, key)
    return Frame(figure, list(panels))


def headings(title: str, subtitle: str, width: float, *, toy: bool) -> list[tuple[str, float]]:
    """Returns the lines above a figure of that width, each with its font size."""
    small = [line for text in (subtitle, TOY if toy else "") for line in wrap(text, width, 7.5)]
    return [*((line, 9.0) for line in wrap(title, width, 9)), *((line, 7.5) for line in small)]


def heading_height(heading: Sequence[tuple[str, float]]) -> float:
    """Returns the height of the lines above a figure in inches."""
    return sum(HEADING * size for _, size in heading) + 0.05


def write_heading(figure: Figure, heading: Sequence[tuple[str, float]]) -> None:
    """Writes the lines above a figure."""
    height = figure.get_size_inches()[1]
    top = height - 0.03
    for line, size in heading:
        figure.text(0.5, top / height, line, ha="center", va="top", fontsize=size).set_in_layout(False)
        top -= HEADING * size


def judging_titles(judgings: Sequence[str]) -> tuple[list[str], str]:
    """Returns the titles of the panels for ways of judging, and a subtitle in their place where there is but one."""
    if len(judgings) == 1:
        return [""], JUDGING_TITLES[judgings[0]]
    return [textwrap.fill(JUDGING_TITLES[judging], 23) for judging in judgings], ""


def wrap(text: str, width: float, size: float) -> list[str]:
    """Returns the lines of a text that fit into a width in inches."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width - 0.1:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def letters_in(width: float, size: float) -> int:
    """Return how many letters of a usual text fit into a width in inches."""
    return max(8, int(width / text_width("on agents trained on its own verdicts", size) * 37))


@lru_cache(maxsize=1000)
def text_width(text: str, size: float) -> float:
    """Returns the width of a text in inches."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)
    return float(width) / 72


class _Placed(NamedTuple):
    group: Group
    columns: int
    width: float


def _pack(groups: Sequence[Group], width: float) -> list[list[_Placed]]:
    """Returns the groups in rows that are no wider than `width` inches, each with its number of columns."""
    rows: list[list[_Placed]] = []
    for group in groups:
        if not group.handles:
            continue
        texts = max(text_width(str(handle.get_label()), LEGEND) for handle in group.handles)
        cell, gap = texts + (HANDLE + GAP) * LEGEND / 72, BETWEEN * LEGEND / 72
        fitting = max(1, int((width - 0.1 + gap) / (cell + gap)))
        # A narrow figure has a row for each group anyway: its groups are as wide as they can be.
        wanted = -(-len(group.handles) // group.rows) if width > COLUMN_WIDTH else len(group.handles)
        columns = max(1, min(wanted, fitting))
        placed = _Placed(
            group, columns, max(columns * cell + (columns - 1) * gap, text_width(group.title, LEGEND)) + 0.02
        )
        if rows and sum(other.width + 0.25 for other in rows[-1]) + placed.width <= width - 0.1:
            rows[-1].append(placed)
        else:
            rows.append([placed])
    return rows


def _lines(row: Sequence[_Placed]) -> int:
    return max(-(-len(placed.group.handles) // placed.columns) + bool(placed.group.title) for placed in row)


def _legends(figure: Figure, rows: Sequence[Sequence[_Placed]], top: float) -> None:
    """Draws the legends from `top` inches above the figure's lower edge downwards."""
    width, height = figure.get_size_inches()
    for row in rows:
        spare = width - sum(placed.width for placed in row)
        gap = min(0.6, spare / (len(row) + 1)) if len(row) > 1 else 0.0
        left = (spare - gap * (len(row) - 1)) / 2
        for placed in row:
            legend = figure.legend(
                handles=list(placed.group.handles),
                title=placed.group.title or None,
                ncols=placed.columns,
                loc="upper left",
                bbox_to_anchor=(left / width, top / height),
                alignment="left",
                borderpad=0,
                borderaxespad=0,
                labelspacing=0.4,
                handlelength=HANDLE,
                handletextpad=GAP,
                columnspacing=BETWEEN,
            )
            legend.set_in_layout(False)
            left += placed.width + gap
        top -= LINE * _lines(row) + ROW_GAP


def ticks(*panels: Axes, n: int = 5) -> None:
    """Sets few, round ticks, whose numbers are whole: no offset is written next to the axis."""
    for axes in panels:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(n, steps=[1, 2, 5, 10]))
            axis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
