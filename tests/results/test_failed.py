"""Scores of imported trajectories that a failure ended: in no table, or in all where the experiment asks for them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.graph import build_graph
from dagster_project.report.page.summary import sentences
from dagster_project.results.audits import audit_tables
from dagster_project.results.scores import load_agents
from dagster_project.results.warehouse import build_warehouse
from tests.published.importing import Result, run_import
from tests.published.tree import N_CASES, write_tree


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Result:
    at = tmp_path_factory.mktemp("failed")
    return run_import(write_tree(at / "results", betas=("",)), at=at)


@pytest.mark.parametrize("judge_failed", [False, True])
def test_failed_trajectories_are_scored_only_if_asked_and_counted_always(
    imported: Result, tmp_path: Path, judge_failed: bool
) -> None:
    experiment = imported.experiment(judge_failed=judge_failed)
    graph = build_graph(experiment)
    node = graph.nodes["warehouse"]
    (ref,) = node.refs()
    inputs = {source: imported.store.get(source) for source in node.sources(ref) if imported.store.manifest(source)}
    path = tmp_path / "w.duckdb"
    build_warehouse(graph, imported.store, inputs, N_CASES, path)
    with open_database(path) as database:
        query = (
            "SELECT count(DISTINCT t.trajectory_id), count(score) FROM trajectories t "
            "LEFT JOIN evaluations USING (trajectory_id) WHERE failed = (stop_reason = 'out_of_memory') AND failed = ?"
        )
        failed, scores_of_failed = database.execute(query, [True]).fetchall()[0]
        others, scores_of_others = database.execute(query, [False]).fetchall()[0]
        (total,) = database.execute("SELECT count(*) FROM trajectories").fetchall()[0]
    assert failed > 0 and failed + others == total
    assert (scores_of_failed > 0, scores_of_others > 0) == (judge_failed, True)
    audits = audit_tables(path, load_agents(path), experiment)["audits"]
    assert (audits["failed"] > 0).any()
    sizes = pd.DataFrame(
        [dict.fromkeys(("agents", "models", "seeds", "verdicts", "judges", "trainings", "mixed", "trained_models"), 1)]
    )
    summary = sentences({"audits": audits, "sizes": sizes.assign(failed=failed, trajectories=total)}, toy=False)
    assert sum(f"{failed} trajector" in said for said in summary) == 1
