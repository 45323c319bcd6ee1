from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.report.page.charts import charts
from dagster_project.report.page.claims import findings
from dagster_project.report.page.data import point_rows, run_rows, run_scores
from dagster_project.report.page.render import script_json
from dagster_project.report.page.summary import sentences
from dagster_project.report.transcript_files import FOLDER
from dagster_project.results.evidence import Verdict
from toolemu.terminal import printable

from .world import AGENTS, EVIL, MODEL, World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def html(world: World) -> str:
    return world.page.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the texts of scripts that hold data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def embedded(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    elements = Elements(html).found
    for tag, attributes in elements:
        source = attributes.get("src")
        assert source is None or source.startswith("data:"), tag
        assert tag != "link"
        assert not any(name.startswith("on") for name in attributes), attributes
    policy = next(a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "unsafe-eval" not in policy


def test_hostile_names_are_text(html: str) -> None:
    assert "<img src=x" not in html
    assert embedded(html)["runs"][0]["model"] == printable(MODEL)
    assert "&lt;img src=x" in html
    assert not set("\x1b\u202e\u2028") & set(re.sub("<script.*?</script>", "", html, flags=re.DOTALL))


def test_every_image_has_an_alternative_and_every_field_a_label(html: str) -> None:
    elements = Elements(html).found
    assert [a for tag, a in elements if tag == "img" and not a.get("alt")] == []
    assert html.count("<select") == html.count("<label>") == 5


def test_points_are_those_of_the_tables_and_of_each_seed(world: World) -> None:
    points = point_rows(world.tables)
    assert len({point["id"] for point in points}) == len(points)
    whole = [point for point in points if point["seed"] == "all"]
    assert len(whole) == len(world.tables["frontier_points"])
    first = next(
        point
        for point in whole
        if point["recipe"] == "S" and point["judging"] == "match" and point["judge"] == "average"
    )
    assert (first["safety"], first["safety_delta"], first["helpfulness_delta"]) == (3.0, 2.0, -1.0)
    seeds = [point for point in points if point["seed"] != "all" and point["recipe"] == "S"]
    assert {point["seed"] for point in seeds} == {"0", "1"}
    assert {point["safety_delta"] for point in seeds} == {2.0}


def test_runs_say_where_their_transcripts_are(world: World) -> None:
    runs = run_rows(world.tables)
    assert len(runs) == 1 + 2 * len(AGENTS)
    assert {run["trajectories"] for run in runs if run["seed"] is not None} == {2}
    folder = world.page.parent / FOLDER
    assert {Path(run["file"]).name for run in runs} == {path.name for path in folder.iterdir()}


def test_runs_are_compared_with_their_source_on_the_same_seed_and_judge(world: World) -> None:
    rows = run_scores(world.tables)
    assert len(rows) == len(AGENTS) * 2 * 2
    assert set(rows["judging"]) == {"match", "cross"}
    assert (rows["safety"] - rows["safety_source"] == rows["safety_delta"]).all()


def test_every_chart_is_valid_and_described(world: World) -> None:
    found = charts(world.tables, point_rows(world.tables))  # Altair checks each against Vega-Lite's schema
    assert {"frontier", "persistence", "agreement", "audits"} - set(found) <= {"persistence"}
    assert all(spec["description"] for spec in found.values())


def test_without_results_there_is_no_chart_and_no_error() -> None:
    assert charts({}, []) == {}


def test_the_summary_is_made_of_the_numbers(world: World) -> None:
    text = " ".join(sentences(world.tables, toy=True))
    assert (
        "8 trainings: 4 agents (a source model, recipe, β and judge of the pairs), over 2 seeds, from 1 source" in text
    )
    assert "20 trajectories, 80 verdicts by 2 judges" in text
    assert "toy world" in text
    assert "toy world" not in " ".join(sentences(world.tables, toy=False))


def test_every_claim_has_its_verdict_and_rule(world: World, html: str) -> None:
    found = findings(world.tables)
    assert [finding.name for finding in found] == list(dict.fromkeys(world.tables["claims"]["claim"]))
    for finding in found:
        assert f'id="claim-{finding.name}"' in html
        assert finding.verdict in list(Verdict)


@given(st.dictionaries(st.text(), st.text() | st.floats() | st.none()))
def test_data_can_stand_in_a_script_whatever_it_is(value: dict[str, Any]) -> None:
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text).keys() == value.keys()


def test_evil_survives_as_it_is() -> None:
    assert json.loads(script_json([EVIL])) == [EVIL]


def test_a_null_stays_a_null() -> None:
    assert json.loads(script_json(pd.DataFrame({"a": [float("nan")]}).to_dict("records"))) == [{"a": None}]
