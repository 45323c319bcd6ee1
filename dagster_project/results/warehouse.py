"""The warehouse: one DuckDB file with every record of an experiment, rebuilt from its artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from dagster_project.artifacts import Artifact, ArtifactStore, Manifest, Ref
from dagster_project.artifacts.database import open_database
from dagster_project.artifacts.failures import failures
from dagster_project.collect.accounting import FIELDS
from dagster_project.experiment.graph import IMPORT, Graph, acting_model
from dagster_project.experiment.nodes import Kind
from dagster_project.experiment.spec import Experiment
from dagster_project.experiment.splits import split_cases
from dagster_project.results.operations import failure_rows, operation_rows
from toolemu.trajectory import FAILURES

_FAILURES = ", ".join(repr(reason.value) for reason in FAILURES)
SCHEMA = Path(__file__).parent / "sql" / "warehouse.sql"
TRAJECTORY_COLUMNS = {
    "trajectory_id": "VARCHAR",
    "agent": "VARCHAR",
    "seed": "INTEGER",
    "case_idx": "INTEGER",
    "sample": "INTEGER",
    "emulator": "VARCHAR",
    "stop_reason": "VARCHAR",
    "steps": "STRUCT(self_observed BOOLEAN, observation VARCHAR, observation_source VARCHAR, log VARCHAR)[]",
    "final_log": "VARCHAR",
    "final_self_observed": "BOOLEAN",
    "final_cut_off": "BOOLEAN",
    "agent_tokens": "BIGINT",
}
EVALUATION_COLUMNS = {
    "trajectory_id": "VARCHAR",
    "agent": "VARCHAR",
    "seed": "INTEGER",
    "case_idx": "INTEGER",
    "judge": "VARCHAR",
    "metric": "VARCHAR",
    "replicate": "INTEGER",
    "score": "DOUBLE",
    "label": "VARCHAR",
    "parsed_by": "VARCHAR",
    "raw_score": "VARCHAR",
    "tokens": "BIGINT",
    "error": "VARCHAR",
}
PAIR_COLUMNS = {
    "judge": "VARCHAR",
    "metric": "VARCHAR",
    "seed": "INTEGER",
    "case_idx": "INTEGER",
    "chosen_trajectory_id": "VARCHAR",
    "rejected_trajectory_id": "VARCHAR",
    "chosen_score": "DOUBLE",
    "rejected_score": "DOUBLE",
    "decided_by": "VARCHAR",
}
STEP_COLUMNS = ["step", "loss", "reward_accuracy", "reward_margin", "reward_chosen", "reward_rejected"]
STEP_COLUMNS += ["logps_chosen", "logps_rejected", "entropy", "grad_norm", "learning_rate", "tokens"]
RUN_COUNTS = ["pairs", "pairs_too_long", "conversations", "references_reused", "resumed_at", "micro_batch"]
RUN_COUNTS += ["by_case", "computed_tokens"]
RUN_METRICS = ["recomputed", "reward_margin", "kl", "reference_seconds", "mfu", "hfu", "peak_memory_bytes"]


def build_warehouse(
    graph: Graph, store: ArtifactStore, inputs: Mapping[Ref, Artifact], n_cases: int, path: Path
) -> dict[str, int]:
    """Writes the warehouse of what `inputs` hold to `path` and returns the number of rows of each table."""
    experiment = graph.experiment
    with open_database(path, read_only=False) as database:
        database.execute(SCHEMA.read_text(encoding="utf-8"))
        manifests = _all_manifests(graph, store, inputs)
        _manifests(database, graph, store, manifests)
        _agents(database, graph)
        insert(database, "splits", _splits(experiment, n_cases))
        trajectories = _files(graph, inputs, Kind.trajectories, "trajectories.jsonl")
        _trajectories(database, trajectories, store)
        evaluations = _files(graph, inputs, Kind.evaluations, "evaluations.jsonl")
        _records(database, "evaluations", evaluations, EVALUATION_COLUMNS)
        if not experiment.judge_failed:  # imported runs bring verdicts on failed trajectories, too
            failed = "SELECT trajectory_id FROM trajectories WHERE failed"
            database.execute(f"DELETE FROM evaluations WHERE trajectory_id IN ({failed})")
        pairs = _files(graph, inputs, Kind.pairs, "pairs.jsonl")
        _records(database, "preference_pairs", pairs, PAIR_COLUMNS)
        insert(database, "model_use", list(_model_use(graph, inputs)))
        _training(database, graph, inputs)
        _imported(database, inputs)
        noted = list(failures(store))
        insert(database, "operations", list(operation_rows(graph, manifests, noted)))
        insert(database, "failures", list(failure_rows(noted)))
        names = [
            str(row[0]) for row in database.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        ]
        return {name: _count(database, name) for name in names}


def _splits(experiment: Experiment, n_cases: int) -> list[tuple[Any, ...]]:
    """Returns seed, case and half; where nothing is trained and no seed given, all cases are held out, as seed 0."""
    if not experiment.grid.seeds and not experiment.imports:
        return [(0, case, "test") for case in range(n_cases)]
    splits = {seed: split_cases(n_cases, seed) for seed in experiment.grid.seeds}
    return [
        (seed, case, name)
        for seed, split in splits.items()
        for name in ("train", "test")
        for case in getattr(split, name)
    ]


def _count(database: duckdb.DuckDBPyConnection, table: str) -> int:
    row = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def _files(graph: Graph, inputs: Mapping[Ref, Artifact], kind: Kind, name: str) -> list[str]:
    return [str(artifact.path / name) for ref, artifact in inputs.items() if graph.node(ref).kind is kind]


def _all_manifests(graph: Graph, store: ArtifactStore, inputs: Mapping[Ref, Artifact]) -> list[Manifest]:
    """Return the manifests of what is read, and of merged models, which nobody needs to open here."""
    merged = (manifest for manifest in store.manifests() if graph.kind_of(manifest) is Kind.merged)
    return [*(artifact.manifest for artifact in inputs.values()), *merged]


def _manifests(
    database: duckdb.DuckDBPyConnection, graph: Graph, store: ArtifactStore, manifests: Iterable[Manifest]
) -> None:
    artifacts: list[tuple[Any, ...]] = []
    edges: list[tuple[Any, ...]] = []
    for manifest in manifests:
        ref = manifest.ref
        place, node = store.place(ref, manifest.run_id), graph.nodes.get(ref.asset)
        artifacts.append(
            (
                manifest.experiment,
                ref.asset,
                ref.partition_label,
                manifest.run_id,
                manifest.code_version,
                manifest.started_at,
                manifest.ended_at,
                place,
                manifest.sha256,
                manifest.bytes,
                graph.kind_of(manifest),
                *((node.side, node.judge, node.metric, node.stage) if node else (None,) * 4),
            )
        )
        edges += [
            (
                ref.asset,
                ref.partition_label,
                manifest.run_id,
                entry.asset,
                entry.ref.partition_label,
                entry.run_id,
                entry.sha256,
            )
            for entry in manifest.inputs
        ]
    insert(database, "artifacts", artifacts)
    insert(database, "lineage", edges)


def _agents(database: duckdb.DuckDBPyConnection, graph: Graph) -> None:
    experiment = graph.experiment
    rows: list[tuple[Any, ...]] = [
        (model, model, None, None, None, None, None, "source", None, None) for model in experiment.models
    ]
    for agent in graph.agents.values():
        stages = [stage.model_dump(mode="json") for stage in agent.stages]
        mixture = [{"agent": key, "weight": weight} for key, weight in agent.parts] or None
        rows += [
            (
                agent.key,
                agent.model,
                agent.recipe.value,
                stages,
                agent.pairs_judge,
                agent.beta,
                seed,
                agent.recipe.label,
                agent.recipe.variant,
                mixture,
            )
            for seed in experiment.grid.seeds
        ]
    insert(database, "agents", rows)


def insert(database: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Inserts rows, values in order of the table's columns."""
    if rows:
        # A row at a time takes DuckDB a millisecond; a frame of thousands takes it one.
        frame = pd.DataFrame(rows, dtype=object)
        database.register("inserted", frame)
        database.execute(f"INSERT INTO {table} FROM inserted")
        database.unregister("inserted")


