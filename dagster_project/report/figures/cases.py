"""What a second training changed, case by case: slopes from the scores before it to those after it."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dagster_project.report.cases import Transition, slopes
from dagster_project.report.figures.frame import Group, frame, letters_in
from dagster_project.report.style import GREY, TEXT_WIDTH, ModelStyle, look, model_styles
from dagster_project.report.values import between, number, own_ways, scored
from dagster_project.report.wording import scoring_title

WIDEST = 4.0
"""Of a line, in points (1/72 inch)."""
METRICS = {"safe": "safety", "help": "helpfulness"}


def cases_figure(
    pairs: pd.DataFrame, changes: pd.DataFrame, transition: Transition, title: str, *, toy: bool
) -> Figure:
    """Draw slopes from the score before a second training to the score after it, a panel for every model and judge.

    A line's width is the number of cases; the black line joins the means, which stand below the panel's title with the
    difference and its interval. Judges that scored agents trained on their own verdicts are drawn on those alone.

    Args:
        pairs: Of `paired_cases`, of the transition's metric.
        changes: `changes`; its rows over one model by one judge are averaged over betas where there are several.
        transition: What is drawn.
        title: The figure's title.
        toy: Says on the figure that this is a toy world.
    """
    ways, models = own_ways(pairs), sorted(set(pairs["model"]))
    styles, counts = model_styles(models), slopes(pairs)
    panels = [(judging, judge, model) for judging, judge in ways for model in models]
    most = float(counts["cases"].max())
    before, after = transition.first.label, transition.second.label
    lines = [
        Line2D([], [], color=GREY, linewidth=WIDEST * share, label=f"{share * most:.0f} cases") for share in (1, 0.25)
    ]
    mean = Line2D([], [], color="black", marker="o", markersize=3, linewidth=1.2, label="mean of all cases")
    columns = min(4, len(models))
    width = (TEXT_WIDTH - 0.5) / columns - 0.1
    with look():
        drawn = frame(
            [_heading(panel, _of(changes, panel, transition), width) for panel in panels],
            title=title,
            toy=toy,
            height=1.5,
            groups=[Group("", [*lines, mean])],
            width=TEXT_WIDTH,
            subtitle=f"{METRICS[transition.metric]} of held-out cases, averaged over β and seeds, "
            f"before ({before}) and after ({after}) the second training",
            columns=columns,
        )
        for axes, (judging, judge, model) in zip(drawn.panels, panels, strict=True):
            rows = scored(counts, judging, judge)
            _panel(axes, rows[rows["model"] == model], styles[model], most)
            own = scored(pairs, judging, judge)
            means = own[own["model"] == model][["before", "after"]].mean()
            axes.plot([0, 1], means, color="black", marker="o", markersize=3, linewidth=1.2, zorder=4)
            axes.set_xticks([0, 1], [before, after])
            axes.set(xlim=(-0.15, 1.15), ylim=(-0.15, 3.15))
            axes.set_yticks([0, 1, 2, 3])
        for axes in drawn.panels[::columns]:
            axes.set_ylabel("score")
    return drawn.figure


def _of(changes: pd.DataFrame, panel: tuple[str, str | None, str], transition: Transition) -> pd.DataFrame:
    judging, judge, model = panel
    rows = scored(changes, judging, judge)
    rows = rows[(rows["model"] == model) & (rows["metric"] == transition.metric)]
    return rows[(rows["first"] == transition.first.value) & (rows["second"] == transition.second.value)]


def _heading(panel: tuple[str, str | None, str], rows: pd.DataFrame, width: float) -> str:
    judging, judge, model = panel
    letters = letters_in(width, 8)
    lines = textwrap.wrap(model, letters) + textwrap.wrap(scoring_title(judging, judge), letters)
    for row in rows.to_dict("records"):
        beta = f"β {row['beta']:g}: " if len(rows) > 1 else ""
        lines.append(f"{beta}{number(row['change'])}{between(row['low'], row['high'])}")
    return "\n".join(lines)


def _panel(axes: Axes, rows: pd.DataFrame, style: ModelStyle, most: float) -> None:
    for row in rows.to_dict("records"):
        axes.plot(
            [0, 1], [row["before"], row["after"]], color=style.colour, alpha=0.55, solid_capstyle="butt",
            linewidth=max(0.3, WIDEST * row["cases"] / most),
        )  # fmt: skip
