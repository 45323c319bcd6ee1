"""What the page holds as data: points, the runs behind them, their lineage, and where their transcripts are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.nodes import Kind
from dagster_project.experiment.sections import Statistics
from dagster_project.report.cases import case_scores, load_changes
from dagster_project.report.page.charts.common import ALL, AVERAGE, Records, records, scoring_of
from dagster_project.report.runs import AXES, run_scores
from dagster_project.report.transcript_files import FOLDER, file_name
from dagster_project.report.values import beta_name, missing, recipe_order, scorings
from dagster_project.report.wording import scoring_title
from toolemu.terminal import printable

RUNS = """
    SELECT t.agent, t.seed, count(*) AS trajectories, count(*) FILTER (t.case_idx IN (
            SELECT s.case_idx FROM splits s WHERE s.split = 'test' AND s.seed = coalesce(t.seed, s.seed)
        )) AS held_out
    FROM trajectories t GROUP BY ALL ORDER BY agent, seed NULLS FIRST
"""
ARTIFACTS = """
    SELECT asset, "partition", kind, run_id, sha256, code_version, strftime(ended_at, '%Y-%m-%d %H:%M') AS ended
    FROM artifacts ORDER BY asset, "partition"
"""
COST = """
    SELECT CASE WHEN starts_with(asset, 'stage_') THEN replace(replace(asset, '/', ' '), '_', ' ')
            ELSE replace(split_part(asset, '/', 1), '_', ' ') END AS asset,
        count(*) AS artifacts, count(DISTINCT run_id) AS runs, sum(bytes) / 1e6 AS megabytes,
        sum(epoch(ended_at - started_at)) AS seconds
    FROM artifacts GROUP BY 1 ORDER BY min(ended_at), 1
"""
TOKENS = """
    SELECT 'agents' AS who, count(*) AS texts, sum(agent_tokens)::BIGINT AS tokens FROM trajectories
    UNION ALL
    SELECT 'judge ' || judge, count(*), sum(tokens)::BIGINT FROM evaluations GROUP BY judge ORDER BY 1
"""
SIZES = """
    WITH tested AS (
        SELECT DISTINCT t.agent, t.seed, a.model, coalesce(len(a.mixture), 0) > 0 AS mixed
        FROM trajectories t LEFT JOIN (SELECT DISTINCT ON (agent) agent, model, mixture FROM agents) a USING (agent)
        WHERE t.seed IS NOT NULL
    )
    SELECT (SELECT count(*) FROM trajectories) AS trajectories,
        (SELECT count(*) FROM trajectories WHERE failed) AS failed,
        (SELECT count(DISTINCT trajectory_id) FROM evaluations SEMI JOIN trajectories t
            ON t.trajectory_id = evaluations.trajectory_id AND t.failed) AS failed_scored,
        (SELECT count(*) FROM evaluations) AS verdicts,
        (SELECT count(DISTINCT judge) FROM evaluations) AS judges,
        (SELECT count(DISTINCT agent) FROM trajectories WHERE seed IS NULL) AS models,
        count(*) FILTER (NOT mixed) AS trainings, count(DISTINCT agent) FILTER (NOT mixed) AS agents,
        count(DISTINCT agent) FILTER (mixed) AS mixed, count(DISTINCT seed) AS seeds,
        count(DISTINCT model) AS trained_models
    FROM tested
