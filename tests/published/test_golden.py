"""The paper's released runs: every number that the released code computes from them, to 1e-9.

The numbers are those of `reference/golden` beside the data (made by running the released code on it); these tests read
both from where `PUBLISHED_RUNS` says.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import orjson
import pandas as pd
import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.sections import Statistics
from dagster_project.experiment.spec import Experiment, load_experiment
from dagster_project.experiment.splits import split_cases
from dagster_project.published.conversations import published_conversation
from dagster_project.published.export import export_pairs, export_runs, source_trajectories
from dagster_project.published.names import DEFAULT_BETA, parse_agent_name, short_name
from dagster_project.published.opening import open_experiment
from dagster_project.results.agreement import agreement_tables
from dagster_project.results.audits import audit_tables
from dagster_project.results.frontier import Frontier, frontier
from dagster_project.results.persistence import persistence
from dagster_project.results.scores import Scores, agent_scores, load_agents, load_scores
from dagster_project.results.warehouse import build_warehouse
from tests.published.importing import Result, run_import
from tests.results import recompute

CLOSE = 1e-9
LABELS = {"q32": "Qwen3-32B", "gpt5m": "gpt-5-mini"}
STAGES = {"help": "H", "safe": "S", "both": "S&H", "safe_then_help": "S,H", "help_then_safe": "H,S"}
Golden = Callable[[str], Any]


@pytest.fixture(scope="session")
def golden(published_runs: Path) -> Golden:
    """Reads one of the files with the released code's numbers."""
    for folder in (published_runs / "golden", published_runs.parent / "reference" / "golden"):
        if folder.is_dir():
            return lambda name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    pytest.skip(f"the released code's numbers are not beside {published_runs} (golden, or ../reference/golden)")


class Warehouse(NamedTuple):
    """A warehouse of imported runs, with the scores in it."""

    path: Path
    scores: Scores
    agents: pd.DataFrame
    result: Result


def open_published(result: Result) -> Experiment:
    bare = load_experiment("published").model_copy(update={"name": "imported"})
    return open_experiment(bare, result.store)


def without_draws(result: Result) -> Experiment:
    return open_published(result).model_copy(update={"statistics": Statistics(n_bootstrap=0)})


def make_warehouse(result: Result, path: Path) -> Warehouse:
    experiment = open_published(result)
    graph = build_graph(experiment)
    node = graph.nodes["warehouse"]
    inputs = {ref: result.store.get(ref) for ref in node.sources(Ref("warehouse")) if result.store.manifest(ref)}
    build_warehouse(graph, result.store, inputs, 144, path)
    return Warehouse(path, load_scores(path), load_agents(path), result)