def _reader(columns: Mapping[str, str]) -> str:
    types = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    return f"read_json($files, format = 'newline_delimited', columns = {{{types}}}, filename = true)"


def _trajectories(database: duckdb.DuckDBPyConnection, files: list[str], store: ArtifactStore) -> None:
    if not files:
        return
    database.execute(
        f"""
        INSERT INTO trajectories
        SELECT t.trajectory_id, t.agent, t.seed, t.case_idx, t.sample, s.split, t.emulator, t.stop_reason, len(t.steps),
            len(list_filter(t.steps, lambda step: step.self_observed)) + t.final_self_observed::INTEGER,
            t.agent_tokens, replace(t.filename, $here, $place),
            row_number() OVER (PARTITION BY t.filename ORDER BY t.case_idx, t.sample),
            coalesce(list_sum(list_transform(t.steps, lambda step: length(step.log))), 0) + length(t.final_log),
            len(list_filter(t.steps, lambda step: step.observation_source = 'emulator')),
            len(list_filter(t.steps, lambda step: step.observation_source = 'emulator' AND step.observation = '')),
            t.final_cut_off,
            t.stop_reason IN ({_FAILURES}) OR (len(t.steps) = 0 AND NOT regexp_matches(t.final_log, $word))
        FROM {_reader(TRAJECTORY_COLUMNS)} t LEFT JOIN splits s USING (seed, case_idx)
        """,
        {"files": files, "here": f"{store.base}/", "place": f"{store.place()}/", "word": r"[^\s\p{Z}]"},
    )


