"""OpenAI's Batch API: requests that can wait a day, at half the price, for judges above all.

Requests that come together go into one batch. One look beforehand, a request for a few words, finds which fields the
model refuses, since a batch of refused requests would be in vain. A ledger on disk says which batch has which request.
So a process that was killed finds its batches again and buys none twice. Requests that a batch leaves without an answer
are asked the ordinary way, at the full price; a warning says how many.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import openai
import orjson

from toolemu.chat import codec
from toolemu.chat.completion import wrong_with
from toolemu.chat.endpoint import Endpoint, EndpointError
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.protocol import ChatReply, ChatRequest, ModelError
from toolemu.chat.refusals import read_told
from toolemu.errors import InputError, shorten
from toolemu.journal import AppendFile, drop_torn_line
from toolemu.redaction import redact

LARGEST = 50_000
"""Requests in one batch; OpenAI takes no more (its API reference, “Create batch”)."""
LARGEST_BYTES = 200_000_000
"""Of a batch's file; OpenAI takes no more than 200 MB (ibid.)."""
GATHER_S = 0.5
"""A batch is closed when no request came for so long."""
_URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_RETRIES = 6

_logger = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """A request that waits for a batch: its line in the batch's file, and who waits for what is answered."""

    line: bytes
    answer: asyncio.Future[Mapping[str, Any] | None]


class _Sent(NamedTuple):
    """The file of the batch that has a request, and the fields that were left out of it as refused."""

    file: str
    left_out: frozenset[str]


class BatchChatModel:
    """A `ChatModel` that asks in batches.

    Args:
        model: The model; it is asked itself for what a batch has no answer to.
        endpoint: Its server.
        ledger: File that remembers batches, of this model alone.
        poll_s: How often to look whether a batch is done, in seconds.
    """

    def __init__(self, model: OpenAIChatModel, endpoint: Endpoint, ledger: Path, *, poll_s: float = 30.0) -> None:
        self.name = model.name
        self._model = model
        self._endpoint = endpoint
        self._poll_s = poll_s
        self._ledger = ledger
        self._sent = _read_ledger(ledger)
        self._answers: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._gathering: asyncio.Task[None] | None = None
        self._arrived = 0.0
        self._look: asyncio.Task[ChatReply] | None = None

    def key(self, request: ChatRequest) -> str:
        """Returns a hash of everything that determines the reply to `request`."""
        return self._model.key(request)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Generate one reply; see `OpenAIChatModel.chat`.

        Raises:
            EndpointError: The server has no Batch API, or does not answer.
            ModelError: The request alone is larger than a batch may be.
        """
        key = self.key(request)
        if key not in self._sent:
            await self._looked(request)
            answer = await self._batched(key, self._model.body(request))
        else:
            answer = (await self._answers_of(self._sent[key].file)).get(key)
        if answer is None:
            return await self._model.chat(request)
        return self._model.read(answer, request, self._sent[key].left_out)

    async def _looked(self, request: ChatRequest) -> None:
        """Have one request for a few words asked directly, so that the batch leaves out what the server refuses."""
        if self._look is None:
            self._look = asyncio.create_task(self._model.probe(request))
        await asyncio.shield(self._look)

    async def _batched(self, key: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        loop = asyncio.get_running_loop()
        if key not in self._waiting:
            line = codec.dump({"custom_id": key, "method": "POST", "url": _URL, "body": body}) + b"\n"
            if len(line) > LARGEST_BYTES:
                raise ModelError(
                    f"{self.name}: a request of {len(line):,} bytes is more than a batch of {self._endpoint.name} may "
                    f"be, {LARGEST_BYTES:,}. Shorten what it is asked, or leave `batch` out."
                )
            self._waiting[key] = _Waiting(line, loop.create_future())
            self._arrived = loop.time()
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())
        return await asyncio.shield(self._waiting[key].answer)

    async def _gather(self) -> None:
        """Waits for company, sends a batch, and hands out its answers."""
        loop = asyncio.get_running_loop()
        while loop.time() - self._arrived < GATHER_S and len(self._fitting()) == len(self._waiting):
            await asyncio.sleep(GATHER_S / 5)
        batch = {key: self._waiting.pop(key) for key in self._fitting()}
        if self._waiting:
            self._gathering = asyncio.create_task(self._gather())
        try:
            file = await self._send({key: waiting.line for key, waiting in batch.items()})
            answers = await self._answers_of(file)
        except BaseException as error:
            for waiting in batch.values():
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
                    waiting.answer.exception()  # whoever was cancelled meanwhile does not fetch it
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for key, waiting in batch.items():
            if not waiting.answer.done():
                waiting.answer.set_result(answers.get(key))

    def _fitting(self) -> list[str]:
        """Returns as many of those that wait, the first of them, as one batch may have."""
        sizes = itertools.accumulate(len(waiting.line) for waiting in self._waiting.values())
        fitting = itertools.takewhile(lambda size: size <= LARGEST_BYTES, itertools.islice(sizes, LARGEST))
        return [key for key, _ in zip(self._waiting, fitting, strict=False)]

    async def _send(self, lines: Mapping[str, bytes]) -> str:
        """Sends a batch and returns the id of its file, by which the ledger knows it."""
        async with _client(self._endpoint) as client:
            uploaded = await client.files.create(file=("requests.jsonl", b"".join(lines.values())), purpose="batch")
            if redact(uploaded.id) != uploaded.id:  # the ledger would keep it
                raise EndpointError(
                    f"Endpoint {self._endpoint.name}: the server names a file by the key that it was sent. Use another "
                    "server, or leave `batch` out.",
                    code="endpoint.echoed-key",
                )
            # The ledger knows of the file before there is a batch: a kill in between loses neither.
            self._note(uploaded.id, list(lines))
            await self._create(client, uploaded.id)
        self._endpoint.counts["batches"] += 1
        return uploaded.id

    async def _create(self, client: openai.AsyncOpenAI, file: str) -> None:
        """Has a file's batch made, once: an answer that was lost is no reason to buy it again."""
        once = client.with_options(max_retries=0)
        for attempt in range(_RETRIES + 1):
            try:
                await once.batches.create(input_file_id=file, endpoint=_URL, completion_window="24h")
                return
            except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError):
                if await _batch_of(client, file) is not None:
                    return
                if attempt == _RETRIES:
                    raise
                await asyncio.sleep(self._poll_s * attempt)

    def _note(self, file: str, keys: Sequence[str]) -> None:
        left_out = self._model.refused
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(AppendFile(self._ledger)) as ledger:
            ledger.append(orjson.dumps({"file": file, "keys": keys, "left_out": sorted(left_out)}) + b"\n")
        self._sent.update(dict.fromkeys(keys, _Sent(file, left_out)))

    async def _answers_of(self, file: str) -> dict[str, Any]:
        """Returns the usable answers of a batch by key, once it is over; empty if there never was a batch."""
        if file not in self._answers:
            self._answers[file] = asyncio.create_task(self._collect(file))
        return await asyncio.shield(self._answers[file])

    async def _collect(self, file: str) -> dict[str, Any]:
        async with _client(self._endpoint) as client:
            batch = await _batch_of(client, file)
            if batch is None:
                return {}
            while batch.status not in _OVER:
                await asyncio.sleep(self._poll_s)
                batch = await client.batches.retrieve(batch.id)
            if batch.status != "completed":
                _logger.warning(
                    "%s: batch %s ended as %s",
                    self._endpoint.name,
                    *map(self._endpoint.clean, (str(batch.id), str(batch.status))),
                )
            content, refused = await _content(client, batch.output_file_id), await _content(client, batch.error_file_id)
        answers, refusals = {}, Counter[str]()
        for line in (*content.splitlines(), *refused.splitlines()):
            try:
                record = codec.load(line).value
                response = record.get("response") or {}
                body, status, key = response.get("body"), response.get("status_code"), str(record["custom_id"])
            except (ValueError, AttributeError, KeyError):
                refusals["a line that cannot be read"] += 1
                continue
            if status == 200 and isinstance(body, dict) and not wrong_with(body):
                answers[key] = body
            else:
                told = read_told(codec.dump(body if isinstance(body, dict) else record))
                refusals[self._endpoint.clean(f"HTTP {status}: {told.message or 'no usable answer'}")] += 1
        self._warn_of_losses(self._endpoint.clean(str(batch.id)), file, answers, refusals)
        return answers

    def _warn_of_losses(self, batch: str, file: str, answers: Mapping[str, Any], refusals: Mapping[str, int]) -> None:
        """Say and count how many requests of a batch have to be asked again, at the full price, and why."""
        asked = [key for key, sent in self._sent.items() if sent.file == file]
        lost = sum(key not in answers for key in asked)
        if lost:
            self._endpoint.counts["batch_requests_lost"] += lost
            why = "; ".join(f"{count} times {text}" for text, count in Counter(refusals).most_common(3))
            _logger.warning(
                "%s: batch %s has no answer to %d of %d requests (%s); they are asked one by one, at the full price",
                self._endpoint.name,
                batch,
                lost,
                len(asked),
                why or "no reason is given",
            )


