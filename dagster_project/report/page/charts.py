"""The page's charts, in Vega-Lite: what is drawn is here, how it looks in light and dark is the page's."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.page.data import ALL, AVERAGE, Records
from dagster_project.report.palette import METRIC_COLOURS, MODEL_COLOURS
from dagster_project.report.values import PAPER_POSITION, beta_name, missing, recipe_order, with_agents
from toolemu.terminal import printable

Spec = dict[str, Any]
Panels = alt.LayerChart | alt.FacetChart
SHAPES = {"S": "square", "H": "triangle-up", "S&H": "circle", "S→H": "diamond", "H→S": "triangle-down"}
OTHER_SHAPES = ("cross", "wedge", "triangle-left", "triangle-right", "stroke", "arrow")
"""Of recipes that are not the paper's: they repeat after so many."""
FILTERS = ("judging", "judge", "model", "recipe", "beta", "seed")
GREY = "#808080"  # 3:1 and more on white and on the page's dark
AUDITS = {
    "runaway": "ran on to a limit",
    "self_observed": "wrote results itself",
    "invented_only": "nothing but invented results",
    "without_tool_call": "no tool call",
    "best_of_both": "safe and helpful (2 or more)",
}
GAINS = {"safe": "safety, through helpfulness training", "help": "helpfulness, through safety training"}
FIT = alt.AutoSizeParams(type="fit-x", contains="padding")
ROW = 20  # pixels of a row, shared by the models in it
CURVE_STEPS = 60  # of a training curve; more could not be told apart


def charts(tables: Mapping[str, pd.DataFrame], points: Records) -> dict[str, Spec]:
    """Returns the Vega-Lite specifications of every chart for which there is data, by name."""
    found = {
        "frontier": frontier_chart(points, tables.get("frontier_bands", pd.DataFrame())),
        "persistence": persistence_chart(tables.get("persistence", pd.DataFrame())),
        "fits": fits_chart(tables.get("frontier_fits", pd.DataFrame())),
        "agreement": agreement_chart(tables.get("judge_confusion", pd.DataFrame())),
        "audits": audits_chart(tables.get("audits", pd.DataFrame()), tables.get("agents", pd.DataFrame())),
        "training": training_chart(tables.get("training_steps", pd.DataFrame()), tables.get("agents", pd.DataFrame())),
    }
    return {name: _printable(chart.to_dict()) for name, chart in found.items() if chart is not None}


def first_choice(points: Records) -> dict[str, str]:
    """Returns the filters' first values: judges averaged, as the pairs were judged where that was done."""
    judgings = [str(point["judging"]) for point in points]
    judging = next((name for name in ("match", "cross", "all") if name in judgings), "match")
    return {**dict.fromkeys(FILTERS, ALL), "judging": judging, "judge": AVERAGE}


