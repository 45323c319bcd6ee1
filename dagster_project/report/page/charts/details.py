"""The second level's charts: the line through other points, judges against each other, audits, and training."""

from __future__ import annotations

import altair as alt
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.page.charts.common import (
    GREY,
    Panels,
    by_judge,
    labels_of,
    model_scale,
    named,
    panel_width,
    records,
    scored_rows,
)
from dagster_project.report.palette import SCORE_COLOURS
from dagster_project.report.values import missing, most_telling, set_title, with_agents
from dagster_project.report.wording import METRIC_TITLES

AUDITS = {
    "runaway": "ran on to a limit",
    "self_observed": "wrote results itself",
    "invented_only": "nothing but invented results",
    "without_tool_call": "no tool call",
    "best_of_both": "safe and helpful (2 or more)",
}
ROW = 20
"""Pixels of a row, shared by the models in it."""
CURVE_STEPS = 60
"""Steps of a training curve: more could not be told apart."""


def fits_chart(table: pd.DataFrame) -> Panels | None:
    """Return R² with its interval for every set of points that a line was drawn through, a panel a judge."""
    if table.empty:
        return None
    rows = scored_rows(table[table["point_set"] != "through_origin"])
    rows["row"] = [f"{set_title(name)} ({n:.0f})" for name, n in zip(rows["point_set"], rows["n"], strict=True)]
    base = alt.Chart()
    y = alt.Y("row:N", sort=list(dict.fromkeys(rows["row"])), title="points (number)", axis=alt.Axis(labelLimit=260))
    x = alt.X("r2:Q", title="R²", scale=alt.Scale(domain=[0, 1]))
    shown = [
        alt.Tooltip("row:N", title="points"),
        alt.Tooltip("panel:N", title="scored by"),
        *(
            alt.Tooltip(f"{name}:Q", format=".2f")
            for name in ("r2", "r2_low", "r2_high", "slope", "slope_low", "slope_high", "intercept")
        ),
    ]
    layers = [
        base.mark_rule(strokeWidth=2, color=GREY).encode(x="r2_low:Q", x2="r2_high:Q", y=y),
        base.mark_point(filled=True, size=70, opacity=1, color=GREY).encode(x=x, y=y, tooltip=shown),
    ]
    width, columns = panel_width(rows, whole=800)
    layered = alt.layer(*layers, data=named(records(rows))).properties(width=width - 80, height=alt.Step(20))
    described = "R² of the line through the points, with intervals, for every choice of points."
    return by_judge(layered, rows, width=width, columns=columns).properties(description=described)


