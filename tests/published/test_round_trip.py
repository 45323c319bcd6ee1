"""Runs exported in the released format and imported again: what comes back, and what the format cannot carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dagster_project.artifacts import ArtifactStore
from dagster_project.environments.imported import ImportedWorld
from dagster_project.experiment.graph import build_graph
from dagster_project.published.export import export_runs
from tests.conftest import SMALL, Import, Lab
from tests.published.importing import run_import
from tests.published.tree import write_tree
from toolemu.evaluation import Evaluation
from toolemu.jsonl import read_jsonl
from toolemu.trajectory import ObservationSource, StopReason, Trajectory

Place = tuple[str, int | None, int]
"""Agent, seed and case."""
ONLY_OURS = {"agent_tokens": None, "reprompts": 0, "error": "", "agent_use": None, "emulator_use": None}
"""Fields of a trajectory for which the released format has no place, and what they are after an import."""
IDENTITY = ("trajectory_id", "experiment", "sample")
"""Fields that an import gives anew: a tree is one sample, and ids name the experiment."""


def trajectories(store: ArtifactStore) -> Iterator[Trajectory]:
    for manifest in store.manifests():
        if manifest.asset.endswith("_trajectories"):
            yield from read_jsonl(store.get(manifest.ref).path / "trajectories.jsonl", Trajectory)


def evaluations(store: ArtifactStore) -> Iterator[Evaluation]:
    for manifest in store.manifests():
        if "_evaluations/" in manifest.asset:
            yield from read_jsonl(store.get(manifest.ref).path / "evaluations.jsonl", Evaluation)


def texts(records: Iterator[Trajectory] | Iterator[Evaluation]) -> set[str]:
    return {record.model_dump_json() for record in records}


def test_imported_runs_come_back_field_by_field(imported: Import, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    done = imported.lab.frontier("export", "imported.yaml", "runs", "--out", str(exported))
    store = ArtifactStore(imported.lab.directory / "data", "imported")
    found = run_import(exported, at=tmp_path, labels={})
    assert not found.errors
    assert texts(trajectories(found.store)) == texts(trajectories(store))
    assert texts(evaluations(found.store)) == texts(evaluations(store))
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert f": {len(files)} files," in done.stderr


def test_judges_who_saw_different_samples_come_back(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "results", betas=("",))
    (path,) = tree.glob("maker_big-2/*_eval-judge-b_r9-12_*030405.jsonl")
    path.write_bytes(path.read_bytes().replace(b"switches lamp 9", b"switches on lamp 9"))
    first = run_import(tree, at=tmp_path / "first")
    assert {trajectory.sample for trajectory in trajectories(first.store)} == {0, 1}
    export_runs(build_graph(first.experiment()), first.store, tmp_path / "exported")
    again = run_import(tmp_path / "exported", at=tmp_path / "again", labels={})
    assert not again.errors

    def judged(store: ArtifactStore) -> set[tuple[object, ...]]:
        """Returns every verdict with what it is about; which sample comes first depends on the order of files."""
        logs = {t.trajectory_id: tuple(step.log for step in t.steps) for t in trajectories(store)}
        return {
            (v.agent, v.seed, v.case_idx, v.judge, v.metric, v.score, logs[v.trajectory_id]) for v in evaluations(store)
        }

    assert judged(again.store) == judged(first.store)


def carried(trajectory: Trajectory) -> str:
    """Returns what the released format carries of a trajectory, `IDENTITY` apart.

    It has one word for every ending without an answer (but for the step limit), and says by the texts alone who wrote
    an observation and whether the agent wrote one itself.
    """
    answered = trajectory.stop_reason is StopReason.final_answer
    kept = answered or trajectory.stop_reason is StopReason.step_limit
    blank = {"observation_source": ObservationSource.emulator, "self_observed": False, "observation_problem": ""}
    plain = {
        **ONLY_OURS,
        "final_self_observed": False,
        "final_cut_off": None,
        "stop_reason": trajectory.stop_reason if kept else StopReason.limit,
        "output": trajectory.output if answered else "",
        "steps": tuple(step.model_copy(update=blank) for step in trajectory.steps),
    }
    return trajectory.model_copy(update=plain).model_dump_json(exclude=set(IDENTITY))


def test_our_runs_come_back_a_tree_for_every_sample(finished: Lab, tmp_path: Path) -> None:
    miniature = tmp_path / "exported"
    finished.frontier("export", "small.yaml", "runs", "--out", str(miniature))
    ours = ArtifactStore(finished.directory / "data", "small")
    world = ImportedWorld(kind="imported", cases=SMALL["world"]["cases"])  # type: ignore[index]
    assert sorted(path.name for path in miniature.iterdir()) == [f"sample_{n}" for n in range(6)]
    counted = 0
    for sample in (0, 1, 5):
        found = run_import(miniature / f"sample_{sample}", at=tmp_path / str(sample), world=world, labels={})
        assert not found.errors
        expected = {carried(t) for t in trajectories(ours) if t.sample == sample}
        assert {carried(t) for t in trajectories(found.store)} == expected
        wanted = {verdict_carried(v) for v in evaluations(ours) if v.sample == sample}
        assert {verdict_carried(v) for v in evaluations(found.store)} == wanted
        counted += len(expected)
    assert counted == 3 * 2 * 12 + 2 * 3 * 2 * 6


def verdict_carried(verdict: Evaluation) -> str:
    """Returns a verdict without its identity and without how its score was found in the judge's reply."""
    return verdict.model_dump_json(exclude={"trajectory_id", "sample", "parsed_by", "error", "use"})
