"""Models behind endpoints."""

from __future__ import annotations

import orjson

from dagster_project.models.kind import Making, ModelKind, ModelTools
from toolemu.chat import ChatModel
from toolemu.chat.settings import OpenAIModelSettings

SERVED_MODEL = "served_model.json"
"""In the place of weights: which model answered."""


class OpenAIModel(OpenAIModelSettings, ModelKind):
    """A model behind an endpoint."""

    def role(self, place: str) -> OpenAIModelSettings:
        """Return the model, which is at the endpoint that the experiment file names."""
        return self

    def make(self, making: Making) -> dict[str, float]:
        """Write what it is, the name under which it answered, and what its server does not take.

        Raises:
            FrontierError: Its endpoint cannot be used.
        """
        reply = making.probe()
        served = {**self.model_dump(), "served_as": reply.model, "ignored": reply.ignored}
        (making.out / SERVED_MODEL).write_bytes(orjson.dumps(served, option=orjson.OPT_INDENT_2))
        return {}

    def open(self, name: str, tools: ModelTools) -> ChatModel:
        """Return the model."""
        return tools.chat(self, name)
