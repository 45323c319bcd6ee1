"""A server that speaks OpenAI's protocol, and getting an answer out of it: limits, time-outs, retries, giving up.

Requests go out over aiohttp as bytes: a chat completion is one POST, and beside a vLLM that keeps all cores busy
each millisecond of ours costs throughput. What an answer means is the business of `toolemu.chat.openai`.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from pydantic import SecretStr

from toolemu.chat import codec
from toolemu.chat.fields import fields_named
from toolemu.chat.keys import read_key
from toolemu.chat.limits import REFUSED, SLOW, AdaptiveLimit
from toolemu.chat.protocol import ModelError
from toolemu.chat.refusals import Told, error_status, is_context_full, is_model_unknown, lacks_credit, read_told
from toolemu.chat.settings import EndpointSettings
from toolemu.errors import FrontierError, PassingError, shorten
from toolemu.redaction import redact

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
LONGEST_MESSAGE = 300
SHARE_EVERY_S = 1.0
"""How often to look how many processes share the endpoints."""
KEEP_ALIVE_S = 4.0
"""Idle connections are closed after this: before servers do, or a request would meet a closing one (vLLM: 5 s)."""
# A call that takes this share of its time-out says that the server has more than it can do.
SLOW_SHARE = 0.5
_CONNECT_S = 10.0
_SIMPLE_S = 20.0
"""The longest wait for something simple, by which a server shows that it is alive."""
_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_OF_TEMPLATES = frozenset({500, 501, 502})
"""Statuses with which servers answer, too, if a chat template or a grammar fails."""
_MODERATED = re.compile(r"moderation|flagged|content[_ ](?:filter|policy)", re.I)
"""What servers say that refuse a request for what is in it with HTTP 403, as they do a wrong key."""

_logger = logging.getLogger(__name__)


class EndpointError(FrontierError):
    """An endpoint that cannot be used, or no longer; nothing to do with any one request."""


class SilentEndpointError(EndpointError, PassingError):
    """An endpoint that has answered nothing for long: its server is down, and may be up again later.

    Attributes:
        endpoint: Its name.
    """

    def __init__(self, endpoint: str, message: str) -> None:
        self.endpoint = endpoint
        super().__init__(message)


class RequestRefusedError(Exception):
    """The server will not answer this request (HTTP 400 and the like), whatever the day.

    Attributes:
        status: HTTP status.
        message: What the server says, for people: without the key, and not too long.
        told: All that it says, to be classified and not shown.
    """

    def __init__(self, status: int, message: str, told: Told) -> None:
        self.status, self.message, self.told = status, message, told
        super().__init__(f"HTTP {status}: {message}")


WrongWith = Callable[[Mapping[str, Any]], str]
"""Says what is wrong with an answer; empty if nothing is."""


class Endpoint:
    """A server in use by this event loop.

    Args:
        name: What the experiment calls it.
        settings: Where it is, and how far to go.
        key: Its key.
        shared: The limit over all endpoints.
    """

    def __init__(self, name: str, settings: EndpointSettings, key: SecretStr, shared: AdaptiveLimit) -> None:
        self.name = name
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._key = key
        self._shared = shared
        self._limit = AdaptiveLimit(settings.max_in_flight)
        self._url = f"{settings.url.rstrip('/')}/chat/completions"
        self._session = aiohttp.ClientSession(
            # As many connections as requests: waiting in the client's pool would count as a time-out.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            headers={"Authorization": f"Bearer {key.get_secret_value()}", "Content-Type": "application/json"},
            proxy=_proxy(settings.url),  # found once: with trust_env, aiohttp asks a thread at every request
        )
        self._answered_at = float("-inf")
        self._failing_since: float | None = None
        self._looking = asyncio.Lock()  # one looks for all whether the server is alive

    async def close(self) -> None:
        """Closes its connections."""
        await self._session.close()

    def take_share(self, processes: int) -> None:
        """Keeps to one in so many of `max_in_flight`, the rest being other processes'."""
        self._limit.resize(max(1, self.settings.max_in_flight // processes))

    @property
    def key(self) -> SecretStr:
        """Its key, for requests that are no chat completion."""
        return self._key

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return self._limit.current

    async def ask(
        self, body: Mapping[str, Any], wrong_with: WrongWith, whole: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the server's answer to a chat completion, asking again while that may help.

        Args:
            body: The request.
            wrong_with: Looks at an answer that is JSON; one with something wrong is not taken.
            whole: The request as it was first asked, with all its fields. HTTP 500 to 502 that names one of them is a
                refusal, since several servers answer so where a chat template or a grammar fails. None: it is retried.

        Raises:
            RequestRefusedError: The server refuses this request as it stands.
            ModelError: This request failed `max_attempts` times while others were answered.
            EndpointError: The server wants another key, or has no such model.
            SilentEndpointError: It has been silent for `give_up_after_s`.
        """
        began = time.monotonic()
        for attempt in range(1, 1_000_000):
            async with self._limit.slot(), self._shared.slot():
                asked = time.monotonic()
                fault = await self._attempt(body, wrong_with, asked, whole=whole)
            if isinstance(fault, dict):
                return fault
            self.counts["failed_attempts"] += 1
            self.counts[f"failed_{fault.kind}"] += 1
            if self._failing_since is None:
                self._failing_since = max(asked, self._answered_at)
            silent = time.monotonic() - self._failing_since
            if silent >= self.settings.give_up_after_s and not await self._is_alive(body, wrong_with):
                raise SilentEndpointError(
                    self.name,
                    f"Endpoint {self.name} ({self.settings.url}) has answered nothing usable for {silent:.0f} s; "
                    f"the last attempt: {fault.text}. What was finished is kept: start the server or mend the URL, "
                    "and run again.",
                )
            others_answered = self._answered_at >= began
            if attempt >= self.settings.max_attempts and (others_answered or await self._is_alive(body, wrong_with)):
                raise ModelError(f"{self.name}: failed {attempt} times, last: {fault.text}")
            left = max(0.0, self.settings.give_up_after_s - silent)
            wait = fault.wait if fault.wait is not None else _backoff(attempt)
            _logger.debug("%s: attempt %d: %s; again in %.1f s", self.name, attempt, fault.text, wait)
            # A second beyond the end is enough to find out that the server is silent still.
            await asyncio.sleep(min(wait, left + 1.0))
        raise AssertionError("not reached")

    async def _is_alive(self, body: Mapping[str, Any], wrong_with: WrongWith) -> bool:
        """Says whether the server answers something simple, or others meanwhile.

        It is asked beside the limit, whose places may all be held by what it does not answer.
        """
        simple = {"model": body.get("model"), "messages": [{"role": "user", "content": "Say: ready"}]}
        async with self._looking:
            if self._failing_since is None:
                return True
            try:
                most_s = min(self.settings.timeout_s, _SIMPLE_S)
                return isinstance(await self._attempt(simple, wrong_with, time.monotonic(), most_s), dict)
            except RequestRefusedError:
                return True

    async def _attempt(
        self,
        body: Mapping[str, Any],
        wrong_with: WrongWith,
        asked: float,
        most_s: float | None = None,
        *,
        whole: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | _Fault:
        """Makes one attempt, of `timeout_s` or `most_s`: the answer, or what went wrong that may pass."""
        self.counts["attempts"] += 1
        most_s = most_s or self.settings.timeout_s
        timeout = aiohttp.ClientTimeout(most_s, sock_connect=min(_CONNECT_S, most_s))
        try:
            async with self._session.post(
                self._url, data=codec.dump(body), timeout=timeout, allow_redirects=False
            ) as response:
                content = await response.read()
        except TimeoutError:
            self._limit.lower(REFUSED, asked)
            return _Fault("timeout", f"no answer within {most_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _Fault("connection", self.clean(f"{type(error).__name__} {error}".strip()))
        if response.status >= 300:
            return self._refused(response.status, response.headers, content, asked, body, whole)
        try:
            answer, repaired = codec.load(content)
            problem = wrong_with(answer) if isinstance(answer, dict) else "no JSON object"
        except ValueError:
            answer, repaired, problem = None, False, "no JSON"
        if problem and isinstance(answer, dict) and (status := error_status(answer)):
            return self._refused(status, response.headers, content, asked, body, whole)
        if problem:
            received = shorten(redact(content.decode(errors="replace")), 200)
            return _Fault("malformed", self.clean(f"the answer is malformed: {problem}, in {received}"))
        self._answered(asked)
        if repaired:
            self.counts["repaired_answers"] += 1
        found: dict[str, Any] = answer
        return found

    def _answered(self, asked: float) -> None:
        self._answered_at = time.monotonic()
        self._failing_since = None
        if self._answered_at - asked > SLOW_SHARE * self.settings.timeout_s:
            self._limit.lower(SLOW, asked)
        else:
            self._limit.raise_after_success()

    def _refused(
        self,
        status: int,
        headers: Mapping[str, str],
        content: bytes,
        asked: float,
        body: Mapping[str, Any],
        whole: Mapping[str, Any] | None,
    ) -> _Fault:
        """Return a fault that may pass; raise one that will not."""
        told = Told(*map(redact, read_told(content)))
        message = self.clean(told.message or content.decode(errors="replace").strip())
        where = f"Endpoint {self.name} ({self.settings.url})"
        if status < 400:  # going there would make a GET of most of them, and carry prompts to who knows where
            there = shorten(self.clean(headers.get("location", "somewhere else")), LONGEST_MESSAGE)
            raise EndpointError(
                f"{where} sends requests elsewhere (HTTP {status}): to {there}. Give its own address as `url`."
            )
        if lacks_credit(status, told, body):
            raise EndpointError(
                f"{where} says that the account has no credit (HTTP {status}): {_sentence(message)} Expected: an "
                "account that can pay. Add credit or name another key, and run again: finished work is kept.",
                code="endpoint.no-credit",
            )
        named = any(field.strength < 2 for field in fields_named(told, body if whole is None else whole))
        if status in (403, 404):
            refused = named or (status == 403 and bool(_MODERATED.search(message)))
        else:
            refused = status < 500 and status != 401 and status not in _TRANSIENT
        if refused or (status in _OF_TEMPLATES and whole is not None and (named or is_context_full(status, told))):
            self._answered_at = time.monotonic()
            self._failing_since = None
            raise RequestRefusedError(status, message, told)
        if status in (401, 403):
            # What the server says to that may quote the key.
            variable = self.settings.key
            hint = f"Check {variable}." if variable else "Name the variable with its key as `key` of the endpoint."
            raise EndpointError(f"{where} refuses the key (HTTP {status}). {hint}")
        if status == 404 and is_model_unknown(told):
            raise self.unknown_model(body, status, message)
        if status == 404:
            raise EndpointError(
                f"{where}: HTTP 404: {_sentence(message)} Expected: a server with chat completions at this address. "
                "Check `url`, which mostly ends in /v1, and the model's name.",
                code="endpoint.not-found",
            )
        if status in (429, 503, 529):
            self._limit.lower(REFUSED, asked)
        return _Fault(f"http_{status}", f"HTTP {status}: {message}", _retry_after(headers))

    def unknown_model(self, body: Mapping[str, Any], status: int, message: str) -> EndpointError:
        """Return the error that the server has no such model as a request names."""
        return EndpointError(
            f"Endpoint {self.name} ({self.settings.url}) has no model {body.get('model')!r} for this account (HTTP "
            f"{status}): {_sentence(message)} Expected: a name from its list of models. Correct `model`.",
            code="endpoint.unknown-model",
        )

    def clean(self, text: str) -> str:
        """Return a server's message without secrets, cut to `LONGEST_MESSAGE` characters."""
        text = redact(text)
        return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"


@dataclass(frozen=True)
class _Fault:
    """What went wrong in an attempt, and may not the next time; `wait`: what the server asks for, in seconds."""

    kind: str
    text: str
    wait: float | None = None


def _proxy(url: str) -> str | None:
    """Returns the proxy that the environment (`HTTPS_PROXY`, `NO_PROXY` and the like) has for a URL."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _backoff(attempt: int) -> float:
    """Returns how long to wait: doubling, with jitter, so that requests that failed together do not return so.

    See M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """
    return random.uniform(0.5, 1.0) * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 10))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that a server asks to wait (RFC 9110, section 10.2.3), jittered upwards; None: nothing."""
    text = headers.get("retry-after-ms")
    try:
        seconds = float(text) / 1000 if text else float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(headers["retry-after"])
        except (KeyError, ValueError):
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) * random.uniform(1.0, 1.1) + random.uniform(0.0, 0.1)


@asynccontextmanager
async def open_endpoints(
    settings: Mapping[str, EndpointSettings],
    *,
    max_in_flight: int,
    sharing: Callable[[], int] = lambda: 1,
    keys: Mapping[str, SecretStr] | None = None,
) -> AsyncIterator[dict[str, Endpoint]]:
    """Opens endpoints for the running event loop, and closes their connections at the end.

    Args:
        settings: The endpoints by name.
        max_in_flight: Most requests at once, over all of them.
        sharing: Says how many processes use them now, this one included: each gets an equal part of every limit. It
            is asked again and again; what is under way when one more begins is let run.
        keys: Keys of endpoints whose settings name no variable: of servers that were started here.

    Raises:
        FrontierError: A key is missing.
    """
    shared = AdaptiveLimit(max_in_flight)
    keys = {**{name: read_key(name, endpoint.key) for name, endpoint in settings.items()}, **(keys or {})}
    for name, described in settings.items():
        if redact(described.url) != described.url:
            raise FrontierError(
                f"The url of endpoint {name} holds a key. Write the address alone, and name the variable with the key "
                "as `key`.",
                code="endpoint.secret-in-url",
            )
    endpoints = {name: Endpoint(name, settings[name], keys[name], shared) for name in settings}

    def take_share(processes: int) -> None:
        shared.resize(max(1, max_in_flight // processes))
        for endpoint in endpoints.values():
            endpoint.take_share(processes)

    async def follow(processes: int) -> None:
        while True:
            await asyncio.sleep(SHARE_EVERY_S)
            if sharing() != processes:
                processes = sharing()
                take_share(processes)

    take_share(processes := sharing())
    following = asyncio.create_task(follow(processes))
    try:
        yield endpoints
    finally:
        following.cancel()
        for endpoint in endpoints.values():
            await endpoint.close()
