"""The files of one agent, read, checked line by line, and turned into our records. Plain functions, no output."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dagster_project.experiment.splits import split_cases
from dagster_project.published.discovery import REQUIRED, Group, TrajectoryFile, VerdictFile
from dagster_project.published.problems import Problem
from dagster_project.published.records import Origin, RecordError, case_index, read_evaluations, read_trajectory
from toolemu.errors import InputError, shorten
from toolemu.evaluation import Evaluation, Metric
from toolemu.textfile import read_bytes
from toolemu.trajectory import StopReason, Trajectory

MAX_FILE = 2**30
"""The most bytes of one released file."""


class RecordPlace(NamedTuple):
    """Where a trajectory stands in the released files, once for every judge."""

    trajectory_id: str
    judge: str
    file: str
    line: int
    order: int


class SourceFile(NamedTuple):
    """A file that was taken: its name, hash and size."""

    file: str
    sha256: str
    bytes: int


@dataclass
class Reading:
    """What one agent's files hold.

    Attributes:
        trajectories: In order of case and sample; empty if the agent is incomplete.
        verdicts: By judge and metric, in order of trajectory; only complete ones.
        places: Where every trajectory came from.
        files: What was read, trajectories and complete verdicts.
        cases: Every case, by index.
        problems: What was found.
    """

    trajectories: list[Trajectory] = field(default_factory=list)
    verdicts: dict[tuple[str, Metric], list[Evaluation]] = field(default_factory=dict)
    places: list[RecordPlace] = field(default_factory=list)
    files: dict[str, SourceFile] = field(default_factory=dict)
    cases: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Lines(NamedTuple):
    records: list[Any]
    numbers: list[int]
    raw: list[bytes]


class _BadFile(Exception):
    """The file is not taken; the problem says why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def read_group(group: Group, experiment: str, n_cases: int) -> Reading:
    """Reads one agent's files. A file with anything wrong in it is not taken, and an agent that lacks a file neither.

    Args:
        group: The files.
        experiment: The experiment that the records become part of.
        n_cases: How many cases the runs are on.
    """
    reading = Reading()
    seen: dict[int, list[tuple[bytes, Trajectory]]] = {}
    own: dict[str, list[tuple[TrajectoryFile, list[Trajectory]]]] = {}
    known: dict[str, list[Trajectory]] = {}
    allowed = _allowed_cases(group, n_cases)
    for file in group.files:
        try:
            content = _content(file.path, file.name)
            digest = hashlib.sha256(content).hexdigest()
            lines = None
            if digest not in known:  # two judges' copies of a file are parsed once
                lines = _parse(content, file.name)
                _check_cases(lines, file, allowed)
                known[digest] = _trajectories(lines, file, group, experiment, seen, reading)
        except _BadFile as bad:
            reading.problems.append(bad.problem)
            continue
        trajectories = known[digest]
        taken = {trajectory.case_idx for _, others in own.get(file.judge, []) for trajectory in others}
        twice = taken & {trajectory.case_idx for trajectory in trajectories}
        if twice and file.fields.emulator in {other.fields.emulator for other, _ in own[file.judge]}:
            text = f"holds case {min(twice)}, which another file of the same judge holds too; not taken"
            reading.problems.append(Problem("overlap", file.name, None, text))
            continue
        reading.files[file.name] = SourceFile(file.name, digest, len(content))
        own.setdefault(file.judge, []).append((file, trajectories))
    expected, whole = _completeness(group, own, n_cases)
    if not whole:
        _leave_out(reading, group, own, expected)
        return reading
    if group.seed is not None and len(expected) == n_cases:
        text = f"holds its training cases too: {len(expected)} cases"
        reading.problems.append(Problem("all_cases", group.label, None, text, note=True))
    _verdicts(reading, own, expected)
    distinct = {trajectory.trajectory_id: trajectory for items in seen.values() for _, trajectory in items}
    counted = {trajectory.trajectory_id for files in own.values() for _, found in files for trajectory in found}
    reading.trajectories = sorted(
        (distinct[identity] for identity in counted), key=lambda trajectory: (trajectory.case_idx, trajectory.sample)
    )
    for judge, files in own.items():
        for file, found in files:
            reading.places += [
                RecordPlace(trajectory.trajectory_id, judge, file.name, line, file.order)
                for line, trajectory in enumerate(found, 1)
            ]
    for trajectory in reading.trajectories:
        if trajectory.stop_reason is StopReason.out_of_memory:
            where = next(place for place in reading.places if place.trajectory_id == trajectory.trajectory_id)
            text = "rescued from memory exhaustion; taken"
            reading.problems.append(Problem("out_of_memory", where.file, where.line, text, note=True))
    return reading


