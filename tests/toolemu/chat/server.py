"""A small real HTTP server that speaks OpenAI's chat completions, says what its script says, misbehaves on command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any


class Fault(StrEnum):
    """A way to misbehave."""

    http_429 = "http_429"
    http_500 = "http_500"
    dropped = "dropped"
    half_body = "half_body"
    hang = "hang"
    malformed = "malformed"
    no_choice = "no_choice"


@dataclass(frozen=True)
class Refusal:
    """An HTTP error with the body that OpenAI gives it, or another."""

    status: int
    message: str = "no"
    parameter: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


@dataclass(frozen=True)
class Say:
    """An answer with more to it than text."""

    text: str | None
    finish_reason: str = "stop"
    reasoning: str | None = None
    reasoning_field: str = "reasoning_content"
    model: str | None = None
    usage: bool = True


Answer = str | Say | Fault | Refusal
Script = Callable[[dict[str, Any]], Answer]


@dataclass
class ChatServer:
    """Serves on a thread of its own, from `with` to its end.

    Attributes:
        script: Is shown the request and says what happens.
        latency: Seconds before every answer.
        port: 0 takes a free one.
        requests: The bodies of all requests, in order of arrival.
        headers: Their headers.
        most: The largest number of requests that were under way together.
    """

    script: Script
    latency: float = 0.0
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most: int = 0
    _under_way: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ChatServer:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self, ready: threading.Event) -> None:
        async def run() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(run())
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = (line.partition(":") for line in head.split("\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(content) if headers.get("content-type") == "application/json" else {}
        self.requests.append(body)
        self.headers.append(headers)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            await asyncio.sleep(self.latency)
            return await self._answer(self.script(body), body, writer)
        finally:
            self._under_way -= 1

    async def _answer(self, answer: Answer, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if answer is Fault.http_429:
            answer = Refusal(429, "slow down")
        elif answer is Fault.http_500:
            answer = Refusal(500, "out of order")
        elif answer is Fault.dropped:
            writer.transport.abort()
            return False
        elif answer is Fault.hang:
            await asyncio.sleep(3600)
        if isinstance(answer, Refusal):
            error = {"message": answer.message, "type": "error", "param": answer.parameter, "code": answer.code}
            content = json.dumps({"error": error}).encode() if answer.body is None else answer.body
            await _send(writer, content, answer.status, answer.headers)
            return True
        whole = json.dumps(_completion(answer if isinstance(answer, Say) else Say(str(answer)), body)).encode()
        if answer is Fault.malformed:
            whole = b'{"choices": [{"mess'
        elif answer is Fault.no_choice:
            whole = b'{"choices": []}'
        elif answer is Fault.half_body:
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(whole)}\r\n\r\n".encode() + whole[: len(whole) // 2])
            await writer.drain()
            return False
        await _send(writer, whole)
        return True


async def _send(
    writer: asyncio.StreamWriter, body: bytes, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


def _completion(say: Say, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": say.text}
    if say.reasoning is not None:
        message[say.reasoning_field] = say.reasoning
    prompt = sum(len(message["content"].split()) for message in body.get("messages", []))
    usage = {"prompt_tokens": prompt, "completion_tokens": len((say.text or "").split())}
    answer = {
        "id": "x",
        "model": say.model or body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": say.finish_reason}],
    }
    return {**answer, "usage": usage} if say.usage else answer
