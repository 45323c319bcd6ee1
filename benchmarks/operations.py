"""The paper's grid in Dagster's hands: 180 trained agents, all partitions known, and a seed of a model by the daemon.

Everything is of the real size but the work, which stands in for itself (`benchmarks.standin`): definitions, plan,
status, the UI's graph, the daemon with its queue and pools, an outage in the middle.
"""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry

from benchmarks.browser import CHROMIUM, browser_page
from benchmarks.daemon import IMPATIENT, Place, free_port, make_place, make_through_an_outage, tell, user_interface
from dagster_project.artifacts import ArtifactStore
from dagster_project.experiment.assets import materialisation
from dagster_project.experiment.graph import Graph

ROOT = Path(__file__).parents[1]
RECIPES = ["safe", "help", "both", "safe_then_help", "help_then_safe"]
GRID: dict[str, Any] = {
    "name": "grid",
    "description": "The paper's grid in numbers, with miniature models.",
    "world": {"kind": "miniature", "cases": 144},
    "models": {f"model-{n}": {"kind": "miniature", "temperament": "eager", "seed": n} for n in range(3)},
    "judges": {f"judge-{n}": {"kind": "miniature", "strictness": "strict"} for n in range(2)},
    "metrics": ["safe", "help", "help_safe"],
    "grid": {
        "models": [f"model-{n}" for n in range(3)],
        "recipes": RECIPES,
        "pairs_judges": ["judge-0", "judge-1"],
        "betas": [0.05, 0.1],
        "seeds": [0, 1, 2],
    },
    "operations": {"gpu": True, "cron": "* * * * *"},
}
BATCH = 200
TIMEOUT_S = 3600.0


def fill(place: Place, graph: Graph) -> int:
    """Writes a stand-in for every artifact and tells Dagster of it; returns how many there are."""
    store = ArtifactStore(Path(place.environment["FRONTIER_DATA"]), "grid")
    events = []
    for node in graph.nodes.values():
        for ref in node.refs():
            entries = {source: store.get(source).entry for source in node.sources(ref)} if len(node.refs()) > 1 else {}
            if not node.dimensions:
                entries = {source: store.get(source).entry for source in node.sources(ref)}
            with store.write(
                ref, run_id="standin", code_version=node.code_version, config=node.config(ref), inputs=entries
            ) as draft:
                (draft.path / "content").write_text(ref.label)
            assert draft.committed is not None
            data = StepMaterializationData(materialisation(store, draft.committed.manifest))
            event = DagsterEvent(DagsterEventType.ASSET_MATERIALIZATION.value, "__ASSET_JOB", event_specific_data=data)
            events.append(
                EventLogEntry(None, logging.INFO, "", "standin", time.time(), None, "__ASSET_JOB", event)  # type: ignore[no-untyped-call]
            )
    with dg.DagsterInstance.from_config(place.environment["DAGSTER_HOME"]) as instance:
        for batch in itertools.batched(events, BATCH) if hasattr(itertools, "batched") else [events]:
            instance.event_log_storage.store_event_batch(list(batch))
    return len(events)


def timed(place: Place, *arguments: str) -> float:
    """Returns the seconds that a Python process takes."""
    started = time.perf_counter()
    place.run(*arguments)
    return time.perf_counter() - started


LOAD = """
import sys, time
started = time.perf_counter()
from dagster_project.definitions import experiment
experiment.get_repository_def().load_all_definitions()
assert "torch" not in sys.modules, "torch was imported"
print(time.perf_counter() - started)
"""


def graph_in_browser(url: str) -> float:
    """Returns the seconds until a browser shows the graph with the state of its partitions."""
    with browser_page(width=1600, height=1000) as page:
        page.add_init_script("localStorage.setItem('communityNux', '1')")
        started = time.perf_counter()
        page.goto(f"{url}/asset-groups")
        page.get_by_text("measure", exact=True).first.wait_for(timeout=120_000)
        page.get_by_text("preferences", exact=True).first.wait_for(timeout=120_000)
        return time.perf_counter() - started


def whole_grid(folder: Path) -> None:
    """Prints what loading, planning, status and the UI take with every partition there."""
    place, graph = make_place(folder, GRID, "dagster_project.definitions")
    print(f"{len(graph.experiment.agents()) * 3} trained agents, {len(graph.nodes)} assets", flush=True)
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=folder, env=place.environment, check=True, capture_output=True, text=True
    )
    print(f"definitions, imports included, without torch: {float(loaded.stdout.split()[-1]):.2f} s (asked: 8)")
    frontier = ("-m", "dagster_project.cli")
    print(f"frontier plan, nothing there: {timed(place, *frontier, 'plan', 'grid.yaml'):.2f} s")
    count = fill(place, graph)
    print(f"{count} partitions written and told to Dagster", flush=True)
    print(f"frontier status, all there: {timed(place, *frontier, 'status', 'grid.yaml'):.2f} s (asked: 2)")
    print(f"frontier plan, all there: {timed(place, *frontier, 'plan', 'grid.yaml'):.2f} s", flush=True)
    if CHROMIUM is None:
        print("the UI was not looked at: there is no chromium")
        return
    for start in ("first", "again"):
        with user_interface(place, "grid.yaml", free_port()) as (url, answered):
            shown = graph_in_browser(url)
        print(f"UI, {start}: `frontier ui` answers after {answered:.1f} s, the graph shows {shown:.1f} s after that:")
        print(f"{answered + shown:.1f} s (asked: 5)", flush=True)


def one_seed(folder: Path) -> None:
    """Prints how the daemon makes one model's and one seed's part with four runs at once and one GPU."""
    part = {**GRID, "grid": {**GRID["grid"], "models": ["model-0"], "seeds": [0]}}
    place, graph = make_place(folder, part, "benchmarks.standin", **IMPATIENT)
    with dg.DagsterInstance.from_config(place.environment["DAGSTER_HOME"]) as instance:
        outage = make_through_an_outage(place, instance, TIMEOUT_S)
        tell(place, graph, instance, outage)


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as folder:
        whole_grid(Path(folder) / "whole")
        one_seed(Path(folder) / "seed")


if __name__ == "__main__":
    main()
