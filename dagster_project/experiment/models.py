"""Source models with weights of their own in the experiment file, and what runs them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from dagster_project.experiment.agents import Recipe
from dagster_project.serving.settings import ServedEndpoint, ServerSettings, Weights
from toolemu.chat.settings import ModelOptions, OpenAIModelSettings


class LocalSettings(BaseModel):
    """How transformers run a model in process."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dtype: Literal["float64", "float32", "bfloat16", "float16"] = Field(
        "float64", description="Precision to compute in; with float64 a reply does not depend on what shares its batch."
    )
    max_batch: int = Field(64, ge=1, description="Most requests to generate together.")
    device: str = Field("cpu", description="As torch names it: cpu, cuda, cuda:1.")
    threads: int | None = Field(1, ge=1, description="Of torch; null leaves it. One is best for tiny models.")


class RunHere(ModelOptions):
    """A model whose weights are here: what runs it."""

    IDENTITY: ClassVar[frozenset[str]] = frozenset()
    """The fields that decide the weights; all others decide how they are run."""

    backend: Literal["local", "vllm"] = Field("local", description="vllm: a leased server; local: in process.")
    local: LocalSettings = LocalSettings()
    server: ServerSettings = ServerSettings()

    def identity(self) -> dict[str, Any]:
        """Returns what decides the weights."""
        return self.model_dump(mode="json", include={*self.IDENTITY})

    def running(self) -> dict[str, Any]:
        """Returns what decides how they are run, as far as it is not the default."""
        return self.model_dump(mode="json", exclude={*self.IDENTITY}, exclude_defaults=True)

    def asked_at(self, endpoint: str, model: str) -> OpenAIModelSettings:
        """Returns the model as one behind an endpoint."""
        options = {name: getattr(self, name) for name in ModelOptions.model_fields if name not in self.IDENTITY}
        return OpenAIModelSettings(endpoint=endpoint, model=model, **options)


class WeightsModel(RunHere, Weights):
    """A source model with weights of its own: of the hub, or in a folder."""

    IDENTITY = frozenset({"kind", "source", "revision"})

    kind: Literal["weights"]
    backend: Literal["local", "vllm"] = Field("vllm", description="vllm: a leased server; local: in process.")

    def endpoint(self) -> ServedEndpoint:
        """Returns the endpoint at which it is served, for other roles, too."""
        return ServedEndpoint(
            serve=Weights(**{name: getattr(self, name) for name in Weights.model_fields}), server=self.server
        )


class _Joins(BaseModel):
    """An agent that was trained elsewhere and joins the experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    of: str = Field(description="The source model that it is compared with.")
    recipe: Recipe = Field(
        description="What it was trained for. It is a point of its own, named by its key: safe of `mine` is safe@mine. "
        "Those that are one point are given a variant in common: safe@ours."
    )
    judge: str = Field(description="The judge that counts as its pairs' in `match`; any, if it had none.")
    beta: float | None = Field(None, gt=0, description="DPO's beta; null where there was none, or nobody knows.")


class OwnWeights(WeightsModel, _Joins):
    """One's own checkpoint."""


class OwnAdapter(Weights, _Joins):
    """One's own adapter of a source model of the experiment: of the hub, or in a folder."""

    kind: Literal["adapter"]


class OwnServed(OpenAIModelSettings, _Joins):
    """An agent behind an endpoint."""


OwnAgent = Annotated[OwnWeights | OwnAdapter | OwnServed, Field(discriminator="kind")]