def frontier_chart(points: Records, bands: pd.DataFrame) -> Panels | None:
    """Returns safety over helpfulness, against the source models; filtered by `FILTERS`, the line with all points."""
    if not points:
        return None
    params = _params(first_choice(points), FILTERS)
    models = sorted({str(point["model"]) for point in points})
    labels = list(dict.fromkeys(str(point["recipe"]) for point in points))  # they come in order
    legend = alt.Legend(symbolOpacity=1)
    ways = "datum.judging == judging && datum.judge == judge"
    chosen = " && ".join(f"({name} == 'all' || datum.{name} == {name})" for name in ("model", "recipe", "beta"))
    base = alt.Chart(_data(points)).transform_filter(f"{ways} && {chosen} && datum.seed == seed")
    x = alt.X("helpfulness_delta:Q", title="Δ helpfulness, against the source model", scale=alt.Scale(zero=True))
    y = alt.Y("safety_delta:Q", title="Δ safety, against the source model", scale=alt.Scale(zero=True))
    colour = alt.Color("model:N", title="source model", scale=_scale(models), legend=legend)
    bars = base.transform_filter("isValid(datum.safety_delta_low)").encode(color=colour)
    marks = base.mark_point(
        filled=True, size=110, opacity=0.9, cursor="pointer", stroke="white", strokeWidth=0.6
    ).encode(
        x=x,
        y=y,
        color=colour,
        shape=alt.Shape(
            "recipe:N", title="trained on", sort=labels, scale=alt.Scale(domain=labels, range=_shapes(labels))
        ),
        size=alt.Size("beta:O", title="β", scale=alt.Scale(range=[170, 70])),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("recipe:N", title="trained on"),
            alt.Tooltip("beta:N", title="β"),
            alt.Tooltip("judge:N"),
            alt.Tooltip("seed:N"),
            *(
                alt.Tooltip(f"{axis}{kind}:Q", title=f"{title}{axis}", format="+.2f" if kind else ".2f")
                for axis in ("safety", "helpfulness")
                for kind, title in (("", ""), ("_delta", "Δ "))
            ),
            alt.Tooltip("runs:Q"),
        ],
    )
    zero = alt.Chart(_data([{"at": 0}]))
    layers: list[alt.Chart] = [
        zero.mark_rule(strokeDash=[3, 3], color=GREY).encode(x="at:Q"),
        zero.mark_rule(strokeDash=[3, 3], color=GREY).encode(y="at:Q"),
        *_band(bands, ways),
        bars.mark_rule(opacity=0.45).encode(x="helpfulness_delta_low:Q", x2="helpfulness_delta_high:Q", y=y),
        bars.mark_rule(opacity=0.45).encode(y="safety_delta_low:Q", y2="safety_delta_high:Q", x=x),
        marks,
    ]
    described = "Safety against helpfulness of every training, both as differences to the source model, with intervals."
    chart = alt.layer(*layers).add_params(*params)
    return chart.properties(width="container", height=460, description=described)


def _band(bands: pd.DataFrame, ways: str) -> list[alt.Chart]:
    if bands.empty:
        return []
    rows = bands[bands["point_set"] == "model_recipe"].assign(judge=lambda table: table["judge"].fillna(AVERAGE))
    everything = " && ".join(f"{name} == 'all'" for name in ("model", "recipe", "beta", "seed"))
    base = alt.Chart(_data(_records(rows))).transform_filter(f"{ways} && {everything}")
    x = alt.X("x:Q")
    return [
        base.mark_area(opacity=0.15, color=GREY).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line(color=GREY, strokeWidth=1.5).encode(x=x, y=alt.Y("y:Q")),
    ]


def persistence_chart(table: pd.DataFrame) -> Panels | None:
    """Return the paper's positions between the two single trainings, by beta and model, averages first."""
    if table.empty:
        return None
    table = table.rename(columns=PAPER_POSITION)
    rows = table.assign(
        judge=table["judge"].fillna(AVERAGE),
        row=[
            f"{'average of models' if missing(model) else model}, β {beta_name(beta)}"
            for model, beta in zip(table["model"], table["beta"], strict=True)
        ],
        metric=table["metric"].map(GAINS),
    )
    order = list(dict.fromkeys(rows.sort_values(["beta", "model"], na_position="first")["row"]))
    choice = first_choice(_records(rows))
    base = alt.Chart(_data(_records(rows))).transform_filter("datum.judging == judging && datum.judge == judge")
    kinds = list(GAINS.values())
    scale = alt.Scale(domain=kinds, range=[METRIC_COLOURS[metric] for metric in GAINS])
    legend = alt.Legend(orient="top", labelLimit=320)
    limits = alt.Scale(domain=[-1, 2], clamp=True)
    y, offset = (
        alt.Y("row:N", sort=order, title=None, axis=alt.Axis(labelLimit=260)),
        alt.YOffset("metric:N", sort="descending"),
    )
    colour = alt.Color("metric:N", title="gain of", scale=scale, legend=legend)
    shapes = alt.Scale(domain=kinds, range=["square", "triangle-up"])
    shape = alt.Shape("metric:N", title="gain of", scale=shapes, legend=legend)
    shown = [
        alt.Tooltip("row:N", title="of"),
        alt.Tooltip("metric:N"),
        *(
            alt.Tooltip(f"{name}:Q", format=".2f")
            for name in ("estimate", "low", "high", "denominator", "invalid_share")
        ),
    ]
    x = alt.X(
        "estimate:Q",
        title="the paper's ratio: position between the other training (0) and this one (1), cut off at −1 and 2",
        scale=limits,
    )
    layers = [
        alt.Chart(_data([{"at": 0}, {"at": 1}])).mark_rule(strokeDash=[3, 3], color=GREY).encode(x="at:Q"),
        base.mark_rule(strokeWidth=2, clip=True).encode(
            x=alt.X("low:Q", scale=limits), x2="high:Q", y=y, yOffset=offset, color=colour
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x, y=y, yOffset=offset, color=colour, shape=shape, tooltip=shown
        ),
    ]
    described = "The paper's position between the two single trainings, for safety and helpfulness, with intervals."
    chart = alt.layer(*layers).add_params(*_params(choice, ("judging", "judge")))
    return chart.properties(width="container", height=alt.Step(13), autosize=FIT, description=described)


