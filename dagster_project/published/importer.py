"""The import of released runs: every agent read in a process of its own turn, its partitions committed as it is read.

One partition is one artifact, as if it had been made here; its configuration names the released files and their
hashes. What does not belong together whole is not imported, and every finding is in `problems.jsonl`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from dagster_project.artifacts import Artifact, ArtifactStore, Location, Ref
from dagster_project.artifacts.processes import die_with_parent, process_context
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.experiment.imported import CASES, INVENTORY, ImportedAsset, Inventory
from dagster_project.experiment.nodes import Kind, Side, evaluations_path, name_of, trajectories_path
from dagster_project.published.discovery import Found, Group, discover
from dagster_project.published.problems import Problem, count_kinds
from dagster_project.published.reading import Reading, RecordPlace, SourceFile, read_group
from dagster_project.published.sources import opened
from toolemu.evaluation import Metric
from toolemu.jsonl import write_jsonl

CODE_VERSION = "2"
"""Of what an import makes of a released record."""
PROBLEMS = "problems.jsonl"
RECORDS = "imported_records.parquet"
FILES = "imported_files.parquet"


class Imported(NamedTuple):
    """What one import made."""

    inventory: Inventory
    problems: list[Problem]
    counts: dict[str, int]


Report = Callable[[list[Artifact], int, int], None]
"""Told of every agent's new artifacts, and how many of how many agents are done."""


class _Made(NamedTuple):
    """One partition that was made: trajectories, or (with judge and metric) verdicts."""

    artifact: Artifact
    side: Side
    judge: str | None = None
    metric: Metric | None = None


@dataclass
class _Done:
    """The result of reading one agent; the records themselves are on disk by then."""

    made: list[_Made] = field(default_factory=list)
    places: list[RecordPlace] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    cases: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def import_runs(
    sources: Mapping[str, Path],
    store: ArtifactStore,
    *,
    run_id: str,
    n_cases: int,
    labels: Mapping[str, str],
    out: Path,
    scratch: Path,
    processes: int | None = None,
    report: Report | None = None,
) -> Imported:
    """Imports trees of released runs into a store.

    Args:
        sources: Directories or archives, by name.
        store: Where the partitions go.
        run_id: Names the runs of all artifacts.
        n_cases: How many cases the runs are on.
        labels: Labels of pairs' judges in agents' names, to judges' names in file names.
        out: Where inventory, problems, cases and the lists of files and records go.
        scratch: For unpacked archives; removed.
        processes: How many processes read; None: one a core.
        report: Told how far it is.

    Raises:
        InputError: A source is neither directory nor archive, or damaged as a whole.
    """
    problems: list[Problem] = []
    try:
        with opened(sources, scratch) as roots:
            found = discover(roots, labels, problems)
            done = _read_all(found.groups, store, run_id, n_cases, processes or os.cpu_count() or 1, report)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    done.problems = problems + done.problems
    cases = {str(index): case for index, case in sorted(done.cases.items())}
    inventory = _inventory(found, done)
    done.problems.sort(key=lambda problem: (problem.note, problem.file, problem.line or 0))
    write_jsonl(out / PROBLEMS, done.problems)
    (out / CASES).write_bytes(orjson.dumps(cases, option=orjson.OPT_INDENT_2))
    (out / INVENTORY).write_bytes(inventory.model_dump_json(indent=1).encode())
    _write_table(out / RECORDS, done.places, RecordPlace)
    _write_table(out / FILES, done.files, SourceFile)
    errors = sum(not problem.note for problem in done.problems)
    counts = {
        "files": found.files,
        "megabytes": round(found.bytes / 1e6),
        "other_files": len(found.others),
        "trajectories": done.counts.get("trajectories", 0),
        "evaluations": done.counts.get("evaluations", 0),
        "partitions": len(done.made),
        "errors": errors,
        "notes": len(done.problems) - errors,
        **{f"problem_{kind}": count for kind, count in count_kinds(done.problems).items()},
    }
    return Imported(inventory, done.problems, counts)


def _read_all(
    groups: list[Group], store: ArtifactStore, run_id: str, n_cases: int, processes: int, report: Report | None
) -> _Done:
    """Reads all agents, the largest first, and returns what was found, in the order of the agents."""
    results: dict[int, _Done] = {}
    order = sorted(range(len(groups)), key=lambda place: -sum(file.path.stat().st_size for file in groups[place].files))
    jobs = ((place, store.location, store.experiment, run_id, n_cases, groups[place]) for place in order)
    for place, done in _in_processes(jobs, min(processes, len(groups))):
        results[place] = done
        if report:
            report([made.artifact for made in done.made], len(results), len(groups))
    whole = _Done()
    for place in range(len(groups)):
        done = results[place]
        whole.made += done.made
        whole.places += done.places
        whole.files += done.files
        whole.problems += done.problems
        for index, case in done.cases.items():
            known = whole.cases.setdefault(index, case)
            if known != case:
                problem = f"case {index} reads otherwise than with another agent; which text counts is not known"
                whole.problems.append(Problem("case", groups[place].label, None, problem))
        for name, count in done.counts.items():
            whole.counts[name] = whole.counts.get(name, 0) + count
    return whole


