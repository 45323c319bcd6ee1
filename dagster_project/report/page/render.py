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
from dagster_project.report.page.charts import FILTERS, Spec, charts, first_choice
from dagster_project.report.page.data import artifact_rows, point_rows, run_rows, tested_cases
from dagster_project.report.page.summary import findings, sentences
from dagster_project.report.transcript_files import RECEIVE
from dagster_project.report.wording import JUDGING_TITLES, PAGE
from toolemu.cases import Case
from toolemu.terminal import printable

__all__ = ["PAGE", "write_page"]

TEMPLATES = Path(__file__).parent / "templates"
STATIC_WIDTH = 760
"""Of the charts without JavaScript and on paper, in pixels."""
SECTIONS = {
    "frontier": "Frontier",
    "fits": "The line through other points",
    "persistence": "Persistence",
    "agreement": "Judges",
    "audits": "Audits",
    "training": "Training",
    "cost": "Cost",
    "settings": "Settings",
}
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
    data = {
        "experiment": experiment.name,
        "ui": ui_url.rstrip("/"),
        "choice": first_choice(points),
        "points": points,
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
            sections={name: title for name, title in SECTIONS.items() if name in specs or name in ("cost", "settings")},
            sentences=sentences(tables, toy=experiment.toy),
            findings=findings(tables),
            points=points,
            choice=data["choice"],
            options={name: options(points, name) for name in FILTERS},
            judgings=JUDGING_TITLES,
            pictures={name: picture(spec) for name, spec in specs.items()},
            agreement=_rows(tables, "judge_agreement"),
            cost=_rows(tables, "cost"),
            tokens=_rows(tables, "tokens"),
            settings=orjson.dumps(experiment.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode(),
            data=script_json(data),
            receive=RECEIVE,
            library=_library(),
            script=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
            style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        )
    )
    path.write_text(html, encoding="utf-8", errors="replace")


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the templates' environment: everything is escaped that is not marked as safe here in this module."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(
        loader=loader, autoescape=True, finalize=_shown, undefined=jinja2.StrictUndefined, trim_blocks=True
    )


def _shown(value: Any) -> Any:
    """Returns a text of the data as it may be shown; templates' own and markup of this module as they are."""
    return printable(value, "\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def script_json(value: Any) -> Markup:
    """Returns JSON that can stand in a script element, whatever its texts are; NaN is null, a lone surrogate is `?`."""
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)


def options(points: list[dict[str, Any]], name: str) -> list[str]:
    """Returns the choices of a filter, those there are."""
    found = list(dict.fromkeys(str(point[name]) for point in points))
    return found if name in ("judging", "judge", "seed") else ["all", *sorted(found)]


def picture(spec: Spec) -> str:
    """Returns a chart as an image that needs no JavaScript, as the address of its data."""
    import vl_convert

    sized = {**spec, "width": STATIC_WIDTH} if spec.get("width") == "container" else spec
    svg = vl_convert.vegalite_to_svg(sized)
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


@functools.cache
def _library() -> Markup:
    """Returns Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"))


def _rows(tables: Mapping[str, pd.DataFrame], name: str) -> list[dict[Any, Any]]:
    return tables.get(name, pd.DataFrame()).to_dict("records")
