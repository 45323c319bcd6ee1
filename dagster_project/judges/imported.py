"""Judges of whom only verdicts are there."""

from __future__ import annotations

from typing import Literal

from dagster_project.judges.kind import JudgeKind


class ImportedJudge(JudgeKind):
    """A judge whose verdicts were imported. No asset asks it."""

    kind: Literal["imported"] = "imported"