async def probe_batches(endpoint: Endpoint) -> None:
    """Raise `EndpointError` if a server has no Batch API; this costs nothing."""
    async with _client(endpoint, retries=1) as client:
        await client.batches.list(limit=1)


@contextlib.asynccontextmanager
async def _client(endpoint: Endpoint, retries: int = _RETRIES) -> AsyncIterator[openai.AsyncOpenAI]:
    """Open a client for files and batches; its errors become one that names the endpoint."""
    key, url = endpoint.key.get_secret_value(), endpoint.settings.url
    try:
        async with openai.AsyncOpenAI(
            api_key=key,
            base_url=url,
            max_retries=retries,
            timeout=endpoint.settings.timeout_s,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),  # prompts go nowhere else
        ) as client:
            yield client
    except (openai.APIError, ValueError) as error:  # ValueError: an answer that is no JSON
        raise EndpointError(
            f"Endpoint {endpoint.name} ({url}): its Batch API failed: {endpoint.clean(str(error))} "
            "Batches under way are not lost: run again, or leave `batch` out.",
            code="batch.failed",
        ) from None


async def _content(client: openai.AsyncOpenAI, file: str | None) -> bytes:
    """Return the content of a file; none if there is no file."""
    return b"" if file is None else (await client.files.content(file)).content


async def _batch_of(client: openai.AsyncOpenAI, file: str) -> openai.types.Batch | None:
    """Returns the batch of a file, if there is one."""
    async for found in client.batches.list(limit=100):
        if found.input_file_id == file:
            return found
    return None


def _read_ledger(path: Path) -> dict[str, _Sent]:
    """Return, by request, where it was sent.

    Raises:
        InputError: The file is damaged before its last line.
    """
    if not path.exists():
        return {}
    drop_torn_line(path)
    sent: dict[str, _Sent] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entry = orjson.loads(line)
            place = _Sent(entry["file"], frozenset(entry.get("left_out", ())))
            sent.update(dict.fromkeys(entry["keys"], place))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                path,
                f"line {number}",
                f"names no batch: {shorten(line)}.",
                "Expected: a file that Safety Frontier wrote. Delete the line; its requests are bought again.",
                code="batch.damaged-ledger",
            ) from error
    return sent
