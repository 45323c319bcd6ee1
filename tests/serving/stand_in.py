"""Stands in for vLLM's server where its own work does not matter: answers when it is ready, takes adapters by name.

Weights called `broken` do not load, those called `slow` never do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=Path)
parser.add_argument("--port", type=int)
asked, _ = parser.parse_known_args(sys.argv[3:])  # what comes before is -m and the module


class Handler(BaseHTTPRequestHandler):
    adapters: ClassVar[dict[str, str]] = {}

    def allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"

    def do_GET(self) -> None:
        if self.path != "/health" and not self.allowed():
            self.answer(401, {"error": "Unauthorized"})
            return
        self.answer(
            200,
            {
                "pid": os.getpid(),
                "adapters": self.adapters,
                "cards": os.environ["CUDA_VISIBLE_DEVICES"],
                "arguments": sys.argv,
            },
        )

    def do_POST(self) -> None:
        if not self.allowed():
            self.answer(401, {"error": "Unauthorized"})
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters:
            self.answer(400, {"error": f"The lora adapter '{name}' has already been loaded."})
        elif not (path / "adapter_config.json").exists():
            self.answer(404, {"error": "No adapter found"})
        else:
            self.adapters[name] = str(path)
            self.answer(200, {})

    def answer(self, status: int, value: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())


if asked.model.name == "broken":
    sys.exit("RuntimeError: these weights are of no model")
if asked.model.name == "slow":
    time.sleep(600)
ThreadingHTTPServer(("127.0.0.1", asked.port), Handler).serve_forever()
