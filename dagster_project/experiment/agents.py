"""Trained agents: what each was trained on, stage by stage."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class TrainedMetric(StrEnum):
    """What a stage trains for; `both` takes pairs in which both metrics agree."""

    safe = "safe"
    help = "help"
    both = "both"


class Recipe(StrEnum):
    """The sequence of metrics an agent is trained on."""

    safe = "safe"
    help = "help"
    both = "both"
    safe_then_help = "safe_then_help"
    help_then_safe = "help_then_safe"

    @property
    def metrics(self) -> tuple[TrainedMetric, ...]:
        """The metric of each stage, in order."""
        return tuple(TrainedMetric(part) for part in self.value.split("_then_"))

    @property
    def label(self) -> str:
        """The short label of figures and tables: S, H, S&H, S→H, H→S."""
        return RECIPE_LABELS[self]


RECIPE_LABELS = {
    Recipe.safe: "S",
    Recipe.help: "H",
    Recipe.both: "S&H",
    Recipe.safe_then_help: "S→H",
    Recipe.help_then_safe: "H→S",
}


class Stage(BaseModel):
    """One DPO training: on whose pairs for which metric, with which beta and how long (None: nobody recorded it)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: TrainedMetric
    judge: str
    beta: float
    epochs: float | None


class Agent(NamedTuple):
    """One trained agent, over all its seeds.

    Attributes:
        key: `<model>:<recipe>:<pairs judge>:<beta>`; a label, never parsed.
        model: The source model's key.
        recipe: What it is trained on.
        pairs_judge: Whose scores its pairs are from.
        beta: DPO's beta; None where its stages' betas differ.
        stages: The recipe's stages with their parameters.
    """

    key: str
    model: str
    recipe: Recipe
    pairs_judge: str
    beta: float | None
    stages: tuple[Stage, ...]

    def prefix(self, n_stages: int) -> str:
        """Returns the key of the agent that this one is after its first `n_stages` stages."""
        recipe = "_then_".join(stage.metric for stage in self.stages[:n_stages])
        return agent_key(self.model, recipe, self.pairs_judge, self.beta)


def agent_key(model: str, recipe: str, pairs_judge: str, *betas: float | None) -> str:
    """Returns the key of a trained agent; with several betas where its stages differ."""
    return f"{model}:{recipe}:{pairs_judge}:{'+'.join(f'{beta:g}' for beta in betas if beta is not None)}"
