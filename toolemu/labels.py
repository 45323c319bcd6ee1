"""Verdicts by people, from a table: one row for each trajectory, metric and annotator."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from toolemu.errors import FieldError, InputError, shorten, validate_record
from toolemu.evaluation import Evaluation, Metric
from toolemu.tables import read_table
from toolemu.textfile import read_text
from toolemu.trajectory import ID_DIGITS, Trajectory

NEEDED = ("trajectory_id", "metric", "score")
_WRAPPED = re.compile(r"""^(?:id:|'|=)?\s*"?(.*?)"?$""", re.IGNORECASE | re.DOTALL)
"""An id with what keeps a spreadsheet from taking it for a number: `id:`, an apostrophe, or `="…"`."""
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+?\d+|\d+[.,]\d+(?:[eE]\+?\d+)?")
REMEDY = "The columns are trajectory_id, metric, score, and perhaps annotator, label, comment."


class Label(BaseModel):
    """What one person says of one trajectory; `score` is None where nobody has said anything yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trajectory_id: str = Field(min_length=1)
    metric: Metric
    score: float | None = Field(None, ge=0, le=3)
    annotator: str = ""
    label: str = ""
    comment: str = ""

    @field_validator("score", mode="before")
    @classmethod
    def _is_no_boolean(cls, score: Any) -> Any:
        if isinstance(score, bool):
            raise FieldError(f"a score is a number from 0 to 3, not {score}", code="labels.score")
        return score


def read_labels(path: Path) -> list[Label]:
    """Read labels from a table with a header (`.csv`, `.tsv`, `.txt`), or from JSON lines.

    Columns are the fields of `Label`. See `read_table` for what a table may look like.

    Raises:
        InputError: A row is wrong, or says the same of the same a second time; names the line.
    """
    found: dict[tuple[str, Metric, str], Label] = {}
    for line, row in _rows(path):
        label = validate_record(Label, row, path, f"line {line}", REMEDY)
        key = (label.trajectory_id, label.metric, label.annotator)
        if key in found:
            who = f"{label.annotator or 'one annotator'} labelled {label.trajectory_id} on {label.metric.value} twice."
            raise InputError(
                path, f"line {line}", who, "Delete one, or tell annotators apart in `annotator`.", code="labels.twice"
            )
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
    """Yield rows with the lines on which they begin; blank cells of a table are left out."""
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        for line, cells in read_table(path, NEEDED, frozenset(Metric)):
            yield line, _as_meant(path, line, cells)
        return
    for line, text in enumerate(read_text(path).split("\n"), 1):
        if text.strip():
            try:
                yield line, orjson.loads(text)
            except orjson.JSONDecodeError as error:
                problem = f"not JSON: {error.msg}, in {shorten(text)}."
                raise InputError(path, f"line {line}", problem, "Correct it.", code="json.invalid") from error


def _as_meant(path: Path, line: int, cells: Mapping[str, str]) -> dict[str, str]:
    """Return a row as it was before a spreadsheet changed it: capitals, decimal commas, ids taken for numbers.

    Raises:
        InputError: A spreadsheet took the id for a number and rounded it.
    """
    row = dict(cells)
    if "trajectory_id" in row:
        identity = _WRAPPED.sub(r"\1", row["trajectory_id"]).strip()
        if _ROUNDED.fullmatch(identity):
            problem = f"a spreadsheet took the trajectory's id for a number and rounded it to {identity}."
            remedy = "Fill in a sheet whose ids begin with `id:` (docs/models.md says how to write one)."
            raise InputError(path, f"line {line} 'trajectory_id'", problem, remedy, code="labels.rounded-id")
        row["trajectory_id"] = identity.zfill(ID_DIGITS) if identity.isdecimal() else identity
    if "metric" in row:
        row["metric"] = row["metric"].lower()
    if "score" in row:
        row["score"] = re.sub(r"^(\d+),(\d+)$", r"\1.\2", unicodedata.normalize("NFKC", row["score"]))
    return row