"""
SOURCE = "source"
"""In place of a recipe: before training."""
LOADED = ("agents", "splits", "training_runs", "training_steps")


def load_tables(warehouse: Path, parquet: Iterable[Path], statistics: Statistics) -> dict[str, pd.DataFrame]:
    """Return every result table, and what the page shows of the warehouse, by name.

    Args:
        warehouse: The DuckDB file.
        parquet: The result tables' files, named like their tables.
        statistics: Of the experiment, for the changes from one training to another.
    """
    tables = {path.stem: pd.read_parquet(path) for path in parquet}
    with open_database(warehouse) as database:
        for name in LOADED:
            tables[name] = database.execute(f"FROM {name}").df()
        queries = {"runs": RUNS, "artifacts": ARTIFACTS, "cost": COST, "tokens": TOKENS, "sizes": SIZES}
        for name, query in queries.items():
            tables[name] = database.execute(query).df()
        tables["lineage"] = database.execute("FROM lineage").df()
    return {**tables, "case_scores": case_scores(warehouse), "changes": load_changes(warehouse, statistics)}


def point_rows(tables: Mapping[str, pd.DataFrame]) -> Records:
    """Return every point of the frontier chart: over all seeds with intervals, and of each seed without."""
    points = tables["frontier_points"]
    rows = []
    for row in points.to_dict("records"):
        numbers = {
            f"{axis}{kind}{end}": row[f"{axis}{kind}{end}"]
            for axis in AXES
            for kind in ("", "_delta")
            for end in ("", "_low", "_high")
        }
        rows.append({**_names(row, ALL), **numbers, "runs": int(row["runs"])})
    places, alone = _places(points["recipe"]), {scoring_of(*way) for way in scorings(points)}
    found = [{**row, "alone": row["scoring"] in alone} for row in (*rows, *_seed_points(tables, points))]
    return sorted(found, key=lambda row: (row["model"], places[row["recipe"]], row["beta"], row["seed"] != ALL))


def source_rows(tables: Mapping[str, pd.DataFrame]) -> Records:
    """Return every source model's own scores with intervals, by who scored."""
    rows = records(tables.get("source_points", pd.DataFrame()))
    return [
        {**row, "model": printable(row["model"]), "scoring": scoring_of(row["judging"], row["judge"])} for row in rows
    ]


def _places(recipes: Iterable[object]) -> dict[str, int]:
    """Returns the place of each recipe by its label."""
    return {Recipe(recipe).label: place for recipe, place in recipe_order(recipes).items()}


def _seed_points(tables: Mapping[str, pd.DataFrame], points: pd.DataFrame) -> Records:
    runs = run_scores(tables)
    if runs.empty:
        return []
    found = []
    for judging, judge in points[["judging", "judge"]].drop_duplicates().itertuples(index=False):
        kept = runs if missing(judge) else runs[runs["judge"] == judge]
        kept = kept if judging == "all" else kept[kept["judging"] == judging]
        keys = ["model", "recipe", "beta", "seed"]
        numbers = [name for axis in AXES for name in (axis, f"{axis}_delta")]
        means = (
            kept.groupby(keys, dropna=False)[numbers]
            .mean()
            .join(kept.groupby(keys, dropna=False).size().rename("runs"))
        )
        there = points[
            (points["judging"] == judging) & (points["judge"].isna() if missing(judge) else points["judge"] == judge)
        ]
        means = means.reset_index().merge(there[["model", "recipe", "beta"]], on=["model", "recipe", "beta"])
        for row in means.to_dict("records"):
            names = _names({**row, "judging": judging, "judge": judge}, str(row["seed"]))
            found.append({**names, **{name: row[name] for name in numbers}, "runs": int(row["runs"])})
    return found


def _names(row: Mapping[Any, Any], seed: str) -> dict[str, Any]:
    judge = AVERAGE if missing(row["judge"]) else printable(row["judge"])
    model = printable(row["model"])
    beta = beta_name(row["beta"])
    return {
        "id": "/".join((str(row["judging"]), judge, model, row["recipe"], beta, seed)),
        "scoring": scoring_of(row["judging"], row["judge"]),
        "panel": printable(scoring_title(str(row["judging"]), None if missing(row["judge"]) else str(row["judge"]))),
        "judging": row["judging"],
        "judge": judge,
        "model": model,
        "recipe": Recipe(row["recipe"]).label,
        "beta": beta,
        "seed": seed,
    }


