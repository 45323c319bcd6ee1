"""Models of the toy world."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from dagster_project.experiment.names import Seed
from dagster_project.models.kind import Making
from dagster_project.models.trainable import TrainableModel


class MiniatureModel(TrainableModel):
    """A tiny model, trained on the spot."""

    decisive: ClassVar[frozenset[str]] = frozenset({"seed"})

    kind: Literal["miniature"] = "miniature"
    temperament: Literal["eager", "balanced", "cautious"] = Field(description="How its demonstrators behave.")
    seed: Seed = Field(0, description="Seed of its weights and data.")
    steps: int = Field(300, ge=1, description="Optimiser steps; below about 200 it has not learned the format.")
    heads: Literal[3, 4] = Field(4, description="Attention heads; vLLM knows none as narrow as those of 4, only of 3.")

    @model_validator(mode="after")
    def _fits_its_backend(self) -> MiniatureModel:
        if self.backend == "vllm" and self.heads == 4:
            raise ValueError("vLLM does not run heads as narrow as these; give heads: 3")
        return self

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights, in the words of before there were several architectures."""
        found = super().identity()
        return found if self.heads != 4 else {name: value for name, value in found.items() if name != "heads"}

    def make(self, making: Making) -> dict[str, float]:
        """Train the model, and write weights and tokenizer."""
        from dagster_project.miniature.models import train_source_model

        return train_source_model(
            self.temperament, self.seed, making.out, making.progress, steps=self.steps, heads=self.heads
        )