def imported_warehouse(tree: Path, at: Path) -> Warehouse:
    world = load_experiment("published").world
    return make_warehouse(run_import(tree, at=at, world=world, processes=2), at / "w.duckdb")  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def match(published_tree: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return imported_warehouse(published_tree("match_eval_results"), tmp_path_factory.mktemp("match"))


@pytest.fixture(scope="session")
def raw(published_tree: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return imported_warehouse(published_tree("raw_data_by_eval"), tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="session")
def found(match: Warehouse) -> Frontier:
    return frontier(match.scores, match.agents, Statistics(n_bootstrap=0))


def config(recipe: object, beta: float) -> str:
    return "base" if pd.isna(recipe) else f"{STAGES[str(recipe)]}-{beta:g}"  # type: ignore[call-overload]


def close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=0, abs_tol=CLOSE)


def test_everything_is_imported(match: Warehouse, raw: Warehouse) -> None:
    assert match.result.errors == raw.result.errors == {}
    assert match.result.notes == {"all_cases": 28, "out_of_memory": 14}
    assert raw.result.notes == {"nested": 30}
    assert (match.result.counts["files"], raw.result.counts["files"]) == (5580, 1620)
    with duckdb.connect(str(match.path), read_only=True) as database:
        counted = database.execute("SELECT count(*), count(DISTINCT trajectory_id) FROM imported_records").fetchone()
        verdicts = database.execute("SELECT count(*), count(score) FROM evaluations").fetchone()
    assert counted == (15_840, 15_408), "432 source trajectories were scored by both judges"
    assert verdicts == (31_680, 31_680)


def test_the_mean_spread_and_histogram_of_every_configuration(match: Warehouse, golden: Golden) -> None:
    table = agent_scores(match.scores, match.agents)
    rows = {(row.agent, row.seed, row.judge, row.metric): row for row in table.itertuples(index=False)}
    expected = golden("test_set_unified_metrics")["match"]
    assert len(expected) == 198
    for name, numbers in expected.items():
        directory, judge = name.split("|")
        agent, seed = ours(directory)
        for metric, key in (("safe", "safe"), ("help", "help_ignore")):
            row: Any = rows[agent, seed, short_name(judge), metric]
            assert close(row.mean, numbers[f"{key}_mean"]) and close(row.std, numbers[f"{key}_std"]), name
            assert row.n == numbers[f"{key}_n"]
            histogram = [row.score_0, row.score_1, row.score_2, row.score_3]
            assert histogram == [numbers[f"{key}_hist"].get(str(score), 0) for score in range(4)], name


def ours(directory: str) -> tuple[str, int]:
    """Returns our key and the seed of a configuration of the released code."""
    sources = {"Llama-3.1-8B": "Llama3.1-8B", "phi-4": "Phi-4"}
    if not directory.startswith("dpo_"):
        name, _, seed = directory.rpartition("_s")
        return sources.get(short_name(name), short_name(name)), int(seed)
    name = parse_agent_name(directory)
    stage = name.stages[0]
    recipe = "_then_".join(part.metric.value for part in name.stages)
    assert name.seed is not None
    return f"{name.model}:{recipe}:{LABELS[stage.label]}:{stage.beta or DEFAULT_BETA:g}", name.seed


def test_averages_over_models_judges_and_seeds(found: Frontier, golden: Golden) -> None:
    expected = golden("aggregates_and_fits")["match"]
    table = found.recipes[(found.recipes["judging"] == "match") & found.recipes["judge"].isna()]
    rows = {config(row["recipe"], row["beta"]): row for row in table.to_dict("records")}
    assert rows.keys() == expected["aggregated_results"].keys()
    for name, (helpfulness, safety, runs) in expected["aggregated_results"].items():
        assert close(rows[name]["helpfulness"], helpfulness) and close(rows[name]["safety"], safety), name
        assert name == "base" or rows[name]["runs"] == runs
    for name, (helpfulness, safety) in expected["aggregated_deltas"].items():
        assert close(rows[name]["helpfulness_delta"], helpfulness) and close(rows[name]["safety_delta"], safety), name


def test_means_and_spread_of_every_model_and_judge(match: Warehouse, found: Frontier, golden: Golden) -> None:
    expected = golden("aggregates_and_fits")["match"]["per_model_evaluator"]
    points = found.points[(found.points["judging"] == "match") & found.points["judge"].notna()]
    rows = {(r["judge"], r["model"], config(r["recipe"], r["beta"])): r for r in points.to_dict("records")}
    scores = agent_scores(match.scores, match.agents)
    for name, (helpfulness, safety, help_sd, safe_sd, runs, _) in expected.items():
        judge, model, training = name.split("|")
        if training == "base":
            own = scores[(scores["agent"] == model) & (scores["judge"] == judge)]
            by = own.groupby("metric")["mean"].agg(["mean", "std"])
            numbers = [by.loc[m, k] for k in ("mean", "std") for m in ("help", "safe")]
        else:
            row = rows[judge, model, training]
            assert row["runs"] == runs
            numbers = [row["helpfulness"], row["safety"], row["helpfulness_sd"], row["safety_sd"]]
        assert np.allclose(numbers, [helpfulness, safety, help_sd, safe_sd], rtol=0, atol=CLOSE), name


def test_the_points_of_the_frontier(found: Frontier, golden: Golden) -> None:
    judges = {"all": None, "eval-q32": "Qwen3-32B", "eval-gpt5m": "gpt-5-mini"}
    sources = {(r["model"], r["judge"]): r for r in found.sources.to_dict("records") if r["judging"] == "match"}
    for suffix, part in golden("extras_match")["frontier"].items():
        table = found.points[found.points["judging"] == "match"]
        judge = judges[suffix]
        table = table[table["judge"].isna() if judge is None else table["judge"] == judge]
        rows = {(row["model"], config(row["recipe"], row["beta"])): row for row in table.to_dict("records")}
        assert len(part["points"]) == len(rows) == 30
        for point in part["points"]:
            row = rows[point["source_model"], point["config"]]
            assert close(row["helpfulness_delta"], point["helpfulness_delta"])
            assert close(row["safety_delta"], point["safety_delta"])
            base = next(
                r
                for (model, by), r in sources.items()
                if model == row["model"] and (by == judge or (judge is None and pd.isna(by)))
            )
            assert close(base["helpfulness"], point["base_helpfulness"]) and close(base["safety"], point["base_safety"])


def test_the_line_on_every_set_of_points(found: Frontier, golden: Golden) -> None:
    extras = golden("extras_match")
    names = {
        "without_help_only": "without_help",
        "without_both_joint": "without_both",
        "without_Llama": "without_Llama3.1-8B",
        "raw_scores_33_points": "raw_scores",
        "per_run_180_points": "per_run",
        "per_seed_90_points": "per_seed",
    }
    compared = 0
    for suffix, judge in (("all", None), ("eval-q32", "Qwen3-32B"), ("eval-gpt5m", "gpt-5-mini")):
        fits = found.fits[found.fits["judging"] == "match"]
        fits = fits[fits["judge"].isna() if judge is None else fits["judge"] == judge].set_index("point_set")
        sets = {"model_recipe": extras["frontier"][suffix], **extras["frontier_other_point_sets"][suffix]}
        for name, expected in sets.items():
            row = fits.loc[names.get(name, name)]
            if name == "through_origin":
                pairs = [(row["slope"], expected["slope"]), (row["r2"], expected["r2_centred"])]
                pairs += [(row["r2_uncentred"], expected["r2_uncentred"])]
            else:
                keys = ("r", "r2", "slope", "slope_se", "intercept", "intercept_se")
                pairs = [(row[key], expected[key]) for key in keys] + [(row["paper_p"], expected["p"])]
            assert row["n"] == expected["n"]
            for one, other in pairs:
                assert close(one, other), (suffix, name)
            compared += 1
    assert compared == 3 + 10 + 8 + 8
    main = golden("aggregates_and_fits")["match"]["delta_by_model_fit"]["averaged"]
    assert round(main["r2"], 4) == 0.7655


def persistence_rows(table: pd.DataFrame) -> dict[tuple[str, float, str | None, str | None], dict[str, Any]]:
    return {
        (
            str(row["metric"]),
            float(row["beta"]),
            None if pd.isna(row["judge"]) else str(row["judge"]),
            None if pd.isna(row["model"]) else str(row["model"]),
        ): row
        for row in table[table["judging"] == "match"].to_dict("records")  # type: ignore[misc]
    }


def places(by_beta: Any) -> list[tuple[float, str | None, str | None, dict[str, float]]]:
    found = []
    for beta, levels in by_beta.items():
        found.append((float(beta), None, None, levels["average"]))
        found += [(float(beta), None, model, entry) for model, entry in levels["by_model"].items()]
        found += [(float(beta), short_name(judge), None, entry) for judge, entry in levels["by_evaluator"].items()]
        for key, entry in levels["by_model_and_evaluator"].items():
            judge, model = key.split("|")
            found.append((float(beta), short_name(judge), model, entry))
    return found


def test_persistence_to_the_last_digit(match: Warehouse, golden: Golden) -> None:
    rows = persistence_rows(persistence(match.scores, match.agents, Statistics(n_bootstrap=0)).persistence)
    expected = places(golden("persistence_point_estimates")["match"]["persistence"]["by_beta"])
    assert len(expected) == 2 * 12
    for beta, judge, model, entry in expected:
        for metric, key in (("safe", "persist_s"), ("help", "persist_h")):
            assert close(rows[metric, beta, judge, model]["paper_position"], entry[key]), (beta, judge, model, metric)


@pytest.mark.parametrize("order", ["gpt_first", "qwen_first"])
def test_persistence_intervals_within_the_error_of_chance(match: Warehouse, golden: Golden, order: str) -> None:
    """Ten thousand draws, twice: the difference of two such quantiles, against how they scatter over seeds of ours."""
    tables = [
        persistence_rows(persistence(match.scores, match.agents, Statistics(n_bootstrap=10_000, seed=seed)).persistence)
        for seed in range(4)
    ]
    expected = places(golden(f"persistence_match_boot10000_order_{order}")["persistence"]["by_beta"])
    deviations = []
    for beta, judge, model, entry in expected:
        for metric, key in (("safe", "persist_s"), ("help", "persist_h")):
            for bound, name in (("paper_released_low", "ci_lower"), ("paper_released_high", "ci_upper")):
                values = np.array([table[metric, beta, judge, model][bound] for table in tables])
                width = tables[0][metric, beta, judge, model]["paper_released_high"]
                width -= tables[0][metric, beta, judge, model]["paper_released_low"]
                # A 2.5% quantile of 10,000 draws scatters by about 0.7% of the interval's width; skewed ones by more.
                scatter = max(float(values.std(ddof=1)), 0.007 * width)
                deviations.append(abs(entry[f"{key}_{name}"] - values.mean()) / scatter)
    assert len(deviations) == 2 * 12 * 2 * 2
    assert max(deviations) < 6 and float(np.median(deviations)) < 1.2


@pytest.mark.slow
def test_the_main_numbers_recomputed_in_other_lines(match: Warehouse) -> None:
    records, statistics = recompute.read(match.path), Statistics(n_bootstrap=3000)
    found = frontier(match.scores, match.agents, statistics)
    assert recompute.check_points(records, found.points) == 30 * 3
    assert recompute.check_lines(records, found.points, found.fits) == 3
    kept = persistence(match.scores, match.agents, statistics)
    assert recompute.check_persistence(records, kept.persistence, kept.differences) == 2 * 2 * 3 * 4
    agreement = agreement_tables(match.path, statistics)["judge_agreement"]
    assert recompute.check_agreement(match.path, agreement) == 2 * 3
    assert agreement.loc[agreement["whose"] == "trained", "n"].tolist() == [0, 0], "no agent was scored by both judges"
    audits = audit_tables(match.path, match.agents, without_draws(match.result))["audits"]
    assert recompute.check_audits(match.path, audits) == (60 + 3) * 3


def test_token_limits(match: Warehouse, golden: Golden) -> None:
    tables = audit_tables(match.path, match.agents, without_draws(match.result))
    rows = {
        (
            row["model"],
            "base" if pd.isna(row["recipe"]) else str(row["recipe"]).replace("_then_", ","),
            row["beta"],
        ): row
        for row in tables["token_limits"].to_dict("records")
    }
    expected = golden("extras_match")["token_limit"]
    assert len(expected) == 33
    for entry in expected:
        row = next(
            row
            for (model, stages, beta), row in rows.items()
            if (model, stages) == (entry["source_model"], entry["stages"])
            and (entry["beta"] == "-" or float(entry["beta"]) == beta)
        )
        assert (row["n"], row["out_of_memory"]) == (entry["n"], entry["oom"])
        assert close(row["token_limit_rate"], entry["token_limit_rate"])
        for ours_, theirs in (
            ("safe_limited", "mean_safe_token_limited"),
            ("help_limited", "mean_help_token_limited"),
            ("safe_other", "mean_safe_other"),
            ("help_other", "mean_help_other"),
        ):
            assert pd.isna(row[ours_]) if entry[theirs] is None else close(row[ours_], entry[theirs]), entry


def test_how_trajectories_ended(match: Warehouse, raw: Warehouse) -> None:
    query = """
        SELECT sum((stop_reason = 'limit')::INTEGER), sum((stop_reason = 'out_of_memory')::INTEGER), sum(steps),
            sum(empty_observations), sum((stop_reason = 'limit' AND agent_characters < 8000)::INTEGER)
        FROM imported_records JOIN trajectories USING (trajectory_id)
        WHERE judge = judge AND ($judge IS NULL OR judge = $judge)
    """
    with duckdb.connect(str(match.path), read_only=True) as database:
        ended = database.execute(query, {"judge": None}).fetchone()
    assert ended == (2028, 14, 16_611, 1058, 309)
    with duckdb.connect(str(raw.path), read_only=True) as database:
        ended = database.execute(query, {"judge": "Qwen3-32B"}).fetchone()
    assert ended == (71, 0, 5876, 397, 55)


def test_how_metrics_go_together(raw: Warehouse) -> None:
    table = agreement_tables(raw.path, Statistics(n_bootstrap=0))["metric_correlation"]
    rows = {row["judge"]: row for row in table[table["whose"] == "source"].to_dict("records")}
    expected = {"Qwen3-32B": (0.0526, -0.0171, -0.0170), "gpt-5-mini": (0.1117, 0.0894, 0.0741)}
    for judge, numbers in expected.items():
        assert tuple(round(rows[judge][name], 4) for name in ("pearson", "spearman", "kendall")) == numbers
        assert rows[judge]["n"] == 3888


def setting(name: str) -> tuple[str, TrainedMetric, dict[str, Any]]:
    """Returns judge, metric and rules of one of the released code's settings."""
    label, _, rest = name.partition("_")
    lead = "safe" if rest.startswith("safe") else "help"
    if "-m2" not in rest:
        return LABELS[label], TrainedMetric(lead), {}
    combine = "mean" if "average" in rest else "each"
    return LABELS[label], TrainedMetric.both, {"lead": lead, "combine": combine}


def test_pairs_to_the_last_digit_of_their_digests(raw: Warehouse, golden: Golden) -> None:
    store: ArtifactStore = raw.result.store
    experiment = open_published(raw.result)
    trajectories = source_trajectories(build_graph(experiment), store)
    texts = {identity: published_conversation(trajectory) for identity, trajectory in trajectories.items()}
    expected = golden("dpo_pairs")
    assert len(expected) == 12
    for name, numbers in expected.items():
        judge, metric, rules = setting(name)
        pairing = experiment.pairs.model_copy(update={"lead": None, **rules})
        graph = build_graph(experiment.model_copy(update={"pairs": pairing}))
        pairs = export_pairs(graph, store, judge, metric, range(144), trajectories)
        candidates, selected, files = pairs
        rows = [
            (f"{candidates.cases[c]}|{files[c]}|{files[r]}|{high:.0f}|{low:.0f}", c, r)
            for c, r, high, low in zip(
                selected.chosen.tolist(),
                selected.rejected.tolist(),
                selected.chosen_scores.tolist(),
                selected.rejected_scores.tolist(),
                strict=True,
            )
        ]
        assert (len(rows), selected.counts["cases"]) == (numbers["pairs"], numbers["cases"]), name
        assert sha256(sorted(line for line, _, _ in rows)) == numbers["pair_set_sha256"], name
        assert sha256([line.rsplit("|", 2)[0] for line, _, _ in rows]) == numbers["file_order_sha256"], name
        for seed, split in numbers["split"].items():
            train = set(split_cases(144, int(seed)).train)
            assert sum(int(candidates.cases[c]) in train for _, c, _ in rows) == split["train_pairs"], name
        digest = hashlib.sha256()
        invented = 0
        for _, c, r in sorted(rows):
            pair = [texts[candidates.ids[c]], texts[candidates.ids[r]]]
            digest.update(json.dumps(pair, sort_keys=True, separators=(",", ":")).encode() + b"\n")
            invented += any(m["role"] == "assistant" and "Observation:" in m["content"] for m in pair[0])
        assert digest.hexdigest() == numbers["conversations_sha256"], name
        assert invented == numbers["chosen_with_hallucinated_observation"], name


def sha256(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_split_of_every_seed(golden: Golden) -> None:
    for seed, cases in golden("test_split_indices").items():
        assert list(split_cases(144, int(seed)).test) == cases


def test_released_records_come_out_as_they_went_in(
    raw: Warehouse, published_tree: Callable[[str], Path], tmp_path: Path
) -> None:
    experiment = open_published(raw.result)
    export_runs(build_graph(experiment), raw.result.store, tmp_path / "out")
    written = tmp_path / "out" / "Qwen2.5-7B"
    theirs = published_tree("raw_data_by_eval") / "q32" / "Qwen_Qwen2.5-7B-Instruct"
    for ending in ("", "_eval_agent_safe", "_eval_agent_help_ignore_safety"):
        (path,) = written.glob(f"*_eval-Qwen3-32B_*[0-9]{ending}.jsonl")
        ours_ = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        files = sorted(
            theirs.glob(f"*_r*[0-9]{ending}.jsonl"), key=lambda file: int(file.name.split("_r")[1].split("-")[0])
        )
        released = [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]
        if ending:
            for records in (ours_, released):
                for record in records:
                    record.pop("eval_id")  # counted within a file, and theirs are ten
        assert ours_ == released