def fits_chart(table: pd.DataFrame) -> Panels | None:
    """Returns R² with its interval for every set of points that a line was drawn through."""
    if table.empty:
        return None
    rows = table[table["point_set"] != "through_origin"].assign(judge=lambda found: found["judge"].fillna(AVERAGE))
    rows = rows.assign(
        row=[f"{name.replace('_', ' ')} ({n:.0f})" for name, n in zip(rows["point_set"], rows["n"], strict=True)]
    )
    base = alt.Chart(_data(_records(rows))).transform_filter("datum.judging == judging && datum.judge == judge")
    y = alt.Y("row:N", sort=list(dict.fromkeys(rows["row"])), title="points (number)", axis=alt.Axis(labelLimit=260))
    x = alt.X("r2:Q", title="R²", scale=alt.Scale(domain=[0, 1]))
    shown = [
        alt.Tooltip("row:N", title="points"),
        *(
            alt.Tooltip(f"{name}:Q", format=".2f")
            for name in ("r2", "r2_low", "r2_high", "slope", "slope_low", "slope_high", "intercept")
        ),
    ]
    layers = [
        base.mark_rule(strokeWidth=2, color=MODEL_COLOURS[0]).encode(x="r2_low:Q", x2="r2_high:Q", y=y),
        base.mark_point(filled=True, size=70, opacity=1, color=MODEL_COLOURS[0]).encode(x=x, y=y, tooltip=shown),
    ]
    described = "R² of the line through the points, with intervals, for every choice of points."
    chart = alt.layer(*layers).add_params(*_params(first_choice(_records(rows)), ("judging", "judge")))
    return chart.properties(width="container", height=alt.Step(20), autosize=FIT, description=described)


