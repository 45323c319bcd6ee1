"""The process that keeps one server: starts vLLM, says when it is ready, ends it when nobody needs it any more.

Usage: python -m dagster_project.serving.keeper FOLDER PYTHON, with the server (`Server.dump`) on standard input.

The keeper outlives the run that started it. vLLM ends with it, however it ends. The run tells it what to start: a file
could have been written by somebody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout
from pydantic import SecretStr

from dagster_project.artifacts.manifest import gpu_name
from dagster_project.serving.settings import Server
from dagster_project.serving.state import ADAPTERS, END, ENDING, KEEPER, LOG, READY, Servers

POLL_S = 0.25
_LAST_WORDS_S = 20.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
# Where a seeded request's prompt is read in parts, vLLM sets its generator back, which PyTorch's on a CPU cannot be:
# the server ends (vLLM 0.32).
_ON_A_CPU = ("--no-enable-chunked-prefill",)


def keep(servers: Servers, server: Server, python: str) -> int:
    """Keep a server until nobody has leased it for long, or somebody needs its room; return vLLM's exit code."""
    place = servers.place(server.key)
    try:
        lock = FileLock(place / KEEPER)
        lock.acquire(timeout=5)
    except Timeout:
        return 0  # somebody else keeps it
    secret = servers.new_key(server.key)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [*(() if gpu_name() else _ON_A_CPU), *server.arguments(port)]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *arguments]
    shutil.rmtree(place / ADAPTERS, ignore_errors=True)
    with (place / LOG).open("ab") as log:
        log.write(f"\n== {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {' '.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command, env=environment(os.environ, server, secret), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            process_group=0, preexec_fn=_die_with_parent,
        )  # fmt: skip
    try:
        signal.signal(signal.SIGTERM, _leave)
        _watch(servers, server, process, f"http://127.0.0.1:{port}", secret)
    finally:
        _end(process)
        (place / READY).unlink(missing_ok=True)
        lock.release()
    return process.returncode


def environment(base: Mapping[str, str], server: Server, secret: SecretStr) -> dict[str, str]:
    """Return vLLM's environment, without what is meant for our own interpreter and with the key that it asks for.

    The key is passed here since every user of the machine can read the arguments of a process.
    """
    own = {name: value for name, value in base.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    visible = base.get("CUDA_VISIBLE_DEVICES")
    numbers = visible.split(",") if visible else []
    cards = [numbers[card] if card < len(numbers) else str(card) for card in server.settings.cards]
    on_a_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {
        **on_a_cpu,
        **own,
        "CUDA_VISIBLE_DEVICES": ",".join(cards),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_API_KEY": secret.get_secret_value(),
        "VLLM_NO_USAGE_STATS": "1",
    }


def _watch(servers: Servers, server: Server, process: subprocess.Popen[bytes], url: str, secret: SecretStr) -> None:
    """Returns when the server has to end, or has ended."""
    place, cards = servers.place(server.key), server.settings.cards
    ready, used = False, time.monotonic()
    while process.poll() is None:
        if not ready and _answers(f"{url}/health"):
            ready = True
            servers.announce(server.key, secret, f"{url}/v1")
        with servers.changing():
            if servers.leases(server.key):
                used = time.monotonic()
            elif (
                time.monotonic() - used >= server.settings.idle_after_s
                or (place / END).exists()
                or servers.claims(cards)
            ):
                (place / ENDING).touch()
                (place / READY).unlink(missing_ok=True)
                return
        time.sleep(POLL_S)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends vLLM and the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WORDS_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _die_with_parent() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who started us may ignore it, which is inherited
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def _leave(_: int, __: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(keep(Servers(Path(sys.argv[1])), Server.load(sys.stdin.buffer.read()), sys.argv[2]))
