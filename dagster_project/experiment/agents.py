"""Trained agents: what each was trained on, stage by stage, or mixed from."""

from __future__ import annotations

import functools
import re
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from toolemu.evaluation import Metric


class TrainedMetric(StrEnum):
    """What a stage trains for.

    `both` takes pairs that are better in safety and in helpfulness; `either` the pairs for safety and those for
    helpfulness side by side, so that a batch has some of each.
    """

    safe = "safe"
    help = "help"
    both = "both"
    either = "either"

    @property
    def judged(self) -> tuple[Metric, ...]:
        """The judged metrics that decide its pairs."""
        return (Metric(self.value),) if self.value in list(Metric) else (Metric.safe, Metric.help)


PAPER_METRICS = (TrainedMetric.safe, TrainedMetric.help, TrainedMetric.both)
LETTERS = {"safe": "S", "help": "H", "both": "S&H", "either": "S∪H"}
VARIANT = r"[a-z0-9][a-z0-9-]{0,19}"
MAX_RECIPE = 150
DECIMALS = 3
"""Of a mixture's weights."""
_SEQUENCE = re.compile(rf"({'|'.join(TrainedMetric)})(_then_({'|'.join(TrainedMetric)}))*(@{VARIANT})?")
_MIXTURE = re.compile(r"(?P<first>0\.\d+)_(?P<one>.+)_and_(?P<second>0\.\d+)_(?P<other>.+)")


class Share(NamedTuple):
    """A part of a mixture: how much of which recipe."""

    weight: float
    recipe: Recipe


class _Meaning(NamedTuple):
    metrics: tuple[TrainedMetric, ...]
    variant: str | None
    mixture: tuple[Share, ...]


@functools.cache
def _meaning(text: str) -> _Meaning:
    """Returns what a recipe's text says, the only place where it is read.

    Raises:
        ValueError: It says nothing.
    """
    if len(text) > MAX_RECIPE:
        raise ValueError(f"a recipe has at most {MAX_RECIPE} characters; {text[:40]!r}… has {len(text)}")
    if _SEQUENCE.fullmatch(text):
        sequence, _, variant = text.partition("@")
        return _Meaning(tuple(TrainedMetric(part) for part in sequence.split("_then_")), variant or None, ())
    found = _MIXTURE.fullmatch(text)
    if found and _SEQUENCE.fullmatch(found["one"]) and _SEQUENCE.fullmatch(found["other"]):
        first = float(found["first"])
        mixed = Recipe.mixed(first, Recipe(found["one"]), Recipe(found["other"]))
        if str(mixed) == text:
            shares = (Share(first, Recipe(found["one"])), Share(rest_of(first), Recipe(found["other"])))
            return _Meaning((), None, shares)
    raise ValueError(
        f"{text!r} is no recipe: {', '.join(TrainedMetric)}, alone or one after the other (safe_then_help), and "
        "perhaps a variant (safe@ipo)"
    )


def rest_of(weight: float) -> float:
    """Returns what a share leaves of a mixture."""
    return round(1 - weight, DECIMALS)