def agreement_chart(table: pd.DataFrame) -> Panels | None:
    """Returns how often one judge gave which score where another gave which, a panel for each metric and two judges."""
    if table.empty:
        return None
    table = table[table["whose"] == "source"]
    panel = [f"{row['metric']}|rows: {row['judge_a']}|columns: {row['judge_b']}" for row in table.to_dict("records")]
    rows = table.assign(panel=panel)
    rows["share"] = rows["n"] / rows.groupby("panel")["n"].transform("sum")
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
        color=alt.Color("share:Q", scale=alt.Scale(scheme="blues"), legend=None), tooltip=shown
    )
    texts = base.mark_text(fontSize=11).encode(
        text=alt.Text("n:Q", format=","),
        color=alt.condition("datum.share > 0.12", alt.value("white"), alt.value("#111")),
    )
    described = "Confusion of judges: how often they gave which scores to the same trajectory."
    chart = alt.layer(cells, texts, data=_data(_records(rows))).properties(width=190, height=170)
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
            if len(known):
                share = float((known[name] * known["trajectories"]).sum() / known["trajectories"].sum())
                label = "source" if missing(recipe) else Recipe(str(recipe)).label
                n = int(known["trajectories"].sum())
                rows.append({"model": str(model), "label": label, "what": title, "share": share, "trajectories": n})
    trained = {str(row["model"]) for row in rows if row["label"] != "source"}
    # Those with trained agents first, as in the frontier, so that they have the same colours there and here.
    models = [*sorted(trained), *sorted({str(row["model"]) for row in rows} - trained)]
    chart = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=3)),
            y=alt.Y("label:N", sort=["source", *_labels(table["recipe"])], title=None),
            yOffset=alt.YOffset("model:N", sort=models),
            color=alt.Color("model:N", scale=_scale(models), legend=alt.Legend(orient="top", title="source model")),
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("label:N", title="trained on"),
                alt.Tooltip("what:N"),
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("trajectories:Q", format=","),
            ],
        )
        .properties(width=150, height=alt.Step(max(7, ROW // len(models))))
    )
    facet = alt.Facet("what:N", title=None, sort=list(AUDITS.values()), header=alt.Header(labelLimit=180))
    described = "Shares of trajectories that ran on, hold invented results, called no tool, or were safe and helpful."
    panels: Panels = chart.facet(facet, columns=3).properties(description=described)
    return panels


def training_chart(steps: pd.DataFrame, agents: pd.DataFrame) -> Panels | None:
    """Returns loss and reward accuracy over the steps of every agent's stages, averaged over seeds."""
    if steps.empty:
        return None
    shown = steps.groupby(["agent", "stage", "step"], as_index=False)[["loss", "reward_accuracy"]].mean()
    last = shown.groupby(["agent", "stage"])["step"].transform("max")
    every = (last // CURVE_STEPS).clip(lower=1)
    shown = with_agents(shown[(shown["step"] % every == 0) | (shown["step"] == last)], agents)
    long = shown.melt(id_vars=["agent", "stage", "step", "model", "recipe"], value_vars=["loss", "reward_accuracy"])
    long["curve"] = long["agent"] + " stage " + long["stage"].astype(str)
    long["variable"] = long["variable"].str.replace("_", " ")
    labels = _labels(long["recipe"])
    long["recipe"] = [Recipe(recipe).label for recipe in long["recipe"]]
    chart = (
        alt.Chart(_data(_records(long)))
        .mark_line(opacity=0.8)
        .encode(
            x=alt.X("step:Q", title="optimiser step"),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "recipe:N",
                title="trained on",
                sort=labels,
                scale=_scale(labels),
            ),
            strokeDash=alt.StrokeDash("stage:O"),
            detail="curve:N",
            tooltip=[alt.Tooltip("curve:N"), alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=330, height=220)
    )
    facet = alt.Facet("variable:N", title=None)
    described = "Loss and reward accuracy over the steps of training, averaged over seeds."
    panels: Panels = chart.facet(facet, columns=2).resolve_scale(y="independent").properties(description=described)
    return panels


def _labels(recipes: Iterable[object]) -> list[str]:
    """Returns what the recipes are called, in order."""
    return [Recipe(recipe).label for recipe in recipe_order(recipes)]


def _shapes(labels: Iterable[str]) -> list[str]:
    others = itertools.cycle(OTHER_SHAPES)
    return [SHAPES.get(label) or next(others) for label in labels]


def _data(records: Iterable[Mapping[Any, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(records))


def _printable(value: Any) -> Any:
    """Returns a specification of printable texts: Vega's parser stops at others, and the converter to SVG aborts."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {name: _printable(part) for name, part in value.items()}
    return [_printable(part) for part in value] if isinstance(value, list) else value


def _params(choice: Mapping[str, str], names: Iterable[str]) -> list[alt.Parameter]:
    return [alt.param(name=name, value=choice[name]) for name in names]


def _scale(models: Sequence[str]) -> alt.Scale:
    colours = [MODEL_COLOURS[place % len(MODEL_COLOURS)] for place in range(len(models))]
    return alt.Scale(domain=list(models), range=colours)


def _records(table: pd.DataFrame) -> Records:
    """Returns the rows with null for what is missing: NaN is no JSON."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
