"""The main numbers of a small made-up experiment, recomputed from its records in other lines."""

from __future__ import annotations

import itertools
from pathlib import Path

import duckdb
import numpy as np
import pytest

from dagster_project.experiment.agents import PAPER
from dagster_project.experiment.sections import Statistics
from dagster_project.experiment.spec import Experiment
from dagster_project.results.agreement import agreement_tables
from dagster_project.results.audits import audit_tables
from dagster_project.results.frontier import frontier
from dagster_project.results.persistence import persistence
from dagster_project.results.scores import load_agents, load_scores
from tests.published.importing import WORLD

from . import recompute
from .tiny import Trained, Verdict, build

STATISTICS = Statistics(n_bootstrap=3000)
MODELS, JUDGES = ("m", "n"), ("a", "b")
SAFETY = {"safe": 1.2, "help": 0.1, "both": 1.0, "safe_then_help": 0.9, "help_then_safe": 0.8}
HELPFULNESS = {"safe": -0.8, "help": 0.5, "both": -0.4, "safe_then_help": -0.5, "help_then_safe": -0.6}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, five recipes, two judges, three seeds that hold out 12 of 20 cases each; scores at random."""
    generator = np.random.default_rng(3)
    splits = {seed: sorted(generator.permutation(20)[:12].tolist()) for seed in range(3)}
    agents = [Trained(model, recipe, judge) for model, recipe, judge in itertools.product(MODELS, PAPER, JUDGES)]
    hard = generator.normal(0, 0.5, 20)
    verdicts = []

    def add(agent: str, seed: int | None, case: int, judge: str, level: dict[str, float]) -> None:
        for metric, mean in level.items():
            score = np.clip(np.rint(mean + hard[case] + generator.normal(0, 0.6)), 0, 3)
            verdicts.append(Verdict(agent, seed, case, float(score), judge, metric))

    for model, case, judge in itertools.product(MODELS, range(20), JUDGES):
        add(model, None, case, judge, {"safe": 1.0, "help": 2.0})
    for agent in agents:
        for seed, cases in splits.items():
            shift = generator.normal(0, 0.2, 2)
            level = {"safe": 1 + SAFETY[agent.recipe] + shift[0], "help": 2 + HELPFULNESS[agent.recipe] + shift[1]}
            for case in cases:
                add(agent.key, seed, case, agent.judge, level)
    path = build(tmp_path_factory.mktemp("recomputed") / "w.duckdb", agents, verdicts, MODELS, splits)
    with duckdb.connect(str(path)) as database:
        database.execute("""
            UPDATE trajectories SET self_observed = hash(trajectory_id) % 2, emulator_calls = hash(trajectory_id) % 3,
                stop_reason = CASE WHEN hash(trajectory_id) % 5 = 0 THEN 'limit' ELSE 'final_answer' END
        """)
    return path


def test_deltas_and_lines(warehouse: Path) -> None:
    records = recompute.read(warehouse)
    found = frontier(load_scores(warehouse), load_agents(warehouse), STATISTICS)
    assert recompute.check_points(records, found.points) == 2 * 5 * 3
    assert recompute.check_lines(records, found.points, found.fits) == 3


def test_persistence_in_all_its_forms(warehouse: Path) -> None:
    found = persistence(load_scores(warehouse), load_agents(warehouse), STATISTICS)
    assert recompute.check_persistence(recompute.read(warehouse), found.persistence, found.differences) == 3 * 3 * 2
    assert recompute.check_differences(found.persistence, found.differences) > 0
    assert {"gain", "no gain"} == set(found.persistence["gain_verdict"])


def test_agreement_and_audits(warehouse: Path) -> None:
    agreement = agreement_tables(warehouse, STATISTICS)["judge_agreement"]
    assert recompute.check_agreement(warehouse, agreement) == 2 * 3
    audits = audit_tables(warehouse, load_agents(warehouse), Experiment(name="tiny", world=WORLD))["audits"]
    assert recompute.check_audits(warehouse, audits) == (2 * 5 * 2 + 2) * 3
