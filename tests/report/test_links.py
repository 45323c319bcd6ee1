from __future__ import annotations

import datetime as dt
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from dagster_project.artifacts import Ref
from dagster_project.report.figures import frontier_figure
from dagster_project.report.links import Link, PointLink, annotate_svg, point_links
from dagster_project.report.style import save
from dagster_project.report.values import point_id
from dagster_project.results.warehouse import SCHEMA, insert

from .test_figures import make_fits, make_points

SVG = "{http://www.w3.org/2000/svg}"
JUDGES = ("a", "ab")  # one name begins with the other
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
POINT = {
    "model": "m", "recipe": "safe", "beta": 0.1, "judging": "match", "judge": None, "label": "S", "helpfulness": 1.5,
    "safety": 2.25, "helpfulness_delta": -0.5, "safety_delta": 0.75,
}  # fmt: skip


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """Two seeds of one recipe on two judges' pairs, each scored by both judges on both metrics."""
    path = tmp_path / "warehouse.duckdb"
    agents: list[tuple[object, ...]] = [("m", "m", None, None, None, None, None, "source", None, None)]
    artifacts: list[tuple[object, ...]] = []
    lineage: list[tuple[object, ...]] = []
    minutes = 0
    for pairs_judge in JUDGES:
        agent = f"m:safe:{pairs_judge}:0.1"
        for seed in (0, 1):
            agents.append((agent, "m", "safe", None, pairs_judge, 0.1, seed, "S", None, None))
            partition = Ref.of("x", agent=agent, seed=str(seed)).partition_label
            for judge in JUDGES:
                for metric in ("safe", "help"):
                    minutes += 1
                    asset, run = f"agent_evaluations/{judge}/{metric}", f"run-{pairs_judge}-{seed}-{judge}"
                    ended = START + dt.timedelta(minutes=minutes)
                    written = ("e", asset, partition, run, "1", START, ended, "p", f"sha-{minutes}", 1)
                    artifacts.append((*written, "evaluations", "agent", judge, metric, None))
                    lineage.append(
                        (asset, partition, run, "agent_trajectories", partition, f"t-{pairs_judge}-{seed}", "sha-t")
                    )
    with duckdb.connect(str(path)) as database:
        database.execute(SCHEMA.read_text(encoding="utf-8"))
        for name, rows in (("agents", agents), ("artifacts", artifacts), ("lineage", lineage)):
            insert(database, name, rows)
    return path


def links_of(warehouse: Path, **changes: object) -> PointLink:
    found = point_links(warehouse, pd.DataFrame([POINT | changes]), "http://localhost:3000/")
    assert len(found) == 1
    return next(iter(found.values()))


def test_a_point_leads_to_the_newest_run_that_scored_its_agents(warehouse: Path) -> None:
    assert links_of(warehouse).url == "http://localhost:3000/runs/run-ab-1-ab"
    assert links_of(warehouse, judging="cross").url == "http://localhost:3000/runs/run-ab-1-a"
    assert links_of(warehouse, judging="all").url == "http://localhost:3000/runs/run-ab-1-ab"
    assert links_of(warehouse, judge="a").url == "http://localhost:3000/runs/run-a-1-a"


def test_lineage_holds_all_seeds_of_the_judging_and_what_was_read(warehouse: Path) -> None:
    lineage = links_of(warehouse).lineage
    assert len(set(lineage)) == len(lineage) == 8 + 4
    evaluations = [link for link in lineage if link.artifact.startswith("agent_evaluations/")]
    assert {link.run_id for link in evaluations} == {
        f"run-{judge}-{seed}-{judge}" for judge in JUDGES for seed in (0, 1)
    }
    assert Link("agent_evaluations/a/safe agent=m:safe:a:0.1/seed=0", "run-a-0-a", "sha-1") in lineage
    assert Link("agent_trajectories agent=m:safe:a:0.1/seed=0", "t-a-0", "sha-t") in lineage
    assert len(links_of(warehouse, judging="all").lineage) == 16 + 4
    assert len(links_of(warehouse, judge="a").lineage) == 4 + 2


