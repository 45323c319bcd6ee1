"""How endpoints and the models behind them are described; what talks to them is imported where it is used."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from toolemu.chat.codec import check_json
from toolemu.errors import UNSHOWN, HiddenValueError
from toolemu.secret_names import is_secret_field, looks_like_a_key

OWN_FIELDS = frozenset(
    {
        "model",
        "messages",
        "temperature",
        "seed",
        "stop",
        "stream",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "response_format",
        "chat_template_kwargs",
    }
)
"""Of a request: what follows from settings and roles, or what its answer could not be read with."""


def _names_a_variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        # What stands there instead may be the secret itself.
        raise PydanticCustomError(UNSHOWN, "this is the name of the variable with the secret, such as OPENAI_API_KEY")
    return text


def _check_no_secret(fields: Any) -> None:
    """Raise `HiddenValueError` if a field's name says that it holds a secret: fields of requests are in records."""
    if isinstance(fields, dict):
        for name, value in fields.items():
            if is_secret_field(str(name)):
                raise HiddenValueError(
                    f"{name} is no field of a request here, since requests are described in manifests; put the secret "
                    "into a variable (environment or .env), and name the variable as `key` of the endpoint",
                    code="experiment.secret-in-file",
                )
            _check_no_secret(value)
    elif isinstance(fields, list):
        for value in fields:
            _check_no_secret(value)


VariableName = Annotated[str, AfterValidator(_names_a_variable)]
"""The name of a variable, of the environment or in .env, that holds a secret."""


class Patience(BaseModel):
    """How far to go in asking a server."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_in_flight: int = Field(200, ge=1, le=500, description="Most requests at once; fewer when the server complains.")
    timeout_s: float = Field(300, gt=0, description="Longest wait for one answer, in seconds.")
    max_attempts: int = Field(
        10, ge=1, description="How often a request is made that fails while others are answered; then it is given up."
    )
    give_up_after_s: float = Field(
        600, ge=0, description="So long without an answer to anything, and the run ends with an error; in seconds."
    )
    continues: bool = Field(
        False,
        description="The server continues an assistant's message that comes last (vLLM does; OpenAI does not). "
        "Elsewhere the model is asked in words to go on.",
    )


class EndpointSettings(Patience):
    """A server, and how far to go in asking it."""

    url: str = Field(description="Base URL, mostly ending in /v1.")
    key: VariableName | None = Field(None, description="Variable (environment or .env) that holds the API key.")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of a port that is none
            there = False
        if not there:
            raise PydanticCustomError(UNSHOWN, "url is the server's address, such as http://127.0.0.1:8000/v1")
        if "@" in parts.netloc or "?" in url or "#" in url or looks_like_a_key(url):
            raise HiddenValueError(
                "url holds more than an address: a user, a password, a query or a key, which would be in messages and "
                "records; write the address alone, such as https://api.example.com/v1, put the key into a variable "
                "(environment or .env), and name the variable as `key`",
                code="endpoint.secret-in-url",
            )
        return url


class ModelOptions(BaseModel):
    """How a model is asked, wherever it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    quantisation: str = Field("none", description="How its weights are quantised; recorded, nothing more.")
    temperature: float | None = Field(None, ge=0, description="Overrides the role's temperature.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens a reply, reasoning included; caps the role's.")
    thinking: bool | None = Field(None, description="Qwen3's switch, as the template argument enable_thinking.")
    chat_template: dict[str, Any] = Field({}, description="Further arguments of the chat template (vLLM).")
    request: dict[str, Any] = Field({}, description="Further fields of every request, such as reasoning_effort.")
    seed: int = Field(0, ge=0, description="Added to the seed of every request.")
    structured: bool = Field(True, description="Ask for JSON of a schema where the role has one.")
    server_stop: bool | None = Field(
        None,
        description="Send stop sequences to the server. They are kept here in any case. Null: unless it thinks, since "
        "servers stop at one that a model only thinks of, too.",
    )

    @field_validator("request", "chat_template", mode="before")
    @classmethod
    def _is_json(cls, fields: Any) -> Any:
        return check_json(fields) if isinstance(fields, dict) else fields

    @field_validator("request")
    @classmethod
    def _leaves_what_has_a_field(cls, request: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(request.keys() & OWN_FIELDS)
        if taken:
            raise ValueError(f"{taken[0]} is not for `request`: what is asked and how is in fields of their own")
        _check_no_secret(request)
        return request

    @field_validator("chat_template")
    @classmethod
    def _holds_no_secret(cls, chat_template: dict[str, Any]) -> dict[str, Any]:
        _check_no_secret(chat_template)
        return chat_template

    def template_arguments(self) -> dict[str, Any]:
        """Returns the arguments of the chat template, the switch for thinking among them."""
        thinking = {} if self.thinking is None else {"enable_thinking": self.thinking}
        return {**self.chat_template, **thinking}


class OpenAIModelSettings(ModelOptions):
    """A model behind an endpoint."""

    kind: Literal["openai"] = "openai"
    endpoint: str = Field(description="The endpoint's name.")
    model: str = Field("", description="The model's name there; left out where the endpoint is served here.")
    revision: str = Field("", description="Which revision of the weights the server has; recorded, nothing more.")
