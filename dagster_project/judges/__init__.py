"""Judges: one module per kind, each with the fields of the experiment file and what scores trajectories."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainValidator, SerializeAsAny

from dagster_project.judges.kind import JudgeKind, JudgeWorld
from dagster_project.kinds import Registry, word_by_endpoint

JUDGES = Registry(
    "judges",
    JudgeKind,
    {
        "miniature": "dagster_project.judges.miniature:MiniatureJudge",
        "openai": "dagster_project.judges.lm:LMJudgeRole",
        "labels": "dagster_project.judges.labels:LabelsJudge",
        "imported": "dagster_project.judges.imported:ImportedJudge",
    },
    word_by_endpoint,
)
AnyJudge = Annotated[SerializeAsAny[JudgeKind], PlainValidator(JUDGES.read)]
"""A judge in the experiment file."""

__all__ = ["JUDGES", "AnyJudge", "JudgeKind", "JudgeWorld"]
