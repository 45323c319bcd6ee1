"""One trajectory with its verdicts, for reading in a terminal."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Group
from rich.rule import Rule
from rich.text import Text

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.database import open_database
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.collect.world import open_cases
from dagster_project.experiment.nodes import Side, evaluations_path, name_of, trajectories_path
from dagster_project.experiment.spec import Experiment
from toolemu.cases import Case
from toolemu.errors import FrontierError
from toolemu.evaluation import Evaluation
from toolemu.jsonl import iter_jsonl, read_jsonl
from toolemu.terminal import printable
from toolemu.trajectory import Trajectory


class Transcript(NamedTuple):
    """A trajectory, its case, and what the judges said of it."""

    trajectory: Trajectory
    case: Case
    verdicts: list[Evaluation]


def find_transcript(
    experiment: Experiment,
    store: ArtifactStore,
    trajectory_id: str | None,
    agent: str | None,
    case: int | None,
    seed: int | None,
    sample: int,
) -> Transcript:
    """Returns the transcript of a trajectory given by its id, or by agent, case, seed and sample.

    Raises:
        FrontierError: There is no such trajectory.
        MissingArtifactError: The tables have not been made.
    """
    if trajectory_id is None and (agent is None or case is None):
        raise FrontierError("Name a trajectory: its id, or --agent and --case (and --seed for a trained agent).")
    path = store.get(Ref("tables")).path / f"{experiment.name}.duckdb"
    with open_database(path) as database:
        row = database.execute(
            """
            SELECT agent, seed, trajectory_id FROM trajectories
            WHERE trajectory_id = $id OR ($id IS NULL AND agent = $agent AND case_idx = $case
                AND seed IS NOT DISTINCT FROM $seed AND sample = $sample)
            """,
            {"id": trajectory_id, "agent": agent, "case": case, "seed": seed, "sample": sample},
        ).fetchone()
    if row is None:
        asked = trajectory_id or f"agent {agent}, case {case}, seed {seed}, sample {sample}"
        raise FrontierError(
            f"{experiment.name} has no trajectory {asked}. Trained agents are tested on held-out cases only: "
            f"frontier query {experiment.argument} "
            "'SELECT agent, seed, case_idx, sample, trajectory_id FROM trajectories'"
        )
    found_agent, found_seed, found_id = row
    side, partition = Side.source, {"model": found_agent}
    if found_seed is not None:
        side, partition = Side.agent, {"agent": found_agent, "seed": str(found_seed)}
    records = iter_jsonl(
        store.get(Ref.of(name_of(trajectories_path(side)), **partition)).path / TRAJECTORIES, Trajectory
    )
    trajectory = next(record for record in records if record.trajectory_id == found_id)
    refs = [
        Ref.of(name_of(evaluations_path(side, judge, metric)), **partition)
        for judge in experiment.judges
        for metric in experiment.metrics
    ]
    verdicts = [
        verdict
        for ref in refs
        if store.manifest(ref)  # an imported agent need not have been scored by every judge
        for verdict in read_jsonl(store.get(ref).path / EVALUATIONS, Evaluation)
        if verdict.trajectory_id == trajectory.trajectory_id
    ]
    return Transcript(trajectory, open_cases(experiment, store)[trajectory.case_idx], verdicts)


def render(transcript: Transcript) -> Group:
    """Returns the transcript for a terminal; texts are shown as they are, control characters made visible."""
    trajectory, case, verdicts = transcript
    seed = "" if trajectory.seed is None else f", seed {trajectory.seed}"
    title = f"{trajectory.trajectory_id}: {trajectory.agent}{seed}, case {trajectory.case_idx}.{trajectory.sample}"
    parts: list[Rule | Text] = [
        Rule(Text(visible(title))),
        Text(f"task     {visible(trajectory.user_input)}", style="bold"),
        Text(visible(f"toolkits {', '.join(case.toolkits)}")),
    ]
    cut_off = ", cut off at its limit of tokens" if trajectory.final_cut_off else ""
    for number, step in enumerate(trajectory.steps, 1):
        mark = "  [wrote its own observation]" if step.self_observed else ""
        parts += [
            Rule(f"step {number}{mark}", align="left", style="dim"),
            Text(visible(step.log)),
            Text(f"→ {visible(step.observation)}", style="cyan"),
        ]
    parts += [
        Rule(f"end: {trajectory.stop_reason.value}{cut_off}", align="left", style="dim"),
        Text(visible(trajectory.final_log)),
        Rule("verdicts", align="left", style="dim"),
    ]
    for verdict in verdicts:
        said = (
            f"no score: {verdict.error}"
            if verdict.score is None
            else f"{verdict.score:g}  {verdict.label}: {verdict.thought}"
        )
        parts.append(Text(visible(f"{verdict.judge} {verdict.metric.value:<10} {said}")))
    return Group(*parts)


def visible(text: str) -> str:
    """Returns `text` with control characters other than newline and tab escaped: a transcript may hold anything."""
    return printable(text.strip(), "\n\t")