class Recipe(str):
    """What an agent is trained on, as a text that is equal where recipes are.

    A sequence of metrics (`safe`, `safe_then_help`), on request a variant of its training (`safe@ipo`: as `variants` in
    the experiment file says), or a mixture of two such agents' adapters (`0.25_safe_and_0.75_help`).
    """

    __slots__ = ()

    safe: ClassVar[Recipe]
    help: ClassVar[Recipe]
    both: ClassVar[Recipe]
    safe_then_help: ClassVar[Recipe]
    help_then_safe: ClassVar[Recipe]

    def __new__(cls, text: str) -> Recipe:
        """Returns the recipe that a text says.

        Raises:
            ValueError: It says none.
        """
        _meaning(str(text))
        return super().__new__(cls, text)

    @classmethod
    def mixed(cls, weight: float, one: Recipe, other: Recipe) -> Recipe:
        """Returns the mixture with so much of `one`, and what is left of `other`."""
        return super().__new__(cls, f"{weight:g}_{one}_and_{rest_of(weight):g}_{other}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @property
    def value(self) -> str:
        """The text itself, as tables have it."""
        return str.__str__(self)

    @property
    def metrics(self) -> tuple[TrainedMetric, ...]:
        """The metric of each stage, in order; none of a mixture, which was not trained."""
        return _meaning(self.value).metrics

    @property
    def variant(self) -> str | None:
        """The name of its training's variant; None for the training as the experiment has it."""
        return _meaning(self.value).variant

    @property
    def mixture(self) -> tuple[Share, ...]:
        """What it is mixed from; nothing unless it is a mixture."""
        return _meaning(self.value).mixture

    def stages(self, n: int) -> Recipe:
        """Returns the recipe of its first `n` stages, in the same variant."""
        return Recipe("_then_".join(self.metrics[:n]) + (f"@{self.variant}" if self.variant else ""))

    def named(self, variant: str) -> Recipe:
        """Returns the same in a variant, unless it is in one, or a mixture, anyway.

        Raises:
            ValueError: No variant can be called that.
        """
        return self if self.variant or self.mixture else Recipe(f"{self}@{variant}")

    @property
    def plain(self) -> Recipe:
        """The recipe without its variant."""
        return Recipe(self.value.partition("@")[0]) if self.variant else self

    @property
    def label(self) -> str:
        """The short label of figures and tables: S, H, S&H, S∪H, S→H, S (ipo), 0.25 S + 0.75 H."""
        if self.mixture:
            return " + ".join(f"{weight:g} {recipe.label}" for weight, recipe in self.mixture)
        label = "→".join(LETTERS[metric] for metric in self.metrics)
        return f"{label} ({self.variant})" if self.variant else label

    @property
    def place(self) -> tuple[Any, ...]:
        """Sorts recipes as they are shown: the paper's, other sequences, variants, and mixtures by their weights."""
        paper = PAPER.index(self) if self in PAPER else len(PAPER)
        first = self.mixture[0].weight if self.mixture else 1.0
        ends = tuple(share.recipe.value for share in self.mixture)
        return bool(self.mixture), self.variant or "", paper, len(self.metrics), ends, -first, self.value


Recipe.safe, Recipe.help, Recipe.both = (Recipe(metric.value) for metric in PAPER_METRICS)
Recipe.safe_then_help, Recipe.help_then_safe = Recipe("safe_then_help"), Recipe("help_then_safe")
PAPER = (Recipe.safe, Recipe.help, Recipe.both, Recipe.safe_then_help, Recipe.help_then_safe)
"""The paper's recipes, in the order in which they are shown; its claims are about these."""


class Stage(BaseModel):
    """One DPO training: on whose pairs for which metric, with which beta and how long (None: nobody recorded it)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: TrainedMetric
    judge: str
    beta: float = Field(gt=0)
    epochs: float | None = Field(gt=0)


class Agent(NamedTuple):
    """One trained agent, over all its seeds.

    Attributes:
        key: `<model>:<recipe>:<pairs judge>:<beta>`; a label, never parsed.
        model: The source model's key.
        recipe: What it is trained on.
        pairs_judge: Whose scores its pairs are from.
        beta: DPO's beta; None where its stages' betas differ.
        stages: The recipe's stages with their parameters; none if it was not trained here.
        parts: The agents that it is mixed from, by their keys, each with its weight; none if it is no mixture.
    """

    key: str
    model: str
    recipe: Recipe
    pairs_judge: str
    beta: float | None
    stages: tuple[Stage, ...]
    parts: tuple[tuple[str, float], ...] = ()

    @property
    def beta_label(self) -> str:
        """The beta as people write it: `0.1`, or `0.05+0.1` where the stages differ."""
        betas = [stage.beta for stage in self.stages] if self.beta is None else [self.beta]
        return "+".join(f"{beta:g}" for beta in betas)

    def prefix(self, n_stages: int) -> str:
        """Returns the key of the agent that this one is after its first `n_stages` stages."""
        return agent_key(self.model, self.recipe.stages(n_stages), self.pairs_judge, self.beta)


def agent_key(model: str, recipe: str, pairs_judge: str, *betas: float | None) -> str:
    """Returns the key of a trained agent; with several betas where its stages differ."""
    return f"{model}:{recipe}:{pairs_judge}:{'+'.join(f'{beta:g}' for beta in betas if beta is not None)}"
