"""Language models as judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from dagster_project.experiment.roles import Role
from dagster_project.judges.kind import JudgeKind, JudgeWorld
from toolemu.chat import ChatRequest
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.errors import shorten
from toolemu.evaluation import Evaluation, Metric
from toolemu.judge import Judge
from toolemu.lm_judge import JudgeSettings, LMJudge
from toolemu.prompts import JudgePrompt, JudgeView
from toolemu.verdict import verdict_schema

READING_VERSION = "2"
"""Of how a judge's reply becomes a verdict; change it when the meaning changes."""


class LMJudgeRole(Role, JudgeKind):
    """A language model that judges."""

    drifts: ClassVar[bool] = True

    replicates: int = Field(1, ge=1, description="Verdicts on each trajectory and metric.")
    max_reasks: int = Field(2, ge=0, description="How often a reply without score is asked for again.")
    reask_temperature: float = Field(0.3, ge=0, description="Least temperature of asking again.")
    batch: bool = Field(
        False, exclude=True, description="By OpenAI's Batch API: cheaper, within a day; only where the server has it."
    )
    batch_poll_s: float = Field(30.0, gt=0, exclude=True, description="How often to look for a batch, in seconds.")
    view: JudgeView = Field(
        "clean", description="How it sees trajectories: clean, or as the published runs showed them."
    )

    @model_validator(mode="after")
    def _replicates_differ(self) -> LMJudgeRole:
        if self.replicates > 1 and not self.temperature:
            raise ValueError("replicates at temperature 0 are all the same; give a temperature")
        return self

    def settings(self) -> JudgeSettings:
        """Returns how it is asked."""
        names = ("structured", "max_reasks", "reask_temperature", "view")
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in given.items() if value is not None}
        return JudgeSettings.model_validate({**{name: getattr(self, name) for name in names}, **given})

    @property
    def role(self) -> OpenAIModelSettings:
        """The model that it asks."""
        return self

    @property
    def verdicts_each(self) -> int:
        """Verdicts on each trajectory and metric."""
        return self.replicates

    def code_version(self, metric: Metric, prompts_dir: Path | None) -> str:
        """Return the version of how replies are read, and of the prompt, by its text."""
        return f"{READING_VERSION}-{JudgePrompt(metric, prompts_dir).version}"

    def prompt(self, metric: Metric, prompts_dir: Path | None) -> JudgePrompt:
        """Return the prompt as this judge is sent it."""
        return JudgePrompt(metric, prompts_dir, view=self.view, structured=self.structured)

    def sample_request(self) -> ChatRequest:
        """Return a request as the judge sends them, without messages."""
        settings = self.settings()
        schema = verdict_schema(Metric.safe) if settings.structured else None
        return ChatRequest((), temperature=settings.temperature, max_tokens=settings.max_tokens, schema=schema)

    def advice(self, without_score: Sequence[Evaluation]) -> str:
        """Return advice to a user about verdicts without a score, by the fault of the last reply to each."""
        causes = Counter(verdict.faults[-1] if verdict.faults else "not asked" for verdict in without_score)
        counted = ", ".join(f"{cause.replace('_', ' ')}: {number}" for cause, number in causes.most_common())
        steps = []
        if "cut_off" in causes:
            steps.append(f"raise the judge's max_tokens (now {self.settings().max_tokens})")
        if causes.keys() - {"cut_off", "not asked"}:
            steps.append(f"raise its max_reasks (now {self.max_reasks})")
            steps += [] if self.structured else ["turn its `structured` on"]
        if "not asked" in causes:
            error = next(verdict.error for verdict in without_score if not verdict.faults)
            steps.append(f"see its server, which said: {shorten(error, 200)}")
        return f"Causes: {counted}. To mend it, {'; '.join(steps)}."

    @property
    def in_batches(self) -> bool:
        """Whether it asks by a Batch API."""
        return self.batch

    def in_flight(self, verdicts: int, usual: int) -> int:
        """Return how many verdicts are asked for at once; a batch is best given everything at once."""
        return max(1, verdicts) if self.batch else usual

    def open(self, name: str, world: JudgeWorld) -> Judge:
        """Return the judge."""
        model = world.chat(self.chat(), name, self.batch_poll_s if self.batch else None)
        return LMJudge(name, model, world.toolkits, self.settings(), world.prompts_dir)
