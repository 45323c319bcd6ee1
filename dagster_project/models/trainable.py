"""Models whose weights are here: what they are run by, in this process or on a leased server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from dagster_project.collect.weights import model_folder
from dagster_project.models.kind import ACTING, ModelKind, ModelTools
from dagster_project.models.own import OwnAgent
from dagster_project.serving.settings import ServerSettings
from toolemu.chat import ChatModel
from toolemu.chat.settings import ModelOptions, OpenAIModelSettings
from toolemu.errors import FrontierError

_TEMPLATE_OPTION = "--chat-template"
_TEMPLATE_FIELDS = ("chat_template", "add_generation_prompt", "continue_final_message", "documents", "tools")
"""Fields of a request to vLLM that change what the template renders."""


class LocalSettings(BaseModel):
    """Settings of a model that transformers run in process."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dtype: Literal["float64", "float32", "bfloat16", "float16"] = Field(
        "float64", description="Precision to compute in; with float64 a reply does not depend on what shares its batch."
    )
    max_batch: int = Field(64, ge=1, description="Most requests to generate together.")
    device: str = Field("cpu", description="As torch names it: cpu, cuda, cuda:1.")
    threads: int | None = Field(1, ge=1, description="Of torch; null leaves it. One is best for tiny models.")


class TrainableModel(ModelOptions, ModelKind):
    """A model whose weights are here, with what runs them.

    The fields that a kind adds decide its weights. Those of this class decide how the weights are run.

    Attributes:
        decisive: Fields of this class that decide the weights, too.
    """

    decisive: ClassVar[frozenset[str]] = frozenset()
    trainable: ClassVar[bool] = True

    backend: Literal["local", "vllm"] = Field("local", description="vllm: a leased server; local: in process.")
    local: LocalSettings = LocalSettings()
    server: ServerSettings = ServerSettings()

    @property
    def served(self) -> ServerSettings | None:
        """Settings of its leased vLLM server; None if it runs in process."""
        return self.server if self.backend == "vllm" else None

    def role(self, place: str) -> OpenAIModelSettings | None:
        """Return it as a model behind the endpoint that it offers."""
        return self._asked_at(place, self.offers.serve.source) if self.offers else None

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide the weights."""
        return self.model_dump(mode="json", include=self._identity())

    def running(self) -> dict[str, Any]:
        """Return the fields that decide how the weights are run, without defaults."""
        return self.model_dump(mode="json", exclude=self._identity(), exclude_defaults=True)

    def check_trainable(self, place: str) -> None:
        """Check that agents are asked with the template that training renders: the tokenizer's own."""
        option = next((text for text in self.server.arguments if text.startswith(_TEMPLATE_OPTION)), None)
        field = next((name for name in _TEMPLATE_FIELDS if name in self.request), None)
        if option or field:
            where = f"server.arguments: {option}" if option else f"request.{field}"
            raise FrontierError(
                f"{place}.{where} changes what the chat template renders for the agent, and training would not know of "
                "it. Put the template into chat_template.jinja of a copy of the model, and its arguments under "
                "`chat_template`.",
                code="chat-template.given-to-server",
            )

    def open(self, name: str, tools: ModelTools) -> ChatModel:
        """Return the model on its leased server, or in this process.

        By default one in this process computes in float64, so that no rounding depends on which requests share a batch:
        a rollout that was killed and resumed then gives the same text as one that was not.
        """
        if self.served is not None:
            return tools.chat(self._asked_at(ACTING, ""), name)
        from toolemu.chat.local import LocalChatModel

        weights, local = model_folder(self, tools.artifact), self.local.model_dump()
        if tools.adapter is None:
            return LocalChatModel(weights, name, options=self, **local)
        with tempfile.TemporaryDirectory() as adapter:
            tools.adapter.write(Path(adapter))
            return LocalChatModel(weights, name, options=self, adapter=Path(adapter), **local)

    def _identity(self) -> set[str]:
        others = {*TrainableModel.model_fields, *OwnAgent.model_fields} - self.decisive - {"kind"}
        return {*type(self).model_fields} - others

    def _asked_at(self, endpoint: str, model: str) -> OpenAIModelSettings:
        options = {name: getattr(self, name) for name in ModelOptions.model_fields if name not in self.decisive}
        return OpenAIModelSettings(endpoint=endpoint, model=model, **options)
