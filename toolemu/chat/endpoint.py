"""A server that speaks OpenAI's protocol, and getting an answer out of it: limits, time-outs, retries, giving up.

The `openai` package does the talking; its own retries are off, since they know nothing of the limit or of other
requests. What an answer means is the business of `toolemu.chat.openai`.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai
import orjson
from pydantic import SecretStr

from toolemu.chat.keys import read_key
from toolemu.chat.limits import REFUSED, SLOW, AdaptiveLimit
from toolemu.chat.protocol import ModelError
from toolemu.chat.settings import EndpointSettings
from toolemu.errors import FrontierError, PassingError, shorten

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
LONGEST_MESSAGE = 300
# A call that takes this share of its time-out says that the server has more than it can do.
SLOW_SHARE = 0.5
_CONNECT_S = 10.0
_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_NO_CREDIT = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})

_logger = logging.getLogger(__name__)


class EndpointError(FrontierError):
    """An endpoint that cannot be used, or no longer; nothing to do with any one request."""


class SilentEndpointError(EndpointError, PassingError):
    """An endpoint that has answered nothing for long: its server is down, and may be up again later."""


class RequestRefusedError(Exception):
    """The server will not answer this request (HTTP 400 and the like), whatever the day."""

    def __init__(self, status: int, message: str, parameter: str, code: str) -> None:
        self.status, self.message, self.parameter, self.code = status, message, parameter, code
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
        share: Only one in so many of `max_in_flight` are this process's.
    """

    def __init__(
        self, name: str, settings: EndpointSettings, key: SecretStr, shared: AdaptiveLimit, share: int = 1
    ) -> None:
        self.name = name
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._key = key
        self._shared = shared
        self._limit = AdaptiveLimit(max(1, settings.max_in_flight // share))
        timeout = httpx2.Timeout(settings.timeout_s, connect=min(_CONNECT_S, settings.timeout_s))
        # As many connections as requests: waiting in the client's pool would count as a time-out. (None would not be
        # no limit, but aiohttp's of 100.)
        limits = httpx2.Limits(max_connections=settings.max_in_flight, max_keepalive_connections=settings.max_in_flight)
        self._client = openai.AsyncOpenAI(
            api_key=key.get_secret_value(),
            base_url=settings.url,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAioHttpClient(base_url=settings.url, timeout=timeout, limits=limits),
        )
        self._answered_at = float("-inf")
        self._failing_since: float | None = None

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.close()

    @property
    def client(self) -> openai.AsyncOpenAI:
        """What talks to the server, for requests that are no chat completion."""
        return self._client

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return self._limit.current

    async def ask(self, body: Mapping[str, Any], wrong_with: WrongWith) -> dict[str, Any]:
        """Returns the server's answer to a chat completion, asking again while that may help.

        Args:
            body: The request.
            wrong_with: Looks at an answer that is JSON; one with something wrong is not taken.

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
                fault = await self._attempt(body, wrong_with, asked)
            if isinstance(fault, dict):
                return fault
            self.counts["failed_attempts"] += 1
            self.counts[f"failed_{fault.kind}"] += 1
            if self._failing_since is None:
                self._failing_since = max(asked, self._answered_at)
            silent = time.monotonic() - self._failing_since
            if silent >= self.settings.give_up_after_s:
                raise SilentEndpointError(
                    f"Endpoint {self.name} ({self.settings.url}) has answered nothing usable for {silent:.0f} s; "
                    f"the last attempt: {fault.text}. What was finished is kept: start the server or mend the URL, "
                    "and run again."
                )
            others_answered = self._answered_at >= began
            if attempt >= self.settings.max_attempts and (others_answered or await self._is_alive(body, wrong_with)):
                raise ModelError(f"{self.name}: failed {attempt} times, last: {fault.text}")
            left = self.settings.give_up_after_s - silent
            wait = fault.wait if fault.wait is not None else _backoff(attempt)
            _logger.debug("%s: attempt %d: %s; again in %.1f s", self.name, attempt, fault.text, wait)
            # A second beyond the end is enough to find out that the server is silent still.
            await asyncio.sleep(min(wait, left + 1.0))
        raise AssertionError("not reached")

    async def _is_alive(self, body: Mapping[str, Any], wrong_with: WrongWith) -> bool:
        """Says whether the server answers something simple, where nobody else is asking it anything."""
        simple = {"model": body.get("model"), "messages": [{"role": "user", "content": "Say: ready"}]}
        try:
            async with self._limit.slot(), self._shared.slot():
                return isinstance(await self._attempt(simple, wrong_with, time.monotonic()), dict)
        except RequestRefusedError:
            return True

    async def _attempt(self, body: Mapping[str, Any], wrong_with: WrongWith, asked: float) -> dict[str, Any] | _Fault:
        """Makes one attempt: the answer, or what went wrong that may pass."""
        self.counts["attempts"] += 1
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                response = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=dict(body))
                content = response.content
        except (TimeoutError, openai.APITimeoutError):
            self._limit.lower(REFUSED, asked)
            return _Fault("timeout", f"no answer within {self.settings.timeout_s:g} s")
        except openai.APIStatusError as error:
            return self._refused(error, asked)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return _Fault("connection", self.clean(f"{type(cause).__name__} {cause}".strip()))
        try:
            answer = orjson.loads(content)
            problem = wrong_with(answer) if isinstance(answer, dict) else "no JSON object"
        except orjson.JSONDecodeError:
            problem = "no JSON"
        if problem:
            return _Fault("malformed", self.clean(f"the answer is malformed: {problem}, in {shorten(content[:200])}"))
        self._answered(asked)
        found: dict[str, Any] = answer
        return found

    def _answered(self, asked: float) -> None:
        self._answered_at = time.monotonic()
        self._failing_since = None
        if self._answered_at - asked > SLOW_SHARE * self.settings.timeout_s:
            self._limit.lower(SLOW, asked)
        else:
            self._limit.raise_after_success()

    def _refused(self, error: openai.APIStatusError, asked: float) -> _Fault:
        """Returns a fault that may pass; raises one that will not."""
        status, code = error.status_code, error.code or ""
        told = error.body.get("message") if isinstance(error.body, dict) else None
        message = self.clean(str(told or error.message))
        where = f"Endpoint {self.name} ({self.settings.url})"
        if status in (401, 403):
            # What the server says to that may quote the key.
            variable = self.settings.key
            hint = f"Check {variable}." if variable else "Name the variable with its key as `key` of the endpoint."
            raise EndpointError(f"{where} refuses the key (HTTP {status}). {hint}") from None
        if code in _NO_CREDIT:
            raise EndpointError(f"{where} says that the account has no credit ({code}).") from None
        if status == 404:
            raise EndpointError(f"{where}: HTTP 404: {message} Check the URL and the model's name.") from None
        if status not in _TRANSIENT and status < 500:
            self._answered_at = time.monotonic()
            self._failing_since = None
            raise RequestRefusedError(status, message, str(error.param or ""), code) from None
        if status in (429, 503, 529):
            self._limit.lower(REFUSED, asked)
        return _Fault(f"http_{status}", f"HTTP {status}: {message}", _retry_after(error.response.headers))

    def clean(self, text: str) -> str:
        """Returns a server's message without the key, and not too long."""
        key = self._key.get_secret_value()
        text = text.replace(key, "***") if self.settings.key else text
        return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"


@dataclass(frozen=True)
class _Fault:
    """What went wrong in an attempt, and may not the next time; `wait`: what the server asks for, in seconds."""

    kind: str
    text: str
    wait: float | None = None


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
    settings: Mapping[str, EndpointSettings], *, max_in_flight: int, share: int = 1
) -> AsyncIterator[dict[str, Endpoint]]:
    """Opens endpoints for the running event loop, and closes their connections at the end.

    Args:
        settings: The endpoints by name.
        max_in_flight: Most requests at once, over all of them.
        share: Among so many processes that use the same endpoints each gets one part of every limit.

    Raises:
        FrontierError: A key is missing.
    """
    shared = AdaptiveLimit(max(1, max_in_flight // share))
    keys = {name: read_key(name, endpoint.key) for name, endpoint in settings.items()}
    endpoints = {name: Endpoint(name, settings[name], keys[name], shared, share) for name in settings}
    try:
        yield endpoints
    finally:
        for endpoint in endpoints.values():
            await endpoint.close()
