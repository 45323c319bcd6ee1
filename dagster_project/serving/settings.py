"""What a leased server is: which weights, how vLLM runs them, and the name under which equal ones are shared."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from toolemu.chat.settings import EndpointSettings, Patience
from toolemu.errors import HiddenValueError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Adapter ranks that vLLM can be started for; an adapter of any smaller rank fits."""
_NOT_FOR_FILES = (
    *("--api-key", "--hf-token"),  # would be in files and in the list of processes
    *("--host", "--port", "--uds", "--allowed-local-media-path"),  # who can reach the server, and what it reads
    *("--trust-remote-code", "--middleware", "--tool-parser-plugin", "--reasoning-parser-plugin"),  # code of others
    *("--logits-processors", "--worker-cls", "--worker-extension-cls", "--scheduler-cls", "--config"),  # that, too
    *("--model", "--revision", "--served-model-name"),  # these have fields of their own
)
"""Arguments of vLLM that an experiment file does not decide: they run code, open the server, or hold a secret."""


class ServerSettings(BaseModel):
    """How vLLM runs a model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gpu_memory: float = Field(
        0.9, gt=0, le=1, description="Its share of the card; servers whose shares fit a card run beside one another."
    )
    cards: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="The cards, by number; with several, the model is split over them."
    )
    dtype: str = Field("auto", pattern=r"^(auto|float32|bfloat16|float16)$", description="Precision of the weights.")
    context: int | None = Field(None, ge=16, description="Longest conversation in tokens; null: the model's own.")
    adapters: int = Field(8, ge=0, description="Adapters in one batch; 0: it takes none.")
    adapter_rank: int = Field(
        32, ge=1, le=RANKS[-1], description="Largest rank; that of an agent of several stages is the stages' sum."
    )
    arguments: tuple[str, ...] = Field((), description="Further arguments of vLLM's server, as on its command line.")
    start_timeout_s: float = Field(1800, gt=0, description="Longest wait for it to be ready, in seconds.")
    idle_after_s: float = Field(600, ge=0, description="It ends after so long without a lease, in seconds.")

    @field_validator("arguments")
    @classmethod
    def _arguments_are_for_files(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for argument in arguments:
            name = re.split("[=. ]", argument, maxsplit=1)[0].replace("_", "-").lower()
            meant = [taken for taken in _NOT_FOR_FILES if taken.startswith(name)]  # vLLM takes abbreviations
            if name.startswith("--") and name != "--" and meant:
                raise HiddenValueError(
                    f"arguments holds {meant[0]}, which an experiment file cannot decide: it runs code of others, "
                    "opens the server to others, or holds a secret; remove it, or start vLLM yourself and name its "
                    "address as `url` of an endpoint",
                    code="serving.argument",
                )
        return arguments


class Weights(BaseModel):
    """Weights and tokenizer: of a model on Hugging Face's hub, or in a folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(min_length=1, description="Its name on the hub, or a folder, relative to the experiment file.")
    revision: str | None = Field(None, description="Of the hub: best the hash of a commit; null: the newest.")
    folder: Path | None = Field(None, exclude=True, description="Where a folder lies; computed, never in the file.")

    @model_validator(mode="before")
    @classmethod
    def _find_folder(cls, value: Any, info: ValidationInfo) -> Any:
        """Return the fields with the folder that `source` is, if it is one below the context's `folder`."""
        around, source = getattr(info.context, "folder", None), value.get("source") if isinstance(value, dict) else None
        if around is None or not isinstance(source, str) or not (around / source).is_dir():
            return value
        return {**value, "folder": (around / source).resolve()}


class ServedEndpoint(Patience):
    """A server that is started when first needed, with what to give it and how far to go in asking it."""

    serve: Weights
    server: ServerSettings = ServerSettings()
    continues: bool = True
    give_up_after_s: float = Field(60, ge=0, description="As of any endpoint; a server of ours that is silent is dead.")

    def at(self, url: str) -> EndpointSettings:
        """Returns the endpoint, now that it has an address."""
        return EndpointSettings(url=url, **{name: getattr(self, name) for name in Patience.model_fields})


def _is_served(value: Any) -> str:
    served = isinstance(value, ServedEndpoint) or (isinstance(value, dict) and "serve" in value)
    return "(serve)" if served else "(url)"


AnyEndpoint = Annotated[
    Annotated[EndpointSettings, Tag("(url)")] | Annotated[ServedEndpoint, Tag("(serve)")],
    Discriminator(_is_served),
]
"""An endpoint in the experiment file: a server at a URL, or one to start."""


class Server(NamedTuple):
    """A server to lease.

    Attributes:
        weights: Folder of weights and tokenizer, or a hub's name.
        revision: Of the hub's; empty for a folder.
        model: The name under which it serves the base.
        settings: How vLLM runs it.
    """

    weights: str
    revision: str
    model: str
    settings: ServerSettings

    @property
    def key(self) -> str:
        """The same for equal servers: what they serve and how, but not how long anyone waits for them."""
        how = self.settings.model_dump(exclude={"start_timeout_s", "idle_after_s"})
        described = orjson.dumps([self.weights, self.revision, self.model, how], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(described).hexdigest()[:16]

    def dump(self) -> bytes:
        """Return the server as JSON, for `load`."""
        return orjson.dumps((self.weights, self.revision, self.model, self.settings.model_dump(mode="json")))

    @classmethod
    def load(cls, content: bytes) -> Server:
        """Return the server that `dump` wrote."""
        weights, revision, model, settings = orjson.loads(content)
        return cls(weights, revision, model, ServerSettings.model_validate(settings))

    def arguments(self, port: int) -> list[str]:
        """Returns vLLM's arguments."""
        settings = self.settings
        given = {
            "--model": self.weights,
            "--revision": self.revision,
            "--served-model-name": self.model,
            "--host": "127.0.0.1",
            "--port": str(port),
            "--dtype": settings.dtype,
            "--gpu-memory-utilization": str(settings.gpu_memory),
            "--max-model-len": str(settings.context or ""),
            "--tensor-parallel-size": str(len(settings.cards)),
            # Left to itself, vLLM takes sampling parameters that a request leaves out from the weights' folder.
            "--generation-config": "vllm",
        }
        if settings.adapters:
            rank = next(rank for rank in RANKS if rank >= settings.adapter_rank)
            given |= {"--max-loras": str(settings.adapters), "--max-lora-rank": str(rank)}
        switches = [
            "--no-trust-remote-code",
            "--enable-prefix-caching",
            *(["--enable-lora"] if settings.adapters else []),
        ]
        named = [part for name, value in given.items() if value for part in (name, value)]
        return [*named, *switches, *settings.arguments]


def server_of(weights: Path, model: str, settings: ServerSettings) -> Server:
    """Returns the server of weights in a folder."""
    return Server(str(weights.resolve()), "", model, settings)
