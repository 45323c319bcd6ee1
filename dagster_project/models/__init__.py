"""Models that act as agents: one module per kind, with the fields of the experiment file and what runs it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, SerializeAsAny, ValidationInfo

from dagster_project.kinds import Registry, word_by_endpoint
from dagster_project.models.kind import ACTING, Making, ModelKind, ModelTools
from dagster_project.models.own import OwnAgent, joining

MODELS = Registry(
    "models",
    ModelKind,
    {
        "miniature": "dagster_project.models.miniature:MiniatureModel",
        "openai": "dagster_project.models.openai:OpenAIModel",
        "weights": "dagster_project.models.weights:WeightsModel",
        "adapter": "dagster_project.models.weights:AdapterModel",
        "imported": "dagster_project.models.imported:ImportedModel",
    },
    word_by_endpoint,
)


def _read_own(value: Any, info: ValidationInfo) -> OwnAgent:
    if isinstance(value, OwnAgent):
        return value
    return joining(MODELS.kind_of(value)).model_validate(dict(value), context=info.context)


AnyModel = Annotated[SerializeAsAny[ModelKind], PlainValidator(MODELS.read)]
"""A source model in the experiment file."""
AnyOwnAgent = Annotated[SerializeAsAny[OwnAgent], PlainValidator(_read_own)]
"""An agent that was trained elsewhere, in the experiment file."""

__all__ = ["ACTING", "MODELS", "AnyModel", "AnyOwnAgent", "Making", "ModelKind", "ModelTools", "OwnAgent"]
