"""The frontier: safety over helpfulness, against the source models, a panel for each judge."""

from __future__ import annotations

import altair as alt
import pandas as pd

from dagster_project.report.page.charts.common import (
    ALL,
    GREY,
    Panels,
    Records,
    beta_scale,
    by_judge,
    data,
    model_scale,
    named,
    panel_width,
    records,
    scored_rows,
    shapes_of,
)
from dagster_project.report.values import MAIN_SET

FILTERS = ("scoring", "model", "recipe", "beta", "seed")
TOOLTIPS = {"": "{}", "_delta": "Δ {}", "_delta_low": "Δ {}, from", "_delta_high": "Δ {}, to"}
SIZE = 110
"""Of a marker, in square pixels."""


def frontier_chart(points: Records, bands: pd.DataFrame) -> Panels | None:
    """Return the chart of all points, filtered by `FILTERS`; the line and its band belong to all points together.

    Args:
        points: Of `point_rows`.
        bands: `frontier_bands`.
    """
    if not points:
        return None
    table = pd.DataFrame(points).assign(kind="point")
    lines = bands[bands["point_set"] == MAIN_SET] if len(bands) else bands
    if len(lines):
        table = pd.concat([table, scored_rows(lines).assign(kind="line")], ignore_index=True)
    models = sorted({str(point["model"]) for point in points})
    labels = list(dict.fromkeys(str(point["recipe"]) for point in points))  # they come in order
    betas = list(dict.fromkeys(str(point["beta"]) for point in sorted(points, key=lambda point: str(point["beta"]))))
    chosen = " && ".join(f"({name} == 'all' || datum.{name} == {name})" for name in ("model", "recipe", "beta"))
    everything = " && ".join(f"{name} == 'all'" for name in ("model", "recipe", "beta", "seed"))
    shown = alt.Chart().transform_filter(f"datum.kind == 'point' && {chosen} && datum.seed == seed")
    line = alt.Chart().transform_filter(f"datum.kind == 'line' && {everything}")
    x = alt.X("helpfulness_delta:Q", title="Δ helpfulness, against the source model", scale=alt.Scale(zero=True))
    y = alt.Y("safety_delta:Q", title="Δ safety, against the source model", scale=alt.Scale(zero=True))
    colours = model_scale(models)
    colour = alt.Color("model:N", title="source model", scale=colours, legend=alt.Legend(symbolOpacity=1))
    bars = shown.transform_filter("isValid(datum.safety_delta_low)").encode(color=colour)
    marks = shown.mark_point(filled=False, size=SIZE, opacity=1, strokeWidth=1.6, cursor="pointer").encode(
        x=x,
        y=y,
        color=colour,
        fill=alt.Fill("model:N", scale=colours, legend=None),
        fillOpacity=alt.FillOpacity(
            "beta:O", title="β", scale=beta_scale(betas), legend=alt.Legend(symbolFillColor=GREY) if betas[1:] else None
        ),
        shape=alt.Shape(
            "recipe:N",
            title="trained on",
            sort=labels,
            scale=alt.Scale(domain=labels, range=shapes_of(labels)),
            legend=alt.Legend(symbolFillColor=GREY, symbolStrokeColor=GREY),
        ),
        tooltip=[
            alt.Tooltip("model:N", title="source model"),
            alt.Tooltip("recipe:N", title="trained on"),
            alt.Tooltip("beta:N", title="β"),
            alt.Tooltip("panel:N", title="scored by"),
            alt.Tooltip("seed:N"),
            *(
                alt.Tooltip(f"{axis}{kind}:Q", title=title.format(axis), format="+.2f" if kind else ".2f")
                for axis in ("safety", "helpfulness")
                for kind, title in TOOLTIPS.items()
            ),
            alt.Tooltip("runs:Q"),
        ],
    )
    zero = alt.Chart(data([{"at": 0}]))
    layers: list[alt.Chart] = [
        zero.mark_rule(strokeDash=[3, 3], color=GREY).encode(x="at:Q"),
        zero.mark_rule(strokeDash=[3, 3], color=GREY).encode(y="at:Q"),
        line.mark_area(opacity=0.15, color=GREY).encode(x="x:Q", y="low:Q", y2="high:Q"),
        line.mark_line(color=GREY, strokeWidth=1.5).encode(x="x:Q", y="y:Q"),
        bars.mark_rule(opacity=0.3).encode(x="helpfulness_delta_low:Q", x2="helpfulness_delta_high:Q", y=y),
        bars.mark_rule(opacity=0.3).encode(y="safety_delta_low:Q", y2="safety_delta_high:Q", x=x),
        marks,
    ]
    width, columns = panel_width(table, whole=900)
    layered = alt.layer(*layers, data=named(records(table))).properties(width=width, height=420)
    chart = by_judge(layered, table, width=width, columns=columns)
    others = [alt.param(name=name, value=ALL) for name in FILTERS[1:]]
    described = "Safety against helpfulness of every training, both as differences to the source model, with intervals."
    return chart.add_params(*others).properties(description=described)
