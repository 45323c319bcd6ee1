"""Agents of two pairs' judges, each scored by both judges: every way of judging, with means computed from the files."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import orjson
import pytest

from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.splits import split_cases
from dagster_project.results.agreement import agreement_tables
from dagster_project.results.frontier import Frontier
from dagster_project.results.warehouse import build_warehouse
from tests.published.importing import Result, run_import
from tests.published.tree import (
    JUDGES,
    KEYS,
    METRICS,
    N_CASES,
    SEEDS,
    SOURCES,
    plain_score,
    trained_directory,
    write_lines,
    write_tree,
)
from tests.results.tiny import PLAIN, compute_frontier, pick

SAFE, HELP = METRICS
AXES = {SAFE: "safety", HELP: "helpfulness"}


def warehouse_of(result: Result, path: Path) -> Path:
    experiment = result.experiment()
    node = build_graph(experiment).nodes["warehouse"]
    (ref,) = node.refs()
    inputs = {source: result.store.get(source) for source in node.inputs(ref) if result.store.manifest(source)}
    build_warehouse(experiment, result.store, inputs, N_CASES, path)
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Frontier:
    at = tmp_path_factory.mktemp("judgings")
    trees = [write_tree(at / name, betas=("",), cross=name == "cross") for name in ("match", "cross")]
    result = run_import(*trees, at=at)
    assert not result.errors
    return compute_frontier(warehouse_of(result, at / "w.duckdb"))


WAYS = {
    "match": [("alpha", "alpha"), ("beta2", "beta2")],
    "cross": [("alpha", "beta2"), ("beta2", "alpha")],
    "all": [(trained, judge) for trained in JUDGES for judge in JUDGES],
}


@pytest.mark.parametrize("judging", WAYS)
@pytest.mark.parametrize("judge", [None, "alpha", "beta2"])
def test_points_of_every_way_of_judging(found: Frontier, judging: str, judge: str | None) -> None:
    ways = [way for way in WAYS[judging] if judge in (None, way[1])]
    key = None if judge is None else KEYS[judge]
    for recipe in (("safe",), ("help", "safe")):
        row = pick(found.points, model="Big2", recipe="_then_".join(recipe), judging=judging, judge=key)
        for metric, axis in AXES.items():
            own, source = [], []
            for label, by in ways:
                for seed in SEEDS:
                    directory = trained_directory("Big2", recipe, label, "", seed)
                    test = split_cases(N_CASES, seed).test
                    own += [plain_score(directory, seed, case, by, metric) for case in test]
                    source += [plain_score(SOURCES[1], None, case, by, metric) for case in test]
            assert row[axis] == pytest.approx(fmean(own)), (recipe, axis)
            assert row[f"{axis}_delta"] == pytest.approx(fmean(own) - fmean(source)), (recipe, axis)
        assert row["runs"] == len(ways) * len(SEEDS)


def test_source_models_are_averaged_over_the_judges_of_a_way(found: Frontier) -> None:
    for judging, ways in WAYS.items():
        row = pick(found.sources, model="Tiny1B", judging=judging, judge=None)
        for metric, axis in AXES.items():
            places = [(case, judge) for _, judge in ways for seed in SEEDS for case in split_cases(N_CASES, seed).test]
            scores = [plain_score(SOURCES[0], None, case, judge, metric) for case, judge in places]
            assert row[axis] == pytest.approx(fmean(scores))


def test_agents_that_only_their_own_judge_scored_have_no_cross_judging(tmp_path: Path) -> None:
    result = run_import(write_tree(tmp_path / "results", betas=("",)), at=tmp_path)
    points = compute_frontier(warehouse_of(result, tmp_path / "w.duckdb")).points
    assert set(points["judging"]) == {"match"}


def test_replicates_of_a_tree_agree_as_far_as_they_do(tmp_path: Path) -> None:
    """One judge's verdicts become three each: the score itself twice, and one that is a point off in every third."""
    tree = write_tree(tmp_path / "results", betas=("",))
    off = whole = 0
    for path in sorted(tree.glob("*/*_eval-judge-b_*_eval_agent_safe.jsonl")):
        records = []
        for line in path.read_bytes().splitlines():
            record = orjson.loads(line)
            score = record["eval_scores"]["ToolCallRisk"]
            last = score + (1 if score < 3 else -1) if whole % 3 == 0 else score
            off, whole = off + (last != score), whole + 1
            replicates = [{**record, "eval_scores": {"ToolCallRisk": value}} for value in (score, score, last)]
            records.append({"eval_id": record["eval_id"], "replicates": replicates, "consistency": None})
        write_lines(path, records)
    result = run_import(tree, at=tmp_path)
    assert not result.errors
    table = agreement_tables(warehouse_of(result, tmp_path / "w.duckdb"), PLAIN)["replicate_consistency"]
    row = pick(table, judge="judge-b", metric="safe")
    assert (len(table), row["trajectories"], row["replicates"]) == (1, whole, 3)
    assert row["exact_match"] == pytest.approx(1 - off / whole) and 0 < off < whole
    assert (row["majority_agree"], row["all_but_one_agree"], row["within_1"]) == (1, 1, 1)
    assert row["mean_variance"] == pytest.approx(off / whole * 2 / 9)
