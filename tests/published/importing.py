"""An import in this process, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.environments.imported import ImportedWorld
from dagster_project.experiment.graph import CODE_VERSIONS, IMPORT
from dagster_project.experiment.imported import Inventory
from dagster_project.experiment.spec import Experiment
from dagster_project.published.importer import import_runs
from dagster_project.published.opening import open_experiment
from dagster_project.published.problems import Problem
from dagster_project.published.sources import source_name
from tests.published.tree import JUDGES, N_CASES
from toolemu.evaluation import Evaluation
from toolemu.jsonl import read_jsonl
from toolemu.trajectory import Trajectory

WORLD = ImportedWorld(kind="imported", cases=N_CASES, seeds=(0, 1), pairs_judges=dict(JUDGES))


class Result(NamedTuple):
    """What an import left behind."""

    store: ArtifactStore
    inventory: Inventory
    problems: list[Problem]
    counts: dict[str, int]

    @property
    def errors(self) -> Counter[str]:
        return Counter(problem.kind for problem in self.problems if not problem.note)

    @property
    def notes(self) -> Counter[str]:
        return Counter(problem.kind for problem in self.problems if problem.note)

    def about(self, kind: str) -> list[str]:
        return [str(problem) for problem in self.problems if problem.kind == kind]

    def trajectories(self, asset: str, **partition: str) -> list[Trajectory]:
        return read_jsonl(self.store.get(Ref.of(asset, **partition)).path / "trajectories.jsonl", Trajectory)

    def evaluations(self, asset: str, **partition: str) -> list[Evaluation]:
        return read_jsonl(self.store.get(Ref.of(asset, **partition)).path / "evaluations.jsonl", Evaluation)

    def experiment(self, *, judge_failed: bool = True) -> Experiment:
        bare = Experiment(name=self.store.experiment, world=WORLD, judge_failed=judge_failed)
        return open_experiment(bare, self.store)


def run_import(
    *roots: Path, at: Path, world: ImportedWorld = WORLD, labels: Mapping[str, str] | None = None, processes: int = 1
) -> Result:
    """Imports trees into a store below `at`, named `imported`."""
    store = ArtifactStore(at / "data", "imported")
    with store.write(
        Ref(IMPORT), run_id="run", code_version=CODE_VERSIONS[IMPORT], config=world.model_dump(), inputs={}
    ) as draft:
        found = import_runs(
            {source_name(root): root for root in roots},
            store,
            run_id="run",
            n_cases=world.cases,
            labels=world.pairs_judges if labels is None else labels,
            out=draft.path,
            scratch=at / "scratch",
            processes=processes,
        )
    return Result(store, found.inventory, found.problems, found.counts)
