"""Scores themselves: how often each was given, case by case before and after a second training, and seed by seed."""

from __future__ import annotations

import altair as alt
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.cases import Transition, slopes
from dagster_project.report.page.charts.common import (
    GREY,
    Panels,
    beta_scale,
    in_rows,
    labels_of,
    model_scale,
    named,
    only_chosen,
    records,
    scored_rows,
    shapes_of,
)
from dagster_project.report.palette import SCORE_COLOURS
from dagster_project.report.runs import METRICS, SCORES
from dagster_project.report.values import beta_name, levels, missing, recipe_order


def distributions_chart(table: pd.DataFrame) -> Panels | None:
    """Return the shares of scores 0 to 3 by recipe, a panel for every metric and judge.

    Args:
        table: Of `distributions`.
    """
    if table.empty:
        return None
    rows = scored_rows(table)
    labels = ["source", *labels_of(rows["recipe"])]
    rows["label"] = ["source" if missing(recipe) else Recipe(recipe).label for recipe in rows["recipe"]]
    keys = ["judging", "judge", "scoring", "panel", "alone", "metric", "recipe", "label"]
    long = rows.melt(id_vars=keys, value_vars=list(SCORES), var_name="score", value_name="cases")
    long["score"] = long["score"].str.removeprefix("score_").astype(int)
    long["share"] = long["cases"] / long.groupby(["scoring", "metric", "label"])["cases"].transform("sum")
    long["what"] = long["metric"].map(METRICS)
    long = long[long["alone"]]
    bars = (
        alt.Chart(named(records(long)))
        .mark_bar(stroke="#80808080", strokeWidth=0.5)
        .encode(
            x=alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=4), scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("label:N", sort=labels, title=None),
            color=alt.Color(
                "score:O", title="score", scale=alt.Scale(range=list(SCORE_COLOURS)), legend=alt.Legend(orient="top")
            ),
            order=alt.Order("score:O"),
            tooltip=[
                alt.Tooltip("panel:N", title="scored by"),
                alt.Tooltip("what:N", title="metric"),
                alt.Tooltip("label:N", title="trained on"),
                alt.Tooltip("score:O"),
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("cases:Q", format=","),
            ],
        )
        .properties(width=410, height=alt.Step(20))
    )
    header = alt.Header(labelLimit=430, labelFontSize=12)
    described = "Shares of scores 0 to 3 for every training, by metric and judge."
    chart: Panels = bars.facet(
        column=alt.Column("panel:N", title=None, header=header),
        row=alt.Row("what:N", title=None, sort=list(METRICS.values()), header=alt.Header(labelFontSize=12)),
    )
    return chart.properties(description=described)


def cases_chart(pairs: pd.DataFrame, transition: Transition) -> Panels | None:
    """Return slopes from the scores before a second training to those after it, by model and judge.

    Args:
        pairs: Of `paired_cases`, of the transition's metric.
        transition: Which second training.
    """
    if pairs.empty:
        return None
    rows = scored_rows(slopes(pairs))
    rows = rows[rows["alone"]].drop(columns=["alone", "scoring"])
    rows["slope"] = range(len(rows))
    before, after = transition.first.label, transition.second.label
    long = rows.melt(id_vars=[name for name in rows if name not in ("before", "after")], value_name="score")
    long["trained"] = long["variable"].map({"before": before, "after": after})
    models = sorted(set(rows["model"]))
    lines = (
        alt.Chart(named(records(long)))
        .mark_line(opacity=0.8)
        .encode(
            x=alt.X("trained:N", sort=[before, after], title=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y(
                "score:Q",
                title=METRICS[transition.metric],
                scale=alt.Scale(domain=[0, 3]),
                axis=alt.Axis(values=[0, 1, 2, 3]),
            ),
            detail="slope:N",
            color=alt.Color("model:N", scale=model_scale(models), legend=None),
            strokeWidth=alt.StrokeWidth(
                "cases:Q", title="cases", scale=alt.Scale(domainMin=1, range=[0.5, 8]), legend=alt.Legend(orient="top")
            ),
            tooltip=[
                alt.Tooltip("panel:N", title="scored by"),
                alt.Tooltip("model:N"),
                alt.Tooltip("trained:N", title="trained on"),
                alt.Tooltip("score:Q", format=".2f"),
                alt.Tooltip("cases:Q"),
            ],
        )
        .properties(width=min(300, 900 // len(models)), height=180)
    )
    header = alt.Header(labelFontSize=12, labelLimit=300)
    chart: Panels = lines.facet(
        column=alt.Column("model:N", title=None, header=header),
        row=in_rows(),
    )
    described = f"Scores of held-out cases by {before} and {after}, by model and judge."
    return chart.properties(description=described)


def seeds_chart(runs: pd.DataFrame) -> Panels | None:
    """Return every seed's difference to the source model on both axes, a row for every recipe.

    Args:
        runs: Of `run_scores`.
    """
    if runs.empty or runs["seed"].nunique() < 2:
        return None
    order = recipe_order(runs["recipe"])
    betas = list(levels(runs["beta"]))
    labels, models = labels_of(runs["recipe"]), sorted(set(runs["model"]))
    rows = scored_rows(runs).assign(beta=[beta_name(beta) for beta in runs["beta"]])
    rows["place"] = [order[recipe] for recipe in rows["recipe"]]
    rows = rows.sort_values(["model", "place", "beta"])
    rows["recipe"] = [Recipe(recipe).label for recipe in rows["recipe"]]
    rows["row"] = rows["model"] + ", " + rows["recipe"] + (", β " + rows["beta"] if len(betas) > 1 else "")
    keys = ["judging", "judge", "scoring", "panel", "alone", "model", "recipe", "beta", "row", "seed"]
    long = rows.melt(id_vars=keys, value_vars=["safety_delta", "helpfulness_delta"], value_name="delta")
    long["axis"] = long["variable"].map({"safety_delta": "Δ safety", "helpfulness_delta": "Δ helpfulness"})
    sort = list(dict.fromkeys(rows["row"]))
    base = alt.Chart()
    y = alt.Y("row:N", sort=sort, title=None, axis=alt.Axis(labelLimit=240))
    colours = model_scale(models)
    colour = alt.Color("model:N", scale=colours, legend=None)
    ticks = base.mark_tick(thickness=1.5, size=9).encode(
        x=alt.X("delta:Q", title=None),
        y=y,
        color=colour,
        tooltip=[alt.Tooltip("row:N", title="of"), alt.Tooltip("seed:N"), alt.Tooltip("delta:Q", format="+.2f")],
    )
    means = base.mark_point(filled=False, size=55, opacity=1, strokeWidth=1.4).encode(
        x="mean(delta):Q",
        y=y,
        color=colour,
        fill=alt.Fill("model:N", scale=colours, legend=None),
        fillOpacity=alt.FillOpacity("beta:O", scale=beta_scale(betas), legend=None),
        shape=alt.Shape("recipe:N", sort=labels, scale=alt.Scale(domain=labels, range=shapes_of(labels)), legend=None),
    )
    zero = base.mark_rule(strokeDash=[3, 3], color=GREY).encode(x=alt.datum(0))
    layered = alt.layer(zero, ticks, means, data=named(records(long))).properties(width=340, height=alt.Step(13))
    chart = layered.facet(
        column=alt.Column("axis:N", title=None, sort="descending"),
        row=in_rows(),
    )
    described = "Difference of every seed to the source model, in safety and helpfulness, and the seeds' mean."
    return only_chosen(chart).properties(description=described)
