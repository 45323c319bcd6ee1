"""A small real HTTP server with OpenAI's files, batches and chat completions."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Batch = dict[str, Any]


@dataclass
class BatchServer:
    """Serves from `with` to its end; a batch is over once it was asked for `polls` times.

    Attributes:
        play: Says what the model says to a body.
        lost: Requests of a batch, by number, that fail in it.
        ends: A batch's status when it is over.
        silent: So many batches are made without an answer: the connection is closed.
        busy: So many batches are refused with 503 before that.
        refuses: Returns the error with which the model refuses a body, in a batch and directly; None: it does not.
        direct: The requests that were asked one by one, without `looks`: those for a few words before a batch.
    """

    play: Callable[[dict[str, Any]], str]
    polls: int = 2
    lost: tuple[int, ...] = ()
    ends: str = "completed"
    silent: int = 0
    busy: int = 0
    refuses: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda body: None
    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    direct: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> BatchServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(*owner.get(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/batches" and owner.busy:
                    owner.busy -= 1
                    self.answer(503, b"{}")
                    return
                answer = owner.post(self.path, body)
                if self.path == "/v1/batches" and owner.silent:
                    owner.silent -= 1
                    self.close_connection = True
                    return
                self.answer(*answer)

            def answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, path: str, content: bytes) -> tuple[int, bytes]:
        if path == "/v1/files":
            name = f"file-{len(self.files)}"
            found = re.search(rb'name="file".*?\r\n\r\n(.*?)\r\n--', content, re.DOTALL)
            assert found is not None
            self.files[name] = found[1]
            return 200, json.dumps({"id": name, "object": "file"}).encode()
        body = json.loads(content)
        if path == "/v1/batches":
            batch = {
                **{"id": f"batch-{len(self.batches)}", "object": "batch", "status": "in_progress", "asked": 0},
                **{"created_at": 0, "output_file_id": None, "error_file_id": None, **body},
            }
            self.batches.append(batch)
            return 200, json.dumps(batch).encode()
        (self.looks if body["messages"][-1]["content"] == "Say: ready" else self.direct).append(body)
        error = self.refuses(body)
        return (400, json.dumps(error).encode()) if error else (200, json.dumps(self.completion(body)).encode())

    def get(self, path: str) -> tuple[int, bytes]:
        if path.startswith("/v1/batches?"):
            return 200, json.dumps({"object": "list", "data": self.batches, "has_more": False}).encode()
        name = path.split("/")[3]
        if path.startswith("/v1/files/"):
            return 200, self.files[name]
        batch = next(batch for batch in self.batches if batch["id"] == name)
        batch["asked"] += 1
        if batch["asked"] >= self.polls:
            self.end(batch)
        return 200, json.dumps(batch).encode()

    def end(self, batch: Batch) -> None:
        lines: list[str] = []
        failed: list[str] = []
        for number, line in enumerate(self.files[batch["input_file_id"]].splitlines()):
            asked = json.loads(line)
            error = self.refuses(asked["body"]) or (
                {"error": {"message": "it was lost"}} if number in self.lost else None
            )
            code = 400 if self.refuses(asked["body"]) else 500 if error else 200
            response = {"status_code": code, "body": error or self.completion(asked["body"])}
            line = json.dumps({"custom_id": asked["custom_id"], "response": response})
            (failed if error else lines).append(line)
        batch["status"] = self.ends
        for kind, written in (("output", lines), ("error", failed)):
            name = f"{kind}-{batch['id']}"
            self.files[name] = "\n".join(reversed(written)).encode()
            batch[f"{kind}_file_id"] = name if self.ends == "completed" and written else None

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.play(body)}
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        return {"model": "m-1", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