def agreement_chart(table: pd.DataFrame) -> Panels | None:
    """Returns how often one judge gave which score where another gave which, a panel for each metric and two judges."""
    if table.empty:
        return None
    table = table[table["n"] > 0]
    table = table[table["whose"] == most_telling(table)]
    if table.empty:
        return None
    keys = ["whose", "metric", "judge_a", "judge_b"]
    pairs = pd.MultiIndex.from_product([range(4), range(4)], names=["score_a", "score_b"])
    counts = table.set_index([*keys, "score_a", "score_b"])["n"].unstack(["score_a", "score_b"]).reindex(columns=pairs)
    rows = counts.fillna(0).melt(ignore_index=False, value_name="n").reset_index()
    rows["panel"] = [
        f"{METRIC_TITLES.get(row['metric'], row['metric'])}|rows: {row['judge_a']}|columns: {row['judge_b']}"
        for row in rows.to_dict("records")
    ]
    rows["share"] = rows["n"] / rows.groupby("panel")["n"].transform("sum")
    most = float(rows["share"].max())
    base = alt.Chart().encode(
        x=alt.X("score_b:O", title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("score_a:O", title=None, sort="descending"),
    )
    shown = [
        alt.Tooltip("panel:N"),
        alt.Tooltip("score_a:O"),
        alt.Tooltip("score_b:O"),
        alt.Tooltip("n:Q", format=","),
        alt.Tooltip("share:Q", format=".1%"),
    ]
    cells = base.mark_rect().encode(
        color=alt.Color(
            "share:Q",
            scale=alt.Scale(domain=[0, most], range=[SCORE_COLOURS[0], SCORE_COLOURS[-1]], interpolate="rgb"),
            legend=None,
        ),
        tooltip=shown,
    )
    texts = base.mark_text(fontSize=11).encode(
        text=alt.Text("n:Q", format=","),
        color=alt.condition(f"datum.share > {0.4 * most}", alt.value("white"), alt.value("#111")),
    )
    described = "Confusion of judges: how often they gave which scores to the same trajectory."
    chart = alt.layer(cells, texts, data=named(records(rows))).properties(width=190, height=170)
    return chart.facet(
        alt.Facet("panel:N", title=None, header=alt.Header(labelLimit=220, labelExpr="split(datum.label, '|')")),
        columns=3,
    ).properties(description=described)


def audits_chart(audits: pd.DataFrame, agents: pd.DataFrame) -> Panels | None:
    """Returns shares of trajectories that ended badly or hold what the agent invented, by model and recipe."""
    if audits.empty:
        return None
    table = with_agents(audits, agents)
    rows = []
    for (model, recipe), group in table.groupby(["model", "recipe"], dropna=False):
        for name, title in AUDITS.items():
            known = group[group[name].notna()]
            if len(known) and (table[name] > 0).any():
                share = float((known[name] * known["trajectories"]).sum() / known["trajectories"].sum())
                label = "source" if missing(recipe) else Recipe(str(recipe)).label
                n = int(known["trajectories"].sum())
                rows.append({"model": str(model), "label": label, "what": title, "share": share, "trajectories": n})
    trained = {str(row["model"]) for row in rows if row["label"] != "source"}
    # Those with trained agents first, as in the frontier, so that they have the same colours there and here.
    models = [*sorted(trained), *sorted({str(row["model"]) for row in rows} - trained)]
    chart = (
        alt.Chart(named(rows))
        .mark_bar()
        .encode(
            x=alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=3)),
            y=alt.Y("label:N", sort=["source", *labels_of(table["recipe"])], title=None),
            yOffset=alt.YOffset("model:N", sort=models),
            color=alt.Color(
                "model:N", scale=model_scale(models), legend=alt.Legend(orient="top", title="source model")
            ),
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("label:N", title="trained on"),
                alt.Tooltip("what:N"),
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("trajectories:Q", format=","),
            ],
        )
        .properties(width=170, height=alt.Step(max(7, ROW // len(models))))
    )
    facet = alt.Facet("what:N", title=None, sort=list(AUDITS.values()), header=alt.Header(labelLimit=180))
    described = "Shares of trajectories that ran on, hold invented results, called no tool, or were safe and helpful."
    panels: Panels = chart.facet(facet, columns=5).properties(description=described)
    return panels


def training_chart(steps: pd.DataFrame, agents: pd.DataFrame) -> Panels | None:
    """Return loss and reward accuracy over the steps of every stage, averaged over seeds, a column a recipe."""
    if steps.empty:
        return None
    shown = steps.groupby(["agent", "stage", "step"], as_index=False)[["loss", "reward_accuracy"]].mean()
    last = shown.groupby(["agent", "stage"])["step"].transform("max")
    every = (last // CURVE_STEPS).clip(lower=1)
    shown = with_agents(shown[(shown["step"] % every == 0) | (shown["step"] == last)], agents)
    long = shown.melt(id_vars=["agent", "stage", "step", "model", "recipe"], value_vars=["loss", "reward_accuracy"])
    long["curve"] = long["agent"] + " stage " + long["stage"].astype(str)
    long["variable"] = long["variable"].str.replace("_", " ")
    labels, models = labels_of(long["recipe"]), sorted(set(long["model"]))
    long["recipe"] = [Recipe(recipe).label for recipe in long["recipe"]]
    chart = (
        alt.Chart(named(records(long)))
        .mark_line(opacity=0.85)
        .encode(
            x=alt.X("step:Q", title="optimiser step", axis=alt.Axis(tickCount=4)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "model:N", title="source model", scale=model_scale(models), legend=alt.Legend(orient="top")
            ),
            strokeDash=alt.StrokeDash("stage:O", title="stage", legend=alt.Legend(orient="top")),
            detail="curve:N",
            tooltip=[alt.Tooltip("curve:N"), alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=140, height=130)
    )
    described = "Loss and reward accuracy over the steps of training, averaged over seeds."
    panels: Panels = (
        chart.facet(column=alt.Column("recipe:N", title=None, sort=labels), row=alt.Row("variable:N", title=None))
        .resolve_scale(y="independent")
        .properties(description=described)
    )
    return panels