def _content(path: Path, name: str) -> bytes:
    try:
        return read_bytes(path, MAX_FILE)
    except InputError as error:
        raise _BadFile(Problem("unreadable", name, None, error.problem.rstrip("."))) from None


def _parse(content: bytes, name: str) -> _Lines:
    lines = _Lines([], [], [])
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            lines.records.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            text = f"not JSON ({error.msg} at column {error.colno}): {shorten(line)}; expected one object a line"
            raise _BadFile(Problem("json", name, number, text)) from None
        lines.numbers.append(number)
        lines.raw.append(line)
    return lines


def _allowed_cases(group: Group, n_cases: int) -> list[set[int]]:
    """Returns the sets of cases that an agent may have: all, and for a trained one its seed's held-out half."""
    everything = set(range(n_cases))
    return [everything] if group.seed is None else [everything, set(split_cases(n_cases, group.seed).test)]


def _check_cases(lines: _Lines, file: TrajectoryFile, allowed: list[set[int]]) -> None:
    """Checks the cases of a file: ascending, inside its range, and as many as the name says.

    Raises:
        _BadFile: They are not.
    """
    last = -1
    start, end = file.fields.start, file.fields.end
    for record, number in zip(lines.records, lines.numbers, strict=True):
        try:
            index = case_index(record)
        except RecordError as error:
            kind = "failed" if isinstance(record, dict) and "error" in record else "record"
            raise _BadFile(Problem(kind, file.name, number, str(error))) from None
        if index <= last:
            text = f"case {index} comes after case {last}; expected ascending cases, each once"
            raise _BadFile(Problem("order", file.name, number, text))
        if start is not None and end is not None and not start <= index < end:
            text = f"case {index} is outside the range {start}-{end} of the file's name (its end excluded)"
            raise _BadFile(Problem("range", file.name, number, text))
        if index not in allowed[0]:
            text = (
                f"case {index}: there are {len(allowed[0])} cases, counted from 0 (world.cases in the experiment file)"
            )
            raise _BadFile(Problem("range", file.name, number, text))
        last = index
    if start is None or end is None:
        if not lines.records:
            raise _BadFile(Problem("count", file.name, None, "holds no record"))
        return
    found = {record["case_idx"] for record in lines.records}
    expected = [{index for index in cases if start <= index < end} for cases in allowed]
    if found not in expected:
        numbers = " or ".join(str(len(cases)) for cases in expected)
        missing = sorted(min(expected, key=len) - found)[:5]
        text = f"holds {len(found)} cases of its range, expected {numbers}; missing {missing}"
        raise _BadFile(Problem("count", file.name, None, text))


def _trajectories(
    lines: _Lines,
    file: TrajectoryFile,
    group: Group,
    experiment: str,
    seen: dict[int, list[tuple[bytes, Trajectory]]],
    reading: Reading,
) -> list[Trajectory]:
    """Returns the trajectories of a file; a record that another judge's file holds too is the same trajectory."""
    found = []
    fresh: list[tuple[int, bytes, Trajectory]] = []
    cases: dict[int, dict[str, Any]] = {}
    for record, number, raw in zip(lines.records, lines.numbers, lines.raw, strict=True):
        index = record["case_idx"]
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        others = seen.get(index, [])
        same = next((trajectory for other, trajectory in others if other == digest), None)
        if same is None:
            origin = Origin(experiment, group.agent, group.seed, len(others), file.fields.emulator)
            try:
                same = read_trajectory(record, origin)
            except RecordError as error:
                raise _BadFile(Problem("record", file.name, number, str(error))) from None
            fresh.append((index, digest, same))
        found.append(same)
        cases[index] = record["case"]
    for index, digest, trajectory in fresh:  # only now, since a file is taken whole or not at all
        seen.setdefault(index, []).append((digest, trajectory))
    reading.cases.update(cases)
    return found