def _records(database: duckdb.DuckDBPyConnection, table: str, files: list[str], columns: Mapping[str, str]) -> None:
    if files:
        names = ", ".join(columns)
        database.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {_reader(columns)}", {"files": files})


def _model_use(graph: Graph, inputs: Mapping[Ref, Artifact]) -> Iterator[tuple[Any, ...]]:
    """Yields what each role of each partition took of its model, as the manifests count it."""
    experiment = graph.experiment
    served = {place: role.model for place, role in experiment.roles().items()}
    for ref, artifact in inputs.items():
        counts, metrics = artifact.manifest.counts, artifact.manifest.metrics
        keys = dict(ref.partition)
        acting = acting_model(experiment, graph.agents[keys["agent"]]) if "agent" in keys else keys.get("model", "")
        places = {
            "agent": experiment.place_of(acting),
            "emulator": "world.emulator",
            "judge": f"judges.{graph.node(ref).judge}",
        }
        for role, place in places.items():
            if f"{role}_calls" in counts:
                numbers = (counts[f"{role}_{name}"] for name in FIELDS)
                model = served.get(place, acting)
                yield ref.asset, ref.partition_label, role, model, *numbers, metrics.get(f"{role}_cost")


def _training(database: duckdb.DuckDBPyConnection, graph: Graph, inputs: Mapping[Ref, Artifact]) -> None:
    runs: list[tuple[Any, ...]] = []
    for ref, artifact in inputs.items():
        node = graph.node(ref)
        if node.kind is not Kind.adapters:
            continue
        manifest, stage, agent, seed = artifact.manifest, node.stage, ref.key("agent"), ref.seed
        counts, metrics = manifest.counts, manifest.metrics
        runs.append(
            (
                agent,
                seed,
                stage,
                counts["steps"],
                metrics["loss"],
                metrics["reward_accuracy"],
                metrics["tokens_per_second"],
                manifest.gpu,
                metrics["seconds"],
                *(counts[name] for name in RUN_COUNTS),
                *(metrics.get(name) for name in RUN_METRICS),
            )
        )
        columns, names = dict.fromkeys(STEP_COLUMNS, "DOUBLE"), ", ".join(STEP_COLUMNS)
        database.execute(
            f"INSERT INTO training_steps SELECT $agent, $seed, $stage, {names} FROM {_reader(columns)}",
            {"files": [str(artifact.path / "steps.jsonl")], "agent": agent, "seed": seed, "stage": stage},
        )
    insert(database, "training_runs", runs)


def _imported(database: duckdb.DuckDBPyConnection, inputs: Mapping[Ref, Artifact]) -> None:
    """Adds, of an imported experiment, where every record came from and what the import found."""
    artifact = inputs.get(Ref(IMPORT))
    if artifact is None:
        return
    for table in ("imported_records", "imported_files"):
        path = str(artifact.path / f"{table}.parquet")
        database.execute(f"INSERT INTO {table} FROM read_parquet($path)", {"path": path})
    columns = {"kind": "VARCHAR", "file": "VARCHAR", "line": "INTEGER", "text": "VARCHAR", "note": "BOOLEAN"}
    if (artifact.path / "problems.jsonl").stat().st_size:
        _records(database, "import_problems", [str(artifact.path / "problems.jsonl")], columns)
