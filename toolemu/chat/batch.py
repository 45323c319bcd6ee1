"""OpenAI's Batch API: requests that can wait a day, at half the price, for judges above all.

Requests that come together go into one batch. A ledger on disk says which batch has which request, so that a process
that was killed finds its batches again and buys none twice. What a batch has no answer to is asked the ordinary way,
which also knows how to mend a request that the server refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import openai
import orjson

from toolemu.chat.endpoint import Endpoint, EndpointError
from toolemu.chat.openai import OpenAIChatModel, wrong_with
from toolemu.chat.protocol import ChatReply, ChatRequest, ModelError
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

    def key(self, request: ChatRequest) -> str:
        """Returns a hash of everything that determines the reply to `request`."""
        return self._model.key(request)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Generates one reply; see `OpenAIChatModel.chat`.

        Raises:
            EndpointError: The server has no Batch API, or does not answer.
            ModelError: The request alone is larger than a batch may be.
        """
        key = self.key(request)
        body = self._model.body(request)
        answer = None
        if key in self._sent:
            answer = (await self._answers_of(self._sent[key])).get(key)
        if answer is None and key not in self._sent:
            answer = await self._batched(key, body)
        if answer is None:
            return await self._model.chat(request)
        return self._model.read(answer, request, body)

    async def _batched(self, key: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        loop = asyncio.get_running_loop()
        if key not in self._waiting:
            line = orjson.dumps({"custom_id": key, "method": "POST", "url": _URL, "body": body}) + b"\n"
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
        async with self._client() as client:
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

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """Opens what knows files and batches; what it raises becomes an error that names the endpoint."""
        endpoint = self._endpoint
        key, url = endpoint.key.get_secret_value(), endpoint.settings.url
        try:
            async with openai.AsyncOpenAI(
                api_key=key,
                base_url=url,
                max_retries=_RETRIES,
                timeout=endpoint.settings.timeout_s,
                http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),  # prompts go nowhere else
            ) as client:
                yield client
        except openai.APIError as error:
            raise EndpointError(
                f"Endpoint {endpoint.name} ({url}): its Batch API failed: {endpoint.clean(str(error))} "
                "Batches under way are not lost: run again, or leave `batch` out."
            ) from None

    def _note(self, file: str, keys: Sequence[str]) -> None:
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(AppendFile(self._ledger)) as ledger:
            ledger.append(orjson.dumps({"file": file, "keys": keys}) + b"\n")
        self._sent.update(dict.fromkeys(keys, file))

    async def _answers_of(self, file: str) -> dict[str, Any]:
        """Returns the usable answers of a batch by key, once it is over; empty if there never was a batch."""
        if file not in self._answers:
            self._answers[file] = asyncio.create_task(self._collect(file))
        return await asyncio.shield(self._answers[file])

    async def _collect(self, file: str) -> dict[str, Any]:
        async with self._client() as client:
            batch = await _batch_of(client, file)
            if batch is None:
                return {}
            while batch.status not in _OVER:
                await asyncio.sleep(self._poll_s)
                batch = await client.batches.retrieve(batch.id)
            if batch.status != "completed":
                _logger.warning(
                    "%s: batch %s ended as %s; what it has no answer to is asked for one by one, at the full price",
                    self._endpoint.name,
                    self._endpoint.clean(str(batch.id)),
                    self._endpoint.clean(str(batch.status)),
                )
            if batch.output_file_id is None:
                return {}
            content = (await client.files.content(batch.output_file_id)).content
        answers = {}
        for line in content.splitlines():
            record = orjson.loads(line)
            response = record.get("response") or {}
            body = response.get("body")
            if response.get("status_code") == 200 and isinstance(body, dict) and not wrong_with(body):
                answers[record["custom_id"]] = body
        return answers


async def _batch_of(client: openai.AsyncOpenAI, file: str) -> openai.types.Batch | None:
    """Returns the batch of a file, if there is one."""
    async for found in client.batches.list(limit=100):
        if found.input_file_id == file:
            return found
    return None


def _read_ledger(path: Path) -> dict[str, str]:
    """Returns, by request, the file of the batch that it is in."""
    if not path.exists():
        return {}
    drop_torn_line(path)
    sent: dict[str, str] = {}
    for line in path.read_bytes().splitlines():
        entry = orjson.loads(line)
        sent.update(dict.fromkeys(entry["keys"], entry["file"]))
    return sent
