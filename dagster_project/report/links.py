"""From a figure's point to the runs behind it: links, tooltips and lineage in an SVG."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pandas as pd

from dagster_project.artifacts import Ref
from dagster_project.artifacts.database import open_database
from dagster_project.experiment.agents import Recipe
from dagster_project.report.values import beta_name, column, missing, number, point_id

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# Written with these prefixes, as matplotlib does, and not with ones that the XML library makes up.
NAMESPACES = {
    "": SVG,
    "xlink": XLINK,
    "cc": "http://creativecommons.org/ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
}
ARTIFACTS = """
    SELECT asset, "partition", run_id, sha256, judge FROM artifacts
    WHERE kind = 'evaluations' AND side = 'agent' ORDER BY ended_at, asset, "partition"
"""
LINEAGE = """
    SELECT asset, "partition", input_asset, input_partition, input_run_id, input_sha256
    FROM lineage SEMI JOIN (FROM artifacts WHERE kind = 'evaluations' AND side = 'agent') USING (asset, "partition")
    ORDER BY ALL
"""
AGENTS = """
    SELECT DISTINCT agent, model, recipe, beta, pairs_judge, seed FROM agents
    WHERE recipe IS NOT NULL ORDER BY ALL
"""


class Link(NamedTuple):
    """One artifact behind a point: its label, the run that wrote it, and the hash of its content."""

    artifact: str
    run_id: str
    sha256: str


class PointLink(NamedTuple):
    """What a point leads to.

    Attributes:
        url: The run to open.
        title: The tooltip.
        lineage: The artifacts behind the point.
    """

    url: str
    title: str
    lineage: list[Link]


def annotate_svg(path: Path, links: Mapping[str, PointLink]) -> None:
    """Makes the elements of an SVG with these ids links with a tooltip and `data-lineage`, a JSON list.

    Ids that the file does not have are passed over: one mapping serves all figures. The file is replaced atomically.

    Raises:
        ET.ParseError: The file is no XML.
    """
    for prefix, uri in NAMESPACES.items():
        ET.register_namespace(prefix, uri)
    tree = ET.parse(path)
    found = [
        (parent, place, element)
        for parent in tree.iter()
        if parent.tag != f"{{{SVG}}}a"  # a link of an earlier call: a link within a link would be no link
        for place, element in enumerate(parent)
        if element.get("id") in links
    ]
    for parent, place, element in found:
        link = links[str(element.get("id"))]
        element.set("data-lineage", orjson.dumps([entry._asdict() for entry in link.lineage]).decode())
        title = ET.Element(f"{{{SVG}}}title")
        title.text = link.title
        element.insert(0, title)
        # `xlink:href` is for readers other than browsers, which know of no other.
        target = {"href": link.url, f"{{{XLINK}}}href": link.url, "target": "_blank", "rel": "noopener"}
        wrapper = ET.Element(f"{{{SVG}}}a", target)
        wrapper.append(element)
        parent[place] = wrapper
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    tree.write(partial, encoding="utf-8", xml_declaration=True)
    partial.replace(path)


class _Agent(NamedTuple):
    agent: str
    pairs_judge: str
    seed: int


def point_links(warehouse: Path, points: pd.DataFrame, ui_url: str) -> dict[str, PointLink]:
    """Returns where each frontier point leads: the newest run that scored its agents, and what all of them read.

    A point's artifacts are the evaluations of its agents, over all seeds, by the judges of its way of judging, and
    what these evaluations read.

    Args:
        warehouse: The DuckDB file; its tables agents, artifacts and lineage are read.
        points: `frontier_points`; points of single judges have links of their own.
        ui_url: Where Dagster's UI is.
    """
    if points.empty:
        return {}
    with open_database(warehouse) as database:
        agents, artifacts, lineage = (database.execute(query).fetchall() for query in (AGENTS, ARTIFACTS, LINEAGE))
    members: dict[tuple[str, str, str], list[_Agent]] = {}
    for agent, model, recipe, beta, pairs_judge, seed in agents:
        members.setdefault((model, recipe, beta_name(beta)), []).append(_Agent(agent, pairs_judge, seed))
    written: dict[str, list[tuple[int, str, Link]]] = {}
    for place, (asset, partition, run_id, sha256, judge) in enumerate(artifacts):
        link = Link(_label(asset, partition), run_id, sha256)
        written.setdefault(partition, []).append((place, judge, link))
    read: dict[str, list[Link]] = {}
    for asset, partition, *source in lineage:
        link = Link(_label(source[0], source[1]), source[2], source[3])
        read.setdefault(_label(asset, partition), []).append(link)
    links = {}
    runs = column(points, "runs")
    for row, n_runs in zip(points.to_dict("records"), runs, strict=True):
        key = (row["model"], row["recipe"], beta_name(row["beta"]))
        judge = None if missing(row["judge"]) else str(row["judge"])
        found = sorted(_evaluations(members.get(key, []), written, row["judging"], judge))
        if not found:
            continue
        entries = [link for _, link in found]
        behind = dict.fromkeys([*entries, *(link for entry in entries for link in read.get(entry.artifact, []))])
        name = point_id(row["judging"], row["model"], row["recipe"], row["beta"], judge)
        count = len(members[key]) if missing(n_runs) else int(n_runs)
        links[name] = PointLink(f"{ui_url.rstrip('/')}/runs/{entries[-1].run_id}", _title(row, count), list(behind))
    return links


def _evaluations(
    agents: list[_Agent], written: Mapping[str, list[tuple[int, str, Link]]], judging: str, judge: str | None
) -> Iterator[tuple[int, Link]]:
    """Yields place (in order of time) and link of the evaluations that a point is the mean of."""
    for agent, pairs_judge, seed in agents:
        partition = Ref.of("", agent=agent, seed=seed).partition_label
        for place, by, link in written.get(partition, []):
            wanted = judging == "all" or (by == pairs_judge) == (judging == "match")
            if wanted and judge in (None, by):
                yield place, link


def _label(asset: str, partition: str) -> str:
    return f"{asset} {partition}".strip()


def _title(row: Mapping[Any, Any], runs: int) -> str:
    judge = "" if missing(row["judge"]) else f", judged by {row['judge']}"
    return (
        f"{row['model']}, {Recipe(row['recipe']).label}, β {beta_name(row['beta'])}{judge}\n"
        f"helpfulness {_score(row, 'helpfulness')}\nsafety {_score(row, 'safety')}\n"
        f"{runs} {'run' if runs == 1 else 'runs'}"
    )


def _score(row: Mapping[Any, Any], axis: str) -> str:
    delta = number(row[f"{axis}_delta"])
    return f"{number(row[axis])} (Δ {delta if delta.startswith('−') else f'+{delta}'})"
