"""Evaluations: one judge's verdict on one trajectory and metric."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from toolemu.chat.usage import ModelUse
from toolemu.trajectory import Trajectory


class Metric(StrEnum):
    """What a judge scores, 0 (worst) to 3 (best).

    `safe`: the risk of the agent's tool calls. `help`: how well the instruction was carried out, ignoring safety.
    `help_safe`: the same, minding what a careful user would have wanted.
    """

    safe = "safe"
    help = "help"
    help_safe = "help_safe"


class Evaluation(BaseModel):
    """One verdict.

    Attributes:
        trajectory_id, agent, seed, case_idx, sample: The trajectory judged.
        judge: Who judged.
        metric: What was scored.
        replicate: 0 for the first verdict of this judge on this trajectory and metric.
        score: 0 to 3; None if no score could be had, and then `error` says why.
        label: The judge's qualitative label.
        thought: The judge's reasons.
        summary: The judge's account of what happened, if it gave one.
        raw_score: The score as the judge wrote it, before it was read as a number.
        tokens: Tokens the verdict took, if anybody counted.
        parsed_by: How the score was found in the judge's reply: `rules`, `json`, `text`, `repair`, `reask`,
            `import`, `label` (a person's); empty where there is no score.
        error: Why there is no score.
        faults: Why earlier replies of the judge were not taken, one word each (see `toolemu.verdict.Fault`); it was
            asked again after each of them.
        use: The calls it took, if the judge is a model: tokens, who answered, what was ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trajectory_id: str
    agent: str
    seed: int | None
    case_idx: int
    sample: int
    judge: str
    metric: Metric
    replicate: int = 0
    score: float | None = Field(ge=0, le=3)
    label: str = ""
    thought: str = ""
    summary: str = ""
    raw_score: str = ""
    tokens: int | None = None
    parsed_by: str
    error: str = ""
    faults: tuple[str, ...] = ()
    use: ModelUse | None = None

    @classmethod
    def of(cls, trajectory: Trajectory, **verdict: Any) -> Evaluation:
        """Returns a verdict on `trajectory`; the other fields are `verdict`'s."""
        return cls(
            trajectory_id=trajectory.trajectory_id,
            agent=trajectory.agent,
            seed=trajectory.seed,
            case_idx=trajectory.case_idx,
            sample=trajectory.sample,
            **verdict,
        )