Job = tuple[int, Location, str, str, int, Group]


def _in_processes(jobs: Iterable[Job], processes: int) -> Iterator[tuple[int, _Done]]:
    if processes <= 1:
        yield from map(_work, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=process_context([__name__]), initializer=die_with_parent) as pool:
        for future in as_completed([pool.submit(_work, job) for job in jobs]):
            yield future.result()


_told: dict[tuple[Location, str], dict[int, dict[str, Any]]] = {}
"""Cases that this process has handed over, by import: the same texts come with every agent."""


def _work(job: Job) -> tuple[int, _Done]:
    place, location, experiment, run_id, n_cases, group = job
    reading = read_group(group, experiment, n_cases)
    done = _Done(
        problems=reading.problems,
        places=reading.places,
        files=list(reading.files.values()),
    )
    told = _told.setdefault((location, run_id), {})
    for index, case in reading.cases.items():
        if told.setdefault(index, case) is case or told[index] != case:
            done.cases[index] = case
    if reading.trajectories:
        done.made = list(_commit(reading, group, ArtifactStore(location, experiment), run_id))
        done.counts = {
            "trajectories": len(reading.trajectories),
            "evaluations": sum(map(len, reading.verdicts.values())),
        }
    return place, done


def _commit(reading: Reading, group: Group, store: ArtifactStore, run_id: str) -> Iterator[_Made]:
    side, partition = Side.source, {"model": group.agent}
    if group.seed is not None:
        side, partition = Side.agent, {"agent": group.agent, "seed": str(group.seed)}
    ref = Ref.of(name_of(trajectories_path(side)), **partition)
    about = {file.name for file in group.files} & reading.files.keys()
    config = {"files": {name: reading.files[name].sha256 for name in sorted(about)}}
    with store.write(
        ref, run_id=run_id, code_version=CODE_VERSION, config=config, inputs={}, kind=Kind.trajectories
    ) as draft:
        write_jsonl(draft.path / TRAJECTORIES, reading.trajectories)
        draft.counts["trajectories"] = len(reading.trajectories)
    assert draft.committed is not None
    trajectories = draft.committed
    yield _Made(trajectories, side)
    for (judge, metric), verdicts in sorted(reading.verdicts.items()):
        names = sorted(
            verdict.name
            for file in group.files
            if file.judge == judge
            for verdict in file.verdicts
            if verdict.metric is metric and verdict.name in reading.files
        )
        config = {"files": {name: reading.files[name].sha256 for name in names}}
        verdicts_ref = Ref.of(name_of(evaluations_path(side, judge, metric)), **partition)
        inputs = {ref: trajectories.entry}
        with store.write(
            verdicts_ref, run_id=run_id, code_version=CODE_VERSION, config=config, inputs=inputs, kind=Kind.evaluations
        ) as draft:
            write_jsonl(draft.path / EVALUATIONS, verdicts)
            draft.counts["evaluations"] = len(verdicts)
        assert draft.committed is not None
        yield _Made(draft.committed, side, judge, metric)


def _inventory(found: Found, done: _Done) -> Inventory:
    keys: dict[tuple[Side, str | None, Metric | None], list[tuple[str, ...]]] = {}
    for artifact, side, judge, metric in done.made:
        partition = tuple(key for _, key in artifact.manifest.ref.partition)
        keys.setdefault((side, judge, metric), []).append(partition)
    assets = (
        ImportedAsset(side=what[0], judge=what[1], metric=what[2], keys=tuple(sorted(keys[what]))) for what in keys
    )
    judged = {metric for _, _, metric in keys}
    tested = keys.get((Side.agent, None, None), [])
    agents = {agent for agent, _ in tested}
    return Inventory(
        models=tuple(found.models),
        judges=tuple(found.judges),
        metrics=tuple(metric for metric in Metric if metric in judged),
        seeds=tuple(sorted({int(seed) for _, seed in tested})),
        agents=tuple(agent for key, agent in sorted(found.agents.items()) if key in agents),
        assets=tuple(sorted(assets, key=lambda asset: asset.path)),
    )


def _write_table(path: Path, rows: list[Any], kind: Any) -> None:
    columns = [[getattr(row, name) for row in rows] for name in kind._fields]
    types = {"line": pa.int32(), "order": pa.int32(), "bytes": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in kind._fields])
    pq.write_table(pa.table(columns, schema=schema), path)
