"""What the page's charts share: their data, their colours, and the choice of who scored."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import altair as alt
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.palette import MODEL_COLOURS
from dagster_project.report.values import missing, recipe_order, scorings
from dagster_project.report.wording import scoring_title
from toolemu.terminal import printable

Spec = dict[str, Any]
Records = list[dict[str, Any]]
Panels = alt.LayerChart | alt.FacetChart | alt.VConcatChart
AVERAGE = "average"
ALL = "all"
"""In filters: no choice."""
EACH = "each"
"""In the filter of who scored: every judge, side by side."""
ROWS = "rows"
"""The name of a chart's data, of which the page makes a CSV file."""
SCORED = "(scoring == 'each' ? datum.alone : datum.scoring == scoring)"
"""Vega's filter of the rows that are shown; `scored_rows` makes the columns."""
SHAPES = {"S": "square", "H": "triangle-up", "S&H": "circle", "S→H": "diamond", "H→S": "triangle-down"}
OTHER_SHAPES = ("cross", "wedge", "triangle-left", "triangle-right", "stroke", "arrow")
"""Of recipes that are not the paper's: they repeat after so many."""
GREY = "#808080"
"""Of averages over models: its contrast is 3:1 and more on white and on the page's dark."""


def scoring_of(judging: object, judge: object) -> str:
    """Return the value in the filter of who scored."""
    return f"{judging}/{AVERAGE if missing(judge) else printable(str(judge))}"


def scored_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with columns `scoring`, `panel` (who scored, in words) and `alone` (shown side by side)."""
    alone = set(scorings(table)) if len(table) else set()
    ways = [
        (str(judging), None if missing(judge) else str(judge))
        for judging, judge in zip(table["judging"], table["judge"], strict=True)
    ]
    return table.assign(
        scoring=[scoring_of(*way) for way in ways],
        panel=[scoring_title(*way) for way in ways],
        alone=[way in alone for way in ways],
    )


def panels_of(rows: pd.DataFrame) -> list[str]:
    """Return the titles of panels in order: every judge's own first, then averages."""
    order = {"match": 0, "cross": 1, "all": 2}
    shown = rows[["judging", "judge", "panel"]].drop_duplicates("panel").to_dict("records")
    shown.sort(key=lambda row: (missing(row["judge"]), order[str(row["judging"])], str(row["judge"])))
    return [str(row["panel"]) for row in shown]


def by_judge(chart: alt.LayerChart | alt.FacetChart, rows: pd.DataFrame, *, width: int, columns: int) -> alt.FacetChart:
    """Return the chart with a panel for everyone who scored and is chosen."""
    header = alt.Header(labelLimit=width + 40, labelFontSize=13, labelFontWeight=600)
    facet = alt.Facet("panel:N", title=None, sort=panels_of(rows), header=header)
    return only_chosen(chart.facet(facet, columns=columns))


def only_chosen(chart: alt.FacetChart) -> alt.FacetChart:
    """Return the chart without the rows, and so the panels, of who is not chosen."""
    chart.transform = [alt.FilterTransform(SCORED)]  # before there are panels: in them it would leave empty ones
    made: alt.FacetChart = chart.add_params(alt.param(name="scoring", value=EACH))
    return made


def in_rows() -> alt.Row:
    """Return panels one below the other, for everyone who scored."""
    header = alt.Header(labelFontSize=12, labelLimit=600, labelOrient="top", labelAnchor="start", labelAngle=0)
    return alt.Row("panel:N", title=None, header=header)


def panel_width(rows: pd.DataFrame, *, whole: int) -> tuple[int, int]:
    """Return the width of a panel in pixels, and how many stand in a row, for the judges side by side."""
    n = max(1, int(rows.loc[rows["alone"], "panel"].nunique()))
    return (whole, 1) if n == 1 else (int(whole / 2) - 20, 2)


def route(*parts: object) -> str:
    """Return the address of one of the page's views."""
    return "#/" + "/".join(quote(str(part), safe="") for part in parts)


def named(records: Iterable[Mapping[Any, Any]]) -> alt.InlineData:
    """Return a chart's data, under the name by which the page finds it."""
    return alt.InlineData(values=list(records), name=ROWS)


def data(records: Iterable[Mapping[Any, Any]]) -> alt.InlineData:
    """Return what a layer needs beside the chart's data."""
    return alt.InlineData(values=list(records))


def records(table: pd.DataFrame) -> Records:
    """Return the rows with null for what is missing: NaN is no JSON."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def printable_spec(value: Any) -> Any:
    """Return a specification of printable texts: Vega's parser stops at others, and the converter to SVG aborts."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {name: printable_spec(part) for name, part in value.items()}
    return [printable_spec(part) for part in value] if isinstance(value, list) else value


def labels_of(recipes: Iterable[object]) -> list[str]:
    """Return what the recipes are called, in order."""
    return [Recipe(recipe).label for recipe in recipe_order(recipes)]


def shapes_of(labels: Iterable[str]) -> list[str]:
    """Return a marker for each recipe's label, those of the paper always with their own."""
    others = itertools.cycle(OTHER_SHAPES)
    return [SHAPES.get(label) or next(others) for label in labels]


def model_scale(models: Sequence[str]) -> alt.Scale:
    """Return the colours of source models; averages over them are grey."""
    names = [model for model in models if model != AVERAGE]
    colours = [MODEL_COLOURS[place % len(MODEL_COLOURS)] for place in range(len(names))]
    return alt.Scale(domain=[*names, *models[len(names) :]], range=[*colours, *[GREY] * (len(models) - len(names))])


def beta_scale(betas: Sequence[str]) -> alt.Scale:
    """Return how far a marker is filled: wholly for the first β, not at all for the last."""
    steps = max(1, len(betas) - 1)
    return alt.Scale(domain=list(betas), range=[1 - place / steps for place in range(len(betas))] if betas else [1])
