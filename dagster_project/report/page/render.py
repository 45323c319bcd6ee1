"""The page itself: one HTML file with its data, its charts and the library that draws them."""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import orjson
import pandas as pd
from markupsafe import Markup

from dagster_project.experiment.spec import Experiment
from dagster_project.report.cases import SECOND_TRAININGS
from dagster_project.report.page.charts import FILTERS, FIRST_CHOICE, Spec, charts
from dagster_project.report.page.charts.common import ALL, AVERAGE, EACH, Records, records, route, scoring_of
from dagster_project.report.page.charts.persistence import persistence_rows
from dagster_project.report.page.citation import citation
from dagster_project.report.page.claims import findings
from dagster_project.report.page.data import (
    artifact_rows,
    change_rows,
    point_rows,
    run_rows,
    score_rows,
    source_rows,
    tested_cases,
)
from dagster_project.report.page.summary import sentences
from dagster_project.report.transcript_files import RECEIVE
from dagster_project.report.values import WHOSE, estimate, levels, missing, most_telling, number, scorings
from dagster_project.report.wording import METRIC_TITLES, PAGE
from toolemu.cases import Case
from toolemu.terminal import printable

__all__ = ["PAGE", "write_page"]

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = {
    "frontier": "Frontier",
    "persistence": "Persistence",
    "cases": "Case by case",
    "scores": "Scores by recipe",
    "agreement": "Judges against each other",
    "audits": "Audits",
}
"""The first level; `cases` has several charts."""
FURTHER = {"seeds": "Seed by seed", "fits": "The line through other points", "training": "Training"}
"""The second level's charts; cost and settings come after them."""
SCRIPTS = ("tables.js", "changes.js", "report.js")
"""In this order, within one function."""
# What would end a script element or begin a comment in it, and two line ends that JavaScript once took for its own.
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_page(
    path: Path, experiment: Experiment, tables: Mapping[str, pd.DataFrame], cases: Mapping[int, Case], ui_url: str
) -> None:
    """Writes the page of an experiment's results.

    Args:
        path: The file to write; transcripts are looked for in the folder `transcripts` beside it.
        experiment: What was run; its settings are shown.
        tables: Of `load_tables`.
        cases: The cases by index.
        ui_url: Where Dagster's UI is, for links to runs.
    """
    points = point_rows(tables)
    specs = charts(tables, points)
    shown = _shown_tables(tables)
    changes = change_rows(tables)
    data: dict[str, Any] = {
        "experiment": experiment.name,
        "ui": ui_url.rstrip("/"),
        "choice": FIRST_CHOICE,
        "points": points,
        "sources": source_rows(tables),
        "alone": [scoring_of(*way) for way in scorings(tables["frontier_points"])],
        "scorings": {point["scoring"]: point["panel"] for point in points},
        "scores": score_rows(tables),
        "changes": changes,
        "tables": shown,
        "runs": run_rows(tables),
        "artifacts": artifact_rows(tables),
        "tested": tested_cases(tables),
        "cases": {index: case.model_dump(mode="json") for index, case in cases.items()},
        "charts": specs,
    }
    html = (
        environment()
        .get_template("report.html.jinja")
        .render(
            experiment=experiment,
            sections={name: title for name, title in SECTIONS.items() if any(key.startswith(name) for key in specs)},
            further={name: title for name, title in FURTHER.items() if name in specs},
            sentences=sentences(tables, toy=experiment.toy),
            findings=findings(tables),
            points=points,
            choice=FIRST_CHOICE,
            options={name: options(points, name) for name in FILTERS},
            citation=citation(experiment, tables),
            whose=WHOSE,
            metrics=METRIC_TITLES,
            chart_of=WHOSE.get(str(most_telling(tables["judge_agreement"]))) if "judge_agreement" in tables else None,
            betas=list(levels(point["beta"] for point in tables["frontier_points"].to_dict("records"))),
            changes=change_links(changes),
            pictures={name: picture(spec) for name, spec in specs.items()},
            **shown,
            settings=orjson.dumps(experiment.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode(),
            data=script_json(data),
            receive=RECEIVE,
            library=_library(),
            script=_script(),
            style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        )
    )
    path.write_text(html, encoding="utf-8", errors="replace")


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the templates' environment: everything is escaped that is not marked as safe here in this module."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    made = jinja2.Environment(
        loader=loader, autoescape=True, finalize=_shown, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    made.filters["decimals"] = lambda value: "–" if missing(value) else number(value)
    made.filters["interval"] = _interval
    return made


def _shown(value: Any) -> Any:
    """Returns a text of the data as it may be shown; templates' own and markup of this module as they are."""
    return printable(value, "\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def script_json(value: Any) -> Markup:
    """Returns JSON that can stand in a script element, whatever its texts are; NaN is null, a lone surrogate is `?`."""
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)


def options(points: Records, name: str) -> list[tuple[str, str]]:
    """Return the choices of a filter, those there are, each with its words."""
    if name == "scoring":
        ways = {point["scoring"]: point["panel"] for point in points}
        alone = [way for way in ways if not way.endswith(f"/{AVERAGE}")]
        averages = [way for way in ways if way.endswith(f"/{AVERAGE}")]
        return [(EACH, "every judge"), *((way, ways[way]) for way in (*alone, *averages))]
    found = list(dict.fromkeys(str(point[name]) for point in points))
    return [(value, value) for value in (found if name == "seed" else [ALL, *sorted(found)])]


def change_links(changes: Records) -> list[tuple[str, str]]:
    """Return the addresses and words of what each second training changed, by model and β."""
    found: dict[str, str] = {}
    for transition in SECOND_TRAININGS:
        first, second = transition.first.label, transition.second.label
        for row in changes:
            if (row["first"], row["second"]) == (first, second):
                who = "all source models" if row["model"] == ALL else row["model"]
                address = route("changed", row["model"], row["beta"], first, second, transition.metric)
                found[address] = f"{first} against {second}: {who}, β {row['beta']}"
    return list(found.items())


def picture(spec: Spec) -> str:
    """Returns a chart as an image that needs no JavaScript, as the address of its data."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(spec)
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


@functools.cache
def _library() -> Markup:
    """Returns Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"))


@functools.cache
def _script() -> Markup:
    """Return the page's behaviour as one script."""
    texts = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return Markup(f'"use strict";\n(() => {{\n{texts}}})();')


def _shown_tables(tables: Mapping[str, pd.DataFrame]) -> dict[str, Records]:
    """Return the rows of the tables that the page shows and makes CSV files of, by name."""
    names = {"agreement": "judge_agreement", "cost": "cost", "tokens": "tokens"}
    names |= {"claims": "claims", "claim_evidence": "claim_evidence"}
    found = {name: records(tables.get(table, pd.DataFrame())) for name, table in names.items()}
    return {**found, "persistence": persistence_rows(tables.get("persistence", pd.DataFrame()))}


def _interval(row: Mapping[str, Any], name: str, signed: bool = True) -> str:
    """Return one of a row's estimates with its interval."""
    value, low, high = (row.get(f"{name}{bound}", float("nan")) for bound in ("", "_low", "_high"))
    return estimate(value, low, high, (0.0,) if signed else (), sign=signed)
