"""What the first training gained over the source model, and what is left after the second."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.cases import SECOND_TRAININGS
from dagster_project.report.page.charts.common import (
    ALL,
    AVERAGE,
    GREY,
    Panels,
    Records,
    beta_scale,
    model_scale,
    named,
    only_chosen,
    panels_of,
    records,
    route,
    scored_rows,
    shapes_of,
)
from dagster_project.report.runs import METRICS
from dagster_project.report.values import beta_name, kept_share, levels, missing
from dagster_project.results.persistence import SEQUENCES
from toolemu.terminal import printable

QUANTITIES = ("gain", "kept", "other")
"""In the order of `SEQUENCES`: after the first training, after both, after the other one alone."""
TRANSITIONS = {transition.metric: transition for transition in SECOND_TRAININGS}
WIDTH = 400
SHARE_ROOM = 0.4
"""Of what the marks take, as room on their right for the share in numbers."""
KEPT = ["gain", "kept", "other", "loss", "share", "paper_position"]


def persistence_rows(table: pd.DataFrame) -> Records:
    """Return the rows of `persistence` as the page's table shows them, averages over models first.

    `link` leads to the two trainings compared case by case.
    """
    if table.empty:
        return []
    rows = scored_rows(table).sort_values(["beta", "model"], na_position="first", kind="stable")
    rows["words"] = [kept_share(row) for row in rows.to_dict("records")]
    rows["model"] = [AVERAGE if missing(model) else printable(str(model)) for model in rows["model"]]
    rows["beta"] = [beta_name(beta) for beta in rows["beta"]]
    rows["link"] = [_address(*names) for names in rows[["model", "beta", "metric"]].itertuples(index=False)]
    numbers = [f"{name}{bound}" for name in KEPT for bound in ("", "_low", "_high")]
    columns = ["judging", "judge", "scoring", "panel", "alone", "model", "beta", "metric", "gain_verdict"]
    return records(rows[[*columns, *numbers, "cases", "words", "link"]])


def persistence_chart(table: pd.DataFrame) -> Panels | None:
    """Return the differences to the source model after the first training, after both, and after the other one alone.

    A panel for every metric and judge; the share of the gain that is left stands on the right, where there is a gain.
    """
    if table.empty:
        return None
    wide = pd.DataFrame(persistence_rows(table))
    parts = []
    for quantity, place in zip(QUANTITIES, range(3), strict=True):
        names = {f"{quantity}{bound}": f"value{bound}" for bound in ("", "_low", "_high")}
        kept = [name for name in wide if name not in [f"{other}{b}" for other in KEPT for b in ("", "_low", "_high")]]
        part = wide[[*kept, *names]].rename(columns=names)
        part["quantity"] = quantity
        part["recipe"] = [Recipe(SEQUENCES[metric][place]).label for metric in part["metric"]]
        parts.append(part)
    rows = pd.concat(parts, ignore_index=True)
    betas = list(levels(table["beta"]))
    rows["row"] = rows["model"].replace(AVERAGE, "average of models") + (", β " + rows["beta"] if betas[1:] else "")
    rows["what"] = rows["metric"].map(METRICS)
    labels = [Recipe(recipe).label for recipe in dict.fromkeys(r for found in SEQUENCES.values() for r in found)]
    models = [*sorted(set(rows["model"]) - {AVERAGE}), AVERAGE]
    colours = model_scale(models)
    low, high = _limits(rows)
    limits = alt.Scale(domain=[low, high], nice=False)
    most = (high + SHARE_ROOM * low) / (1 + SHARE_ROOM)  # to the right of it there are words alone
    axis = alt.Axis(values=[tick / 2 for tick in range(math.ceil(2 * low), math.floor(2 * most) + 1)], labelFlush=False)
    base = alt.Chart()
    y = alt.Y("row:N", sort=list(dict.fromkeys(rows["row"])), title=None, axis=alt.Axis(labelLimit=240))
    offset = alt.YOffset("quantity:N", sort=list(QUANTITIES))
    colour = alt.Color("model:N", scale=colours, legend=None)
    shown = [
        alt.Tooltip("row:N", title="of"),
        alt.Tooltip("recipe:N", title="trained on"),
        alt.Tooltip("panel:N", title="scored by"),
        *(alt.Tooltip(f"value{bound}:Q", title=title, format="+.3f") for bound, title in BOUNDS.items()),
        alt.Tooltip("words:N", title="share of the gain left"),
    ]
    layers = [
        base.mark_rule(strokeDash=[3, 3], color=GREY).encode(x=alt.datum(0)),
        base.mark_rule(strokeWidth=1.5, opacity=0.8).encode(
            x=alt.X("value_low:Q", scale=limits, axis=axis), x2="value_high:Q", y=y, yOffset=offset, color=colour
        ),
        base.mark_point(filled=False, size=50, opacity=1, strokeWidth=1.4, cursor="pointer").encode(
            x=alt.X("value:Q", title="points of score against the source model", scale=limits, axis=axis),
            y=y,
            yOffset=offset,
            color=colour,
            fill=alt.Fill("model:N", scale=colours, legend=None),
            fillOpacity=alt.FillOpacity("beta:O", scale=beta_scale(betas), legend=None),
            shape=alt.Shape(
                "recipe:N",
                title="trained on",
                sort=labels,
                scale=alt.Scale(domain=labels, range=shapes_of(labels)),
                legend=alt.Legend(orient="top", symbolFillColor=GREY, symbolStrokeColor=GREY),
            ),
            tooltip=shown,
        ),
        base.transform_filter("datum.quantity == 'kept'")
        .mark_text(align="right", fontSize=11)
        .encode(x=alt.value(WIDTH - 4), y=y, text="words:N", color=alt.value(GREY)),
    ]
    layered = alt.layer(*layers, data=named(records(rows))).properties(width=WIDTH, height=alt.Step(9))
    header = alt.Header(labelFontSize=12, labelLimit=WIDTH)
    chart = layered.facet(
        column=alt.Column("panel:N", title=None, sort=panels_of(rows), header=header),
        row=alt.Row("what:N", title=None, sort=list(METRICS.values()), header=header),
    )
    described = "Differences to the source model after the first training, after both, and after the other one alone."
    return only_chosen(chart).properties(description=described)


def _address(model: str, beta: str, metric: str) -> str:
    transition = TRANSITIONS[metric]
    who = ALL if model == AVERAGE else model
    return route("changed", who, beta, transition.first.label, transition.second.label, metric)


BOUNDS = {"": "difference", "_low": "from", "_high": "to"}


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    values = rows[["value", "value_low", "value_high"]].astype(float)
    low, high = min(0.0, float(values.min().min())), max(0.0, float(values.max().max()))
    return low - 0.03 * (high - low), high + SHARE_ROOM * (high - low)
