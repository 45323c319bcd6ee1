"""Verdicts by people, from a table: one row for each trajectory, metric and annotator."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from toolemu.errors import InputError, shorten, validate_record
from toolemu.evaluation import Evaluation, Metric
from toolemu.trajectory import Trajectory

NEEDED = ("trajectory_id", "metric", "score")
REMEDY = "Columns, separated by commas: trajectory_id, metric, score, and perhaps annotator, label, comment."


class Label(BaseModel):
    """What one person says of one trajectory; `score` is None where nobody has said anything yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trajectory_id: str = Field(min_length=1)
    metric: Metric
    score: float | None = Field(None, ge=0, le=3)
    annotator: str = ""
    label: str = ""
    comment: str = ""


def read_labels(path: Path) -> list[Label]:
    """Reads labels from a CSV file with a header, or from JSON lines; columns are the fields of `Label`.

    Raises:
        InputError: A row is none, or says the same of the same a second time.
    """
    found: dict[tuple[str, Metric, str], Label] = {}
    for line, row in _rows(path):
        label = validate_record(Label, row, path, f"line {line}", REMEDY)
        key = (label.trajectory_id, label.metric, label.annotator)
        if key in found:
            who = f"{label.annotator or 'one annotator'} labelled {label.trajectory_id} on {label.metric.value} twice."
            raise InputError(path, f"line {line}", who, "Delete one, or tell annotators apart in `annotator`.")
        found[key] = label
    return list(found.values())


def labelled(judge: str, labels: Iterable[Label], trajectories: Iterable[Trajectory]) -> list[Evaluation]:
    """Returns the verdicts that labels are, in order of trajectory, metric and annotator; each annotator a replicate.

    Args:
        judge: The name that the labels go by.
        labels: Also of other trajectories.
        trajectories: Those judged; some may have no label.
    """
    by_question: defaultdict[tuple[str, Metric], list[Label]] = defaultdict(list)
    for label in labels:
        if label.score is not None:
            by_question[label.trajectory_id, label.metric].append(label)
    return [
        Evaluation.of(
            trajectory,
            judge=judge,
            metric=metric,
            replicate=replicate,
            score=label.score,
            label=label.label,
            thought=label.comment,
            raw_score=f"{label.score:g}",
            parsed_by="label",
        )
        for trajectory in trajectories
        for metric in Metric
        for replicate, label in enumerate(
            sorted(by_question[trajectory.trajectory_id, metric], key=lambda label: label.annotator)
        )
    ]


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields rows with their line numbers; empty cells of a CSV file are left out."""
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, restkey="cells beyond the header's")
                _check_header(path, reader.fieldnames or [])
                for row in reader:
                    yield reader.line_num, {name: value for name, value in row.items() if value}
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(path, "", f"not JSON lines: {error.msg}, in {shorten(line)}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "", f"cannot be read: {error}.", "Check the path; the text is UTF-8.") from error


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Raises `InputError` unless a CSV file's columns are those of `Label`, each once, and the three that it needs."""
    missing = [name for name in NEEDED if name not in names]
    twice = [name for name in names if names.count(name) > 1]
    if missing or twice:
        problem = f"there is no column {missing[0]}." if missing else f"the column {twice[0]} is there twice."
        raise InputError(path, "line 1", f"{problem} Found: {', '.join(names) or 'nothing'}.", REMEDY)
