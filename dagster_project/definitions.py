"""The roof: Dagster's definitions of every shipped experiment, one code location each (see workspace.yaml)."""

from __future__ import annotations

import os

import dagster as dg

from dagster_project.collect import assets as collect_room
from dagster_project.experiment.assets import AssetFactory
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.nodes import Kind
from dagster_project.experiment.spec import Experiment, load_experiment, open_store
from dagster_project.measure import assets as measure_room
from dagster_project.operations import schedules, sensors, specs
from dagster_project.operations.executor import forked_executor, separate_executor
from dagster_project.operations.kubernetes import step_executor
from dagster_project.preferences import assets as preferences_room
from dagster_project.published import assets as published_room
from dagster_project.published.opening import open_experiment
from dagster_project.report import assets as report_room
from dagster_project.results import assets as results_room
from dagster_project.training import assets as training_room

MADE = (collect_room, preferences_room, training_room, measure_room, results_room, report_room)
UNTRAINED = (collect_room, preferences_room, results_room, report_room)
IMPORTED = (published_room, preferences_room, results_room, report_room)


def build_definitions(experiment: Experiment, make: type[AssetFactory] = AssetFactory) -> dg.Definitions:
    """Returns the Dagster definitions of one experiment; `make` turns nodes of the graph into assets."""
    graph, store = build_graph(experiment), open_store(experiment)
    factory = make(graph, store)
    rooms = IMPORTED if experiment.imports else MADE if experiment.agents() else UNTRAINED
    made_here = not experiment.imports
    seeds = schedules.build(graph, store) if experiment.grid.seeds and made_here else None
    followed = specs.build(graph, store) if graph.find(Kind.specs) and made_here else None
    return dg.Definitions(
        assets=[asset for room in rooms for asset in room.build(factory)],
        jobs=[part.job for part in (seeds, followed) if part],
        schedules=[seeds.schedule] if seeds else [],
        sensors=[*(sensors.build(graph, store) if made_here else []), *([followed.sensor] if followed else [])],
        executor=step_executor() or (forked_executor if made_here else separate_executor),
    )


def __getattr__(name: str) -> dg.Definitions:
    """Builds a shipped experiment's definitions when its code location asks for them.

    `experiment` is the one that `$FRONTIER_EXPERIMENT` names: a shipped name or the path of a file of one's own.
    """
    if name.startswith("_"):
        raise AttributeError(name)
    experiment = load_experiment(os.environ.get("FRONTIER_EXPERIMENT", "") if name == "experiment" else name)
    return build_definitions(open_experiment(experiment, open_store(experiment)))
