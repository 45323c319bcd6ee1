"""Adapters on a running server: loaded by name while it serves others, from a folder that lives as long as it does."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from dagster_project.serving.state import ADAPTERS, Address, ServingError
from toolemu.redaction import redact

_TIMEOUT_S = 300.0


class ServedAdapter(NamedTuple):
    """An adapter for a server.

    Attributes:
        name: The model that it serves with it; the same name is the same weights.
        write: Writes the adapter into a folder.
    """

    name: str
    write: Callable[[Path], object]


def load_adapter(place: Path, address: Address, adapter: ServedAdapter) -> None:
    """Has a leased server serve an adapter, if it does not yet.

    Args:
        place: The server's folder.
        address: Where it answers, and its key.
        adapter: The adapter.

    Raises:
        ServingError: The server does not take it.
    """
    name, write = adapter
    folder = place / ADAPTERS / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):
        if not folder.exists():
            partial = Path(tempfile.mkdtemp(dir=folder.parent))
            try:
                write(partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        _ask_to_load(address, name, folder)


def _ask_to_load(address: Address, name: str, folder: Path) -> None:
    url, key = address
    body = json.dumps({"lora_name": name, "lora_path": str(folder)}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key.get_secret_value()}"}
    request = urllib.request.Request(f"{url}/load_lora_adapter", data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        told = error.read().decode(errors="replace")
        if "already been loaded" not in told:
            raise ServingError(
                f"The server at {url} does not take the adapter {name} (HTTP {error.code}): {redact(told)[:500]} "
                "Is its rank above the server's adapter_rank?"
            ) from None
    except OSError as error:
        raise ServingError(
            f"The server at {url} does not answer: {error}. Its log is beside the adapter's folder."
        ) from error
