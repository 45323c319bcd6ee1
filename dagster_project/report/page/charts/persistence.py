"""How much of the first training's gain is left after the second."""

from __future__ import annotations

import altair as alt
import pandas as pd

from dagster_project.report.cases import SECOND_TRAININGS
from dagster_project.report.page.charts.common import (
    ALL,
    AVERAGE,
    GREY,
    Panels,
    by_judge,
    model_scale,
    named,
    panel_width,
    records,
    route,
    scored_rows,
)
from dagster_project.report.values import beta_name, missing, printable

GAINS = {"safe": "safety, through helpfulness training", "help": "helpfulness, through safety training"}

TRAININGS = {
    transition.metric: (transition.first.label, transition.second.label, transition.metric)
    for transition in SECOND_TRAININGS
}


def persistence_chart(table: pd.DataFrame) -> Panels | None:
    """Return the shares of the first training's gain that are left, by β and model, averages first, a panel a judge."""
    if table.empty:
        return None
    rows = scored_rows(table)
    rows = rows.assign(
        model=[AVERAGE if missing(model) else str(model) for model in rows["model"]],
        beta=[beta_name(beta) for beta in rows["beta"]],
        key=rows["metric"],
        metric=rows["metric"].map(GAINS),
    )
    names = [ALL if model == AVERAGE else printable(model) for model in rows["model"]]
    rows["link"] = [
        route("changed", name, beta, *TRAININGS[metric])
        for name, beta, metric in zip(names, rows["beta"], rows["key"], strict=True)
    ]
    rows["row"] = rows["model"].replace(AVERAGE, "average of models") + ", β " + rows["beta"]
    order = list(dict.fromkeys(rows.sort_values(["beta", "model"], key=_averages_first)["row"]))
    models = [*sorted(set(rows["model"]) - {AVERAGE}), AVERAGE]
    kinds = list(GAINS.values())
    base = alt.Chart()
    limits = alt.Scale(domain=[-1, 2], clamp=True)
    y = alt.Y("row:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    offset = alt.YOffset("metric:N", sort=kinds)
    colour = alt.Color("model:N", scale=model_scale(models), legend=None)
    shape = alt.Shape(
        "metric:N", title="gain of", scale=alt.Scale(domain=kinds, range=["square", "triangle-up"]),
        legend=alt.Legend(orient="top", labelLimit=320, symbolFillColor=GREY, symbolStrokeColor=GREY),
    )  # fmt: skip
    shown = [
        alt.Tooltip("row:N", title="of"),
        alt.Tooltip("metric:N"),
        alt.Tooltip("panel:N", title="scored by"),
        *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("estimate", "low", "high")),
    ]
    layers = [
        base.mark_rule(strokeDash=[3, 3], color=GREY).encode(x=alt.datum(0)),
        base.mark_rule(strokeDash=[3, 3], color=GREY).encode(x=alt.datum(1)),
        base.mark_rule(strokeWidth=2, clip=True).encode(
            x=alt.X("low:Q", scale=limits), x2="high:Q", y=y, yOffset=offset, color=colour
        ),
        base.mark_point(filled=True, size=70, opacity=1, cursor="pointer").encode(
            x=alt.X("estimate:Q", title="share kept (cut off at −1 and 2)", scale=limits),
            y=y, yOffset=offset, color=colour, shape=shape, tooltip=shown,
        ),
    ]  # fmt: skip
    width, columns = panel_width(rows, whole=800)
    layered = alt.layer(*layers, data=named(records(rows))).properties(width=width - 60, height=alt.Step(13))
    described = "Share of the first training's gain that survives the second, for safety and helpfulness."
    return by_judge(layered, rows, width=width, columns=columns).properties(description=described)


def _averages_first(values: pd.Series) -> pd.Series:
    return values.replace(AVERAGE, "")
