"""What `frontier export` does: arguments to the two exports."""

from __future__ import annotations

from pathlib import Path

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.world import open_cases, open_world
from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.graph import IMPORT, Graph
from dagster_project.published.export import (
    export_pairs,
    export_runs,
    pair_cases,
    pair_records,
    source_trajectories,
    write_lines,
)
from toolemu.errors import FrontierError
from toolemu.prompts import AgentPrompt
from toolemu.toolkits import load_toolkits


def export_experiment(
    graph: Graph,
    store: ArtifactStore,
    what: str,
    out: Path,
    judge: str | None,
    metric: str,
    seed: int | None,
    toolkits: Path | None,
) -> dict[str, int]:
    """Writes an export and returns how much of what it holds.

    Raises:
        FrontierError: An argument is none of those there are, or something needed was not given.
    """
    experiment = graph.experiment
    if experiment.imports:
        store.get(Ref(IMPORT))  # raises if nothing was imported, of which every argument would be wrong
    if what == "runs":
        return export_runs(graph, store, out)
    if what != "pairs":
        raise FrontierError(f"export {what}: expected pairs, runs or inspect.")
    if metric not in list(TrainedMetric):
        raise FrontierError(f"--metric {metric}: expected one of {', '.join(TrainedMetric)}.")
    if out.exists():
        wrong = "is a folder; name the file to write the pairs to" if out.is_dir() else "is there already; name another"
        raise FrontierError(f"--out {out}: {wrong}.")
    if judge is None or judge not in experiment.judges:
        given = "none was given" if judge is None else f"found {judge}"
        raise FrontierError(f"--judge: expected one of {', '.join(experiment.judges)}; {given}.")
    if experiment.imports and toolkits is None:
        raise FrontierError("--toolkits: released runs do not hold the toolkits; name their file (all_toolkits.json).")
    known = load_toolkits(toolkits) if toolkits else open_world(experiment).toolkits
    trajectories, cases = source_trajectories(graph, store), pair_cases(experiment.world.cases, seed)
    pairs = export_pairs(graph, store, judge, TrainedMetric(metric), cases, trajectories, seed or 0)
    layout = "turns" if experiment.imports else experiment.agent.prompt_layout
    prompt = AgentPrompt(experiment.agent.prompt_style, experiment.prompts_dir, layout=layout)
    records = pair_records(
        pairs,
        trajectories,
        open_cases(experiment, store),
        known,
        prompt,
        released=experiment.imports,
    )
    return {"pairs": write_lines(out, records)}
