"""API keys: from the environment or a `.env` file, and nowhere else; kept in a type that does not print them."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from toolemu.chat.envfile import read_variable
from toolemu.errors import FrontierError
from toolemu.redaction import remember

NO_KEY = "none"
"""What is sent to a server that wants no key: the client library insists on one."""


def read_key(endpoint: str, variable: str | None, directory: Path | None = None) -> SecretStr:
    """Returns the key of an endpoint.

    Args:
        endpoint: Its name, for the error.
        variable: The variable that holds the key; None: it needs none.
        directory: Where to look for a `.env` file, which counts where the environment has no such variable; None: the
            working directory.

    Raises:
        FrontierError: The variable is nowhere, or empty.
    """
    if variable is None:
        return SecretStr(NO_KEY)
    return read_secret(f"Endpoint {endpoint} needs a key", variable, directory)


def read_secret(purpose: str, variable: str, directory: Path | None = None) -> SecretStr:
    """Return a secret from the environment or a `.env` file; from now on `redact` removes it from texts.

    Args:
        purpose: What it is for, for the error.
        variable: The variable that holds it.
        directory: See `read_key`.

    Raises:
        FrontierError: The variable is nowhere or empty, or holds what goes into no header and no URL; or the file
            cannot be read.
    """
    found = os.environ.get(variable) or read_variable((directory or Path.cwd()) / ".env", variable)
    if not found or not found.strip():
        raise FrontierError(
            f"{purpose}, and {variable} is not set. "
            f"Set it in the environment, or write {variable}=… into a file .env in the working directory."
        )
    if not found.strip().isprintable() or len(found.split()) > 1:  # it is not repeated here
        raise FrontierError(f"{purpose}, and {variable} holds several words or lines. Set it to the secret alone.")
    remember(found)
    return SecretStr(found.strip())