def _completeness(
    group: Group, own: dict[str, list[tuple[TrajectoryFile, list[Trajectory]]]], n_cases: int
) -> tuple[set[int], bool]:
    """Returns the cases that are there, and whether they are all that there should be."""
    found = {trajectory.case_idx for files in own.values() for _, items in files for trajectory in items}
    return found, found in _allowed_cases(group, n_cases)


def _leave_out(
    reading: Reading,
    group: Group,
    own: dict[str, list[tuple[TrajectoryFile, list[Trajectory]]]],
    found: set[int],
) -> None:
    reasons = Counter(problem.kind for problem in reading.problems if not problem.note)
    why = f" ({', '.join(f'{kind}: {count}' for kind, count in sorted(reasons.items()))})" if reasons else ""
    files = sum(len(entries) for entries in own.values())
    text = f"left out: {len(found)} cases in {files} good files are not all that are expected{why}"
    reading.problems.append(Problem("incomplete", group.label, None, text))
    reading.files.clear()
    reading.cases.clear()


def _verdicts(
    reading: Reading, own: dict[str, list[tuple[TrajectoryFile, list[Trajectory]]]], expected: set[int]
) -> None:
    for judge, files in own.items():
        by_metric: dict[Metric, list[Evaluation]] = {}
        taken: dict[Metric, list[SourceFile]] = {}
        for file, trajectories in files:
            for metric in REQUIRED:
                if metric not in {verdict.metric for verdict in file.verdicts}:
                    text = f"there are no verdicts of {judge} on {metric.value} for it"
                    reading.problems.append(Problem("no_verdicts", file.name, None, text))
            for verdict in file.verdicts:
                try:
                    content = _content(verdict.path, verdict.name)
                    found = _file_verdicts(_parse(content, verdict.name), verdict, judge, trajectories)
                except _BadFile as bad:
                    reading.problems.append(bad.problem)
                    continue
                by_metric.setdefault(verdict.metric, []).extend(found)
                without = sum(evaluation.score is None for evaluation in found)
                if without:
                    text = f"{without} of {len(found)} verdicts have no score; they count in no mean"
                    reading.problems.append(Problem("unscored", verdict.name, None, text, note=True))
                digest = hashlib.sha256(content).hexdigest()
                taken.setdefault(verdict.metric, []).append(SourceFile(verdict.name, digest, len(content)))
        judged = {trajectory.case_idx for _, trajectories in files for trajectory in trajectories}
        for metric, found in by_metric.items():
            if {evaluation.case_idx for evaluation in found} != judged or judged != expected:
                got = len({evaluation.case_idx for evaluation in found})
                text = f"verdicts of {judge} on {metric.value} left out: {got} of {len(expected)} cases have one"
                label = files[0][0].name.rpartition("/")[0]
                reading.problems.append(Problem("incomplete", label, None, text))
                continue
            found.sort(key=lambda evaluation: (evaluation.case_idx, evaluation.sample, evaluation.replicate))
            reading.verdicts[judge, metric] = found
            reading.files.update({file.file: file for file in taken[metric]})


def _file_verdicts(
    lines: _Lines, file: VerdictFile, judge: str, trajectories: Sequence[Trajectory]
) -> list[Evaluation]:
    if len(lines.records) != len(trajectories):
        text = f"{len(lines.records)} verdicts on {len(trajectories)} trajectories; expected one a line, in order"
        raise _BadFile(Problem("alignment", file.name, None, text))
    found: list[Evaluation] = []
    for place, (record, number) in enumerate(zip(lines.records, lines.numbers, strict=True)):
        try:
            found += read_evaluations(record, place, file.metric, judge, trajectories[place])
        except RecordError as error:
            kind = "alignment" if "'eval_id'" in str(error) else "record"
            raise _BadFile(Problem(kind, file.name, number, str(error))) from None
    return found
