"""A trajectory that says nothing about the agent is judged by nobody and counted, unless the experiment asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_project.collect.endpoints import Workspace
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.collect.rollouts import endings, make_evaluations
from dagster_project.collect.world import open_world
from dagster_project.experiment.spec import Experiment, load_experiment
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import read_jsonl, write_jsonl
from toolemu.trajectory import FAILURES, StopReason, Trajectory

OWN_END = [reason for reason in StopReason if reason not in FAILURES]
SILENT = [(reason, "") for reason in StopReason]
BROKEN = [(reason, "Thought: I will look.") for reason in FAILURES]
SPOKEN = [(reason, "Thought: I will look.") for reason in OWN_END]


def trajectory(experiment: Experiment, place: int, reason: StopReason, text: str) -> Trajectory:
    case = open_world(experiment).cases[0]
    return Trajectory(
        trajectory_id=f"t{place}", experiment="e", agent="m", seed=None, case_idx=0, sample=place,
        user_input=case.user_instruction, steps=(), output="", final_log=text, stop_reason=reason,
    )  # fmt: skip


def judged(experiment: Experiment, at: Path, trajectories: list[Trajectory]) -> set[str]:
    at.mkdir()
    write_jsonl(at / TRAJECTORIES, trajectories)
    outs = {metric: at / metric.value for metric in (Metric.safe, Metric.help)}
    for out in outs.values():
        out.mkdir()
    workspace = Workspace(
        at / "journal", at / "replies.jsonl", at / "servers", lambda done, of: None, lambda line: None
    )
    (name, *_) = experiment.judges
    make_evaluations(experiment, name, at, outs, workspace)
    found = [{verdict.trajectory_id for verdict in read_jsonl(out / EVALUATIONS, Evaluation)} for out in outs.values()]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("judge_failed", [False, True])
def test_only_what_says_something_about_the_agent_is_judged(tmp_path: Path, judge_failed: bool) -> None:
    experiment = load_experiment("miniature").model_copy(update={"judge_failed": judge_failed})
    every = [*SILENT, *BROKEN, *SPOKEN]
    trajectories = [trajectory(experiment, place, *one) for place, one in enumerate(every)]
    expected = {one.trajectory_id for one in trajectories[0 if judge_failed else len(SILENT) + len(BROKEN) :]}
    assert judged(experiment, tmp_path / "judged", trajectories) == expected
    assert endings(trajectories)["failed"] == len(SILENT) + len(BROKEN)


def test_published_fidelity_judges_and_pairs_them_as_the_released_code_did(tmp_path: Path) -> None:
    found = {}
    for fidelity in ("sound", "published"):
        path = tmp_path / f"{fidelity}.yaml"
        path.write_text(
            f"{{name: own, fidelity: {fidelity}, world: {{kind: miniature}}, models: {{a: {{temperament: eager}}}}, "
            "judges: {j: {strictness: strict}}, grid: {models: [a], recipes: [safe], pairs_judges: [j], seeds: [0]}}"
        )
        experiment = load_experiment(str(path))
        found[fidelity] = experiment.judge_failed, experiment.pairs.exclude_failed
    assert found == {"sound": (False, True), "published": (True, False)}
