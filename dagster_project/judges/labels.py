"""People as judges: their verdicts are in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from dagster_project.experiment.places import located
from dagster_project.judges.kind import JudgeKind
from toolemu.evaluation import Evaluation
from toolemu.labels import labelled, read_labels
from toolemu.trajectory import Trajectory


class LabelsJudge(JudgeKind):
    """People, whose verdicts are in a file."""

    expensive: ClassVar[bool] = False

    kind: Literal["labels"]
    file: Path = Field(exclude=True, description="CSV or JSON lines: trajectory_id, metric, score, annotator.")
    sha256: str = Field(description="Of the file; computed, never in the experiment file.")

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("file"), str | Path):
            return value
        if "sha256" in value:
            raise ValueError("sha256 is computed; leave it out")
        path = located(info, "file", value["file"])
        if not path.is_file():
            raise ValueError(f"there is no file {path.name}")
        read_labels(path)
        return {**value, "file": path, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def given(self, name: str, trajectories: Sequence[Trajectory]) -> list[Evaluation]:
        """Return the verdicts of people: they score what they have scored."""
        return labelled(name, read_labels(self.file), trajectories)

    def remarks(self, name: str, trajectories: Collection[str]) -> Iterator[str]:
        """Yield how many labels are of trajectories that do not exist."""
        labels = read_labels(self.file)
        strange = [label.trajectory_id for label in labels if label.trajectory_id not in trajectories]
        if strange:
            yield (
                f"judges.{name}: {len(strange)} of the {len(labels)} labels in {self.file} are of trajectories that "
                f"do not exist, such as {strange[0]}. They count for nothing."
            )
