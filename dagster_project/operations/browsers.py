"""Which requests Dagster's UI answers: those of its own pages, under a name that it has.

Dagster's UI has no authentication. It listens on the loopback interface, where every page that is open in a browser of
the machine can send requests: under a name of its own that it lets point to 127.0.0.1 (DNS rebinding), or across sites,
which browsers allow for forms and WebSockets. The headers `Host` and `Origin`, which pages cannot set, tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_REFUSED = (
    "This page is served under other names only: http://127.0.0.1 and http://localhost. "
    "`frontier ui --allow-host NAME` allows another one.\n"
)


class OwnPagesOnly:
    """An ASGI application that answers only requests to its own names, made by its own pages or by no page at all.

    Args:
        app: The application.
        hosts: Names besides those of the loopback interface, without port.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._named = {host.lower().rstrip(".") for host in hosts}
        self._hosts = LOOPBACK | self._named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket") or self._is_own(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008)(scope, receive, send)
        else:
            await PlainTextResponse(_REFUSED, status_code=403)(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(f"//{hosts[0]}") not in self._hosts or len(origins) > 1:
            return False
        if not origins:
            return True
        # A page on another port of this machine is somebody else's. A proxy may give us another name than its own.
        own = urlsplit(origins[0]).netloc.lower() == hosts[0].lower()
        return own or _name(origins[0]) in self._named


def _name(url: str) -> str | None:
    """Return the host's name in a URL, in lower case; None if there is none, or more than a name and a port."""
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.port != 0 and parts.path == "" and "@" not in url else None
    except ValueError:
        return None
