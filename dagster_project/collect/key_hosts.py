"""Which servers may be sent which key. An experiment file names both, so a stranger's file could send a key anywhere.

A key goes to a server only if a person allowed it: on a terminal, by `--allow-key`, or by the variable
`FRONTIER_KEY_HOSTS`. Answers are kept in a file of the user. Servers on this machine need no permission.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from dagster_project.artifacts.private import private_folder, read_private, write_private
from toolemu.chat.settings import EndpointSettings
from toolemu.errors import FrontierError

VARIABLE = "FRONTIER_KEY_HOSTS"
"""Environment variable: what is allowed besides the file, as `OPENAI_API_KEY=https://api.example.com`, with spaces."""
_PORTS = {"http": 80, "https": 443}


class KeyUse(NamedTuple):
    """A key and where it is sent.

    Attributes:
        variable: The variable that holds the key.
        origin: The server's scheme, host and port, such as ``https://api.example.com``.
    """

    variable: str
    origin: str

    def __str__(self) -> str:
        return f"{self.variable}={self.origin}"


KNOWN = frozenset(
    {
        KeyUse("OPENAI_API_KEY", "https://api.openai.com"),
        KeyUse("FRONTIER_SERVERS_KEY", "http://emulator:8000"),
        KeyUse("FRONTIER_SERVERS_KEY", "http://judge:8000"),
    }
)
"""Keys and the servers that they are for: OpenAI's, and that of the servers that `deploy/` starts under these names."""


def uses_of(endpoints: Iterable[EndpointSettings]) -> list[KeyUse]:
    """Return which keys endpoints send where, without servers on this machine; each once."""
    uses = [
        KeyUse(endpoint.key, origin_of(endpoint.url))
        for endpoint in endpoints
        if endpoint.key is not None and not _is_here(endpoint.url)
    ]
    return list(dict.fromkeys(uses))


def new_uses(endpoints: Iterable[EndpointSettings]) -> list[KeyUse]:
    """Return which keys endpoints send to where nobody allowed them to go.

    Raises:
        FrontierError: The file of what is allowed could have been written by others, or `VARIABLE` cannot be read.
    """
    uses = uses_of(endpoints)
    permitted = allowed() if uses else frozenset()
    return [use for use in uses if use not in permitted]


def check_key_hosts(endpoints: Mapping[str, EndpointSettings], argument: str) -> None:
    """Make sure that every key may go where endpoints send it.

    Args:
        endpoints: By name.
        argument: What the command line calls the experiment, for the error.

    Raises:
        FrontierError: Nobody allowed it.
    """
    new = new_uses(endpoints.values())
    if new:
        names = [name for name, endpoint in endpoints.items() if uses_of([endpoint]) == [new[0]]]
        flags = " ".join(f"--allow-key {use}" for use in new)
        raise FrontierError(
            f"endpoints.{names[0]} would send the key in {new[0].variable} to {new[0].origin}, where it was never sent "
            "from here. The experiment file decides where keys go: check that this is the right server. "
            f"To allow it: frontier check {argument} {flags}. Where there are only variables: {VARIABLE}="
            f"'{' '.join(map(str, new))}'",
            code="keys.new-host",
        )


def allowed() -> frozenset[KeyUse]:
    """Return which keys may go where: what is known, what the user allowed, and what `VARIABLE` says."""
    content = read_private(_file()) or b""
    lines = (line.partition("#")[0] for line in content.decode(errors="replace").splitlines())
    told = [*os.environ.get(VARIABLE, "").replace(",", " ").split(), *(line.strip() for line in lines if line.strip())]
    return KNOWN | {parse_use(text) for text in told}


def allow(uses: Iterable[KeyUse]) -> None:
    """Keep in the user's file that keys may go where they are sent."""
    file = _file()
    private_folder(file.parent)
    content = (
        read_private(file) or b"# Which key may be sent to which server: VARIABLE=https://host. Kept by frontier.\n"
    )
    lines = dict.fromkeys([*content.decode().splitlines(), *map(str, uses)])
    write_private(file, "".join(f"{line}\n" for line in lines).encode())


def parse_use(text: str) -> KeyUse:
    """Return what `VARIABLE=https://host` says.

    Raises:
        FrontierError: It is something else; it is not repeated, since it may be a secret.
    """
    variable, _, url = text.partition("=")
    try:
        if (
            re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable)
            and urlsplit(url).scheme in _PORTS
            and urlsplit(url).hostname
        ):
            return KeyUse(variable, origin_of(url))
    except ValueError:
        pass
    raise FrontierError(
        f"What --allow-key, {VARIABLE} or {_file()} says is not of the form VARIABLE=https://host, for example "
        "OPENAI_API_KEY=https://api.example.com.",
        code="keys.form",
    )


def origin_of(url: str) -> str:
    """Return a URL's scheme, host and port in one spelling, such as ``https://api.example.com``."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "safety-frontier" / "key-hosts"
