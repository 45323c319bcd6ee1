"""The base of all kinds of models: the questions that the rest of the program asks of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict

from dagster_project.kinds import PYTHON, source_version
from dagster_project.serving.settings import ServedEndpoint, ServerSettings, Weights
from toolemu.chat import ChatModel, ChatReply
from toolemu.chat.settings import OpenAIModelSettings

if TYPE_CHECKING:
    from dagster_project.serving.adapters import ServedAdapter

ACTING = "acting"
"""The endpoint of an agent on a leased server: apart from that of other roles, which may share the server."""
DESCRIPTION = "model.json"
"""In the artifact of a model without weights: which model it is."""


class Making(NamedTuple):
    """The tools of a model while its artifact is made.

    Attributes:
        out: The artifact's folder.
        progress: Told how many steps are finished, of how many.
        probe: Requests a test completion of the model behind the endpoint that `role` names.
    """

    out: Path
    progress: Callable[[int, int], None]
    probe: Callable[[], ChatReply]


class ModelTools(NamedTuple):
    """The tools of a model while it is open.

    Attributes:
        artifact: The folder that `make` wrote, or one with the weights that were trained from it.
        adapter: What it was trained to, if its weights are not merged; None otherwise.
        chat: Opens a model behind an endpoint by its settings and name. Its replies are kept, and its tokens counted.
    """

    artifact: Path
    adapter: ServedAdapter | None
    chat: Callable[[OpenAIModelSettings, str], ChatModel]


class ModelKind(BaseModel):
    """One kind of model. Derive from it, add fields, and override what differs.

    Attributes:
        trainable: Whether its artifact holds or stands for weights that can be trained.
        uses_gpu: Whether it is run and trained on a GPU where there is one.
        on_base: Whether it is an adapter. It acts with the weights of the source model that it joins, by its settings.
        imported: Whether its trajectories are imported, so that it cannot act.
        kind: The word in the experiment file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trainable: ClassVar[bool] = False
    uses_gpu: ClassVar[bool] = False
    on_base: ClassVar[bool] = False
    imported: ClassVar[bool] = False

    kind: str

    @property
    def weights(self) -> Weights | None:
        """The weights that it has before the run, of the hub or in a folder; None if it has none."""
        return None

    @property
    def served(self) -> ServerSettings | None:
        """Settings of its leased vLLM server; None if it runs elsewhere."""
        return None

    @property
    def offers(self) -> ServedEndpoint | None:
        """The endpoint of its leased server, for other roles, too; None if it has none before the run."""
        if self.weights is None or self.served is None:
            return None
        return ServedEndpoint(serve=self.weights, server=self.served)

    def role(self, place: str) -> OpenAIModelSettings | None:
        """Return it as a model behind an endpoint; None if it is behind none.

        Args:
            place: Its place in the experiment file, which is also the name of the endpoint that it `offers`.
        """
        return None

    def code_version(self) -> str:
        """Return the version of what decides its replies besides the fields; change it when the meaning changes.

        By default that is a hash of the source of a class that the experiment file names by `kind: python`.
        """
        return source_version(type(self)) if self.kind == PYTHON else ""

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide its artifact."""
        return self.model_dump(mode="json")

    def running(self) -> dict[str, Any]:
        """Return the fields that decide its replies besides its artifact, without defaults."""
        return {}

    def template_arguments(self) -> dict[str, Any]:
        """Return the arguments of the chat template with which it, and what is trained from it, is asked."""
        return {}

    def check_trainable(self, place: str) -> None:
        """Check that what is trained from it is asked as it is trained.

        Raises:
            FrontierError: It is not; names `place`, its place in the experiment file.
        """

    def make(self, making: Making) -> dict[str, float]:
        """Write the artifact that stands for it in the graph, and return measurements of doing so."""
        described = {**self.identity(), "code_version": self.code_version()}
        (making.out / DESCRIPTION).write_bytes(orjson.dumps(described, option=orjson.OPT_INDENT_2))
        return {}

    def open(self, name: str, tools: ModelTools) -> ChatModel:
        """Return the model, ready to chat; its replies carry `name`."""
        raise NotImplementedError(f"{type(self).__name__} cannot act")
