"""What another lab needs to check a result, in one folder that says itself whether it is whole."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from pathlib import Path

import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.bag import DATA, seal
from dagster_project.artifacts.database import open_database
from dagster_project.artifacts.manifest import git_commit
from dagster_project.artifacts.store import MANIFEST
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.nodes import Kind
from dagster_project.report.verification import ARTIFACTS, EXPERIMENT, MANIFESTS, place_of
from dagster_project.report.wording import PAGE
from toolemu.errors import FrontierError

RECORDS = (Kind.trajectories, Kind.evaluations, Kind.pairs)
ADAPTERS = (Kind.adapters, Kind.interpolated)


def write_bundle(
    graph: Graph, store: ArtifactStore, folder: Path, *, trajectories: bool = False, adapters: bool = False
) -> dict[str, int]:
    """Write a bundle into a new folder and return how many files and bytes it has.

    It holds the database, the result tables, the figures, the report's page, every artifact's manifest, the experiment
    and the environment; on request the records (trajectories, verdicts, pairs) and the adapters themselves. Paths in
    it are relative to the data folder, and names of hosts are left out.

    Args:
        graph: The graph of the experiment that was run.
        store: Its artifacts.
        folder: Where to write; it must not exist, or be empty.
        trajectories: Include trajectories, verdicts, pairs, and the report's transcripts.
        adapters: Include the adapters.

    Raises:
        FrontierError: There is something in `folder` already.
        MissingArtifactError: The results have not been made.
    """
    experiment = graph.experiment
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FrontierError(f"{folder}: there is something already. Name a new or an empty folder.")
    finished = {name: store.get(Ref(name)).path for name in ("tables", "figures", "report")}
    data = folder / DATA
    data.mkdir(parents=True)
    (data / EXPERIMENT).write_bytes(orjson.dumps(experiment.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    (data / "environment.json").write_bytes(orjson.dumps(environment(), option=orjson.OPT_INDENT_2))
    database = f"{experiment.name}.duckdb"
    portable_database(finished["tables"] / database, data / database, store.place())
    shutil.copytree(finished["tables"], data / "tables", ignore=shutil.ignore_patterns(database))
    shutil.copytree(finished["figures"], data / "figures")
    if trajectories:
        shutil.copytree(finished["report"], data / "report")
    else:
        (data / "report").mkdir()
        shutil.copy2(finished["report"] / PAGE, data / "report" / PAGE)
    for manifest in list(store.manifests()):
        place = place_of(manifest)
        (data / MANIFESTS / place).mkdir(parents=True, exist_ok=True)
        shared = manifest.model_copy(update={"host": ""})
        (data / MANIFESTS / place / MANIFEST).write_text(shared.model_dump_json(indent=1), encoding="utf-8")
        kind = graph.kind_of(manifest)
        if manifest.kept and ((trajectories and kind in RECORDS) or (adapters and kind in ADAPTERS)):
            shutil.copytree(store.get(manifest.ref).path, data / ARTIFACTS / place)
    files = seal(folder, {"External-Identifier": experiment.name, "Bag-Software-Agent": "safety-frontier"})
    return {"files": files, "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())}


def portable_database(source: Path, target: Path, base: str) -> None:
    """Write a copy of a database that says nothing of this machine: paths are relative to `base`, hosts are empty."""
    with open_database(target, read_only=False) as database:
        database.execute(f"ATTACH '{str(source).replace(chr(39), chr(39) * 2)}' AS source (READ_ONLY)")
        tables = database.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE database_name = 'source' "
            "AND NOT internal GROUP BY 1 ORDER BY 1"
        ).fetchall()
        for name, columns in tables:
            changes = ["replace(path, $base, '') AS path"] if "path" in columns else []
            parameters = {"base": f"{base}/"} if changes else {}
            changes += ["'' AS host"] if "host" in columns else []
            replaced = f"REPLACE ({', '.join(changes)})" if changes else ""
            database.execute(f'CREATE TABLE "{name}" AS SELECT * {replaced} FROM source."{name}"', parameters)
        database.execute("DETACH source")


def environment() -> dict[str, object]:
    """Returns what ran: Python, the platform, the code's commit, and the version of every installed package."""
    packages = {found.metadata["Name"]: found.version for found in metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": git_commit(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