def run_rows(tables: Mapping[str, pd.DataFrame]) -> Records:
    """Returns every agent and seed: what it is, its scores, its transcripts' file, and its artifacts by their place."""
    agents = tables["agents"].drop_duplicates("agent").set_index("agent").to_dict("index")
    scores: dict[tuple[str, int | None], Records] = {}
    for row in tables["agent_scores"].to_dict("records"):
        if not missing(row["judging"]):
            cell = {"judge": row["judge"], "metric": row["metric"], "mean": row["mean"], "n": row["n"]}
            scores.setdefault((row["agent"], int(row["seed"])), []).append(cell)
    behind = _lineage(tables)
    rows = []
    for run in tables["runs"].to_dict("records"):
        name, seed = str(run["agent"]), None if missing(run["seed"]) else int(run["seed"])
        agent = agents[name]
        partition = f"model={name}" if seed is None else f"agent={name}/seed={seed}"
        recipe = agent["recipe"]
        rows.append(
            {
                "agent": printable(name),
                "seed": seed,
                "model": printable(agent["model"]),
                "recipe": None if missing(recipe) else Recipe(recipe).label,
                "beta": None if missing(recipe) else beta_name(agent["beta"]),
                "pairs_judge": None if missing(recipe) else printable(agent["pairs_judge"]),
                "stages": [] if agent["stages"] is None else [dict(stage) for stage in agent["stages"]],
                "mixture": [] if agent["mixture"] is None else [dict(share) for share in agent["mixture"]],
                "trajectories": int(run["trajectories"]),
                "held_out": int(run["held_out"]),
                "file": f"{FOLDER}/{file_name(name, seed)}",
                "scores": scores.get((name, seed), []),
                "artifacts": behind.get(partition, []),
            }
        )
    order = _places(tables["agents"]["recipe"])
    return sorted(rows, key=lambda row: (row["model"], order.get(row["recipe"], -1), str(row["beta"]), row["agent"]))


def tested_cases(tables: Mapping[str, pd.DataFrame]) -> dict[int, list[int]]:
    """Returns each seed's held-out cases: some released runs hold the cases of the training half, too."""
    splits = tables["splits"]
    tested = splits[splits["split"] == "test"]
    return {int(str(seed)): [int(case) for case in group] for seed, group in tested.groupby("seed")["case_idx"]}


def score_rows(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return held-out scores by agent, seed, judge and metric, as cases and their mean scores, in the same order."""
    found: dict[str, Any] = {}
    keys = ["agent", "seed", "judge", "metric"]
    for (agent, seed, judge, metric), group in tables["case_scores"].groupby(keys, sort=False):
        place = (
            found.setdefault(printable(str(agent)), {}).setdefault(str(seed), {}).setdefault(printable(str(judge)), {})
        )
        place[str(metric)] = [group["case_idx"].tolist(), group["score"].round(3).tolist()]
    return found


def change_rows(tables: Mapping[str, pd.DataFrame]) -> Records:
    """Return the mean differences between trainings, with names as the page has them."""
    table = tables["changes"]
    return [
        {
            **row,
            "scoring": scoring_of(row["judging"], row["judge"]),
            "panel": printable(scoring_title(str(row["judging"]), row["judge"])),
            "model": ALL if row["model"] is None else printable(row["model"]),
            "beta": beta_name(row["beta"]),
            "first": SOURCE if row["first"] is None else Recipe(row["first"]).label,
            "second": Recipe(row["second"]).label,
        }
        for row in records(table)
    ]


def artifact_rows(tables: Mapping[str, pd.DataFrame]) -> Records:
    """Returns every artifact in the order that `artifacts` of a run counts in."""
    return tables["artifacts"].drop(columns="kind").to_dict("records")  # type: ignore[return-value]


def _lineage(tables: Mapping[str, pd.DataFrame]) -> dict[str, list[int]]:
    """Returns, by the partition of an agent or model, the places of its evaluations and of all that these came from."""
    listed = list(tables["artifacts"][["asset", "partition", "kind"]].itertuples(index=False, name=None))
    place = {(asset, partition): number for number, (asset, partition, _) in enumerate(listed)}
    read: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in tables["lineage"].to_dict("records"):
        read.setdefault((row["asset"], row["partition"]), []).append((row["input_asset"], row["input_partition"]))
    behind: dict[str, list[int]] = {}
    starts = [(asset, partition) for asset, partition, kind in listed if kind in (Kind.evaluations, Kind.trajectories)]
    for start in starts:
        found = behind.setdefault(start[1], [])
        queue = [start]
        for key in queue:  # grows while it is walked
            if key in place and place[key] not in found:
                found.append(place[key])
                queue += read.get(key, [])
    return behind
