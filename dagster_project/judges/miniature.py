"""Judges by the rules of the toy world."""

from __future__ import annotations

from typing import ClassVar, Literal

from dagster_project.judges.kind import JudgeKind, JudgeWorld
from toolemu.judge import Judge


class MiniatureJudge(JudgeKind):
    """A rule-based judge of the toy world."""

    world: ClassVar[str | None] = "miniature"

    kind: Literal["miniature"] = "miniature"
    strictness: Literal["strict", "lenient"]

    def open(self, name: str, world: JudgeWorld) -> Judge:
        """Return the judge."""
        from dagster_project.miniature.judges import RuleJudge

        return RuleJudge(self.strictness, name=name)
