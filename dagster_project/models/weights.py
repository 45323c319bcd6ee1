"""Models and adapters whose weights exist before the run: of the hub, or in a folder."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from dagster_project.collect.weights import pin_weights
from dagster_project.models.kind import Making, ModelKind
from dagster_project.models.trainable import TrainableModel
from dagster_project.serving.settings import Weights


class _Pinned(Weights, ModelKind):
    @property
    def weights(self) -> Weights:
        """Its weights."""
        return Weights(**{name: getattr(self, name) for name in Weights.model_fields})

    def make(self, making: Making) -> dict[str, float]:
        """Write which weights these are, with their hashes, and return their size."""
        return {"bytes": float(pin_weights(self, making.out))}


class WeightsModel(_Pinned, TrainableModel):
    """A model with weights of its own."""

    uses_gpu: ClassVar[bool] = True

    kind: Literal["weights"]
    backend: Literal["local", "vllm"] = Field("vllm", description="vllm: a leased server; local: in process.")


class AdapterModel(_Pinned):
    """An adapter of the source model that it joins."""

    on_base: ClassVar[bool] = True

    kind: Literal["adapter"]