def test_the_tooltip_says_what_the_point_is(warehouse: Path) -> None:
    assert links_of(warehouse).title == ("m, S, β 0.1\nhelpfulness 1.50 (Δ −0.50)\nsafety 2.25 (Δ +0.75)\n4 runs")
    assert links_of(warehouse, runs=1).title.endswith("\n1 run")
    assert "judged by a\n" in links_of(warehouse, judge="a").title


def test_points_without_runs_have_no_link(warehouse: Path) -> None:
    assert point_links(warehouse, pd.DataFrame([POINT | {"recipe": "help"}]), "http://x") == {}
    assert point_links(warehouse, pd.DataFrame(), "http://x") == {}


def test_stages_with_other_betas_are_found(warehouse: Path) -> None:
    with duckdb.connect(str(warehouse)) as database:
        database.execute("UPDATE agents SET beta = NULL")
    found = point_links(warehouse, pd.DataFrame([POINT | {"beta": float("nan")}]), "http://x")
    assert set(found) == {"point:match:m:safe:mixed"}


@pytest.fixture
def svg(tmp_path: Path) -> Path:
    save(frontier_figure(make_points(), make_fits(), "T & <T>", toy=True), tmp_path, "frontier")
    return tmp_path / "frontier.svg"


def test_an_element_becomes_a_link_with_tooltip_and_lineage(svg: Path) -> None:
    before = ET.parse(svg).getroot()
    name = point_id("match", "m", "safe", 0.1, "a")
    lineage = [Link('agent_evaluations/"a" & b', "run", "0" * 64)]
    annotate_svg(
        svg,
        {
            name: PointLink("http://ui/runs/1?a=1&b=2", "S & <H>\nsafety 2", lineage),
            "elsewhere": PointLink("u", "t", []),
        },
    )
    root = ET.parse(svg).getroot()
    (link,) = root.iter(f"{SVG}a")
    assert link.get("href") == link.get("{http://www.w3.org/1999/xlink}href") == "http://ui/runs/1?a=1&b=2"
    assert link.get("target") == "_blank"
    (element,) = link
    assert element.get("id") == name
    assert element[0].tag == f"{SVG}title"
    assert element[0].text == "S & <H>\nsafety 2"
    assert json.loads(element.get("data-lineage", "")) == [lineage[0]._asdict()]
    assert len(list(root.iter())) == len(list(before.iter())) + 2
    assert [node.get("id") for node in root.iter() if node.get("id")] == [
        node.get("id") for node in before.iter() if node.get("id")
    ]
    assert not list(svg.parent.glob(".*"))


def test_other_elements_stay_and_prefixes_are_the_usual_ones(svg: Path) -> None:
    annotate_svg(svg, {})
    text = svg.read_text(encoding="utf-8")
    assert "ns0:" not in text
    assert 'xmlns="http://www.w3.org/2000/svg"' in text
    once = svg.read_bytes()
    annotate_svg(svg, {})
    assert svg.read_bytes() == once


def test_annotating_twice_makes_one_link(svg: Path) -> None:
    links = {point_id("match", "m", "safe", 0.1, "a"): PointLink("http://ui/runs/1", "t", [])}
    annotate_svg(svg, links)
    once = svg.read_bytes()
    annotate_svg(svg, links)
    assert svg.read_bytes() == once


def test_every_point_of_a_figure_has_its_link(warehouse: Path, tmp_path: Path) -> None:
    points = make_points(("match",), models=("m",), recipes=("safe",))
    save(frontier_figure(points, make_fits(), "T", toy=False), tmp_path, "frontier")
    links = point_links(warehouse, points, "http://ui")
    annotate_svg(tmp_path / "frontier.svg", links)
    found = [link[0].get("id") for link in ET.parse(tmp_path / "frontier.svg").iter(f"{SVG}a")]
    assert found == ["point:match:m:safe:0.1:a"]
    assert set(links) == {"point:match:m:safe:0.1", "point:match:m:safe:0.1:a"}
