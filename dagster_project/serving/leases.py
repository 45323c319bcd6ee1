"""Leases on servers, all that a piece of work needs at once; and claims on cards, before which servers give way."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from filelock import FileLock

from dagster_project.serving.keeper import POLL_S
from dagster_project.serving.settings import Server
from dagster_project.serving.state import END, ENDING, LOG, READY, Address, Servers, ServingError, release

PYTHON = "FRONTIER_VLLM_PYTHON"
"""Environment variable: the Python that has vLLM, if that is not ours."""
BESIDE = Path(__file__).resolve().parents[2] / ".venv-vllm" / "bin" / "python"
"""Where `make vllm` puts it."""
_LAST_LINES = 15
_ROUNDING = 1e-6

Say = Callable[[str], None]


def vllm_python() -> str:
    """Returns the Python that has vLLM.

    Raises:
        ServingError: None is known.
    """
    named = os.environ.get(PYTHON)
    if named:
        if not Path(named).is_file():
            raise ServingError(f"{PYTHON} names {named}, which is no file. Name the Python that has vLLM.")
        return named
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    if BESIDE.is_file():
        return str(BESIDE)
    raise ServingError(
        "vLLM is not installed. With a GPU: pip install 'safety-frontier[gpu]'. On a CPU: make vllm. "
        f"Where it is elsewhere: set {PYTHON} to the Python that has it."
    )


@contextmanager
def leased(
    servers: Servers, wanted: Sequence[Server], say: Say = lambda text: None, given_up: Event | None = None
) -> Iterator[dict[str, Address]]:
    """Hold servers while the block runs; yield their addresses by key.

    All are leased at once or none, so that two who wait for each other's cannot block one another. Servers that nobody
    holds end if these need their room.

    Args:
        servers: Those of this machine.
        wanted: What is needed together.
        say: Is told what is waited for.
        given_up: Set by another thread, which no longer wants them, to end the waiting.

    Raises:
        ServingError: vLLM is not there, they do not fit the cards together, one does not start, or they were given up.
        FrontierError: Others can have written a server's files.
    """
    given_up = given_up or Event()
    by_key = {server.key: server for server in wanted}
    if by_key:
        _check_fit(list(by_key.values()))
    python = vllm_python() if by_key else ""
    leases = _admitted(servers, by_key, say, given_up)
    try:
        yield {key: _started(servers, server, python, say, given_up) for key, server in by_key.items()}
    finally:
        with servers.changing():
            for lease in leases:
                release(lease)


@contextmanager
def cards_alone(servers: Servers, cards: Sequence[int] = (0,), say: Say = lambda text: None) -> Iterator[None]:
    """Has cards to itself while the block runs: waits for leases to end; servers end, and others wait."""
    with servers.changing():
        claim = servers.claim(cards)
    try:
        _wait(lambda: not _busy(servers, cards), "servers to leave the card", say, Event())
        yield
    finally:
        with servers.changing():
            release(claim)


def stop_servers(servers: Servers, keys: Collection[str] | None = None) -> None:
    """Has servers, or those with these keys, end as soon as nobody holds them."""
    with servers.changing():
        for running in servers.running():
            if keys is None or running.server.key in keys:
                (servers.place(running.server.key) / END).touch()


def _check_fit(wanted: Sequence[Server]) -> None:
    for card, share in _shares(wanted).items():
        if share > 1 + _ROUNDING:
            names = ", ".join(f"{server.model} ({server.settings.gpu_memory:g})" for server in wanted)
            raise ServingError(
                f"{names} are needed together and ask for {share:g} of card {card}'s memory. "
                "Lower their gpu_memory, or give them other cards."
            )


def _shares(servers: Sequence[Server]) -> dict[int, float]:
    shares: defaultdict[int, float] = defaultdict(float)
    for server in servers:
        for card in server.settings.cards:
            shares[card] += server.settings.gpu_memory
    return shares


def _admitted(servers: Servers, wanted: dict[str, Server], say: Say, given_up: Event) -> list[FileLock]:
    """Leases all of `wanted` as soon as they fit beside what others hold and nobody wants their cards alone."""
    leases: list[FileLock] = []
    cards = sorted({card for server in wanted.values() for card in server.settings.cards})

    def admit() -> bool:
        with servers.changing():
            if servers.claims(cards):
                return False
            held = [running.server for running in servers.running() if running.leases]
            together = [*wanted.values(), *(server for server in held if server.key not in wanted)]
            if max(_shares(together).values(), default=0.0) > 1 + _ROUNDING:
                return False
            for server in wanted.values():
                servers.describe(server)
                leases.append(servers.lease(server.key))
            return True

    _wait(admit, "room on the card", say, given_up)
    return leases


def _started(servers: Servers, server: Server, python: str, say: Say, given_up: Event) -> Address:
    """Return the address of a leased server, started if it does not run."""
    place, settings = servers.place(server.key), server.settings
    began, process = time.monotonic(), None
    say(f"waiting for {server.model} to be served; its log: {place / LOG}")
    while True:
        with servers.changing():
            kept = servers.kept(server.key)
            address = servers.address(server.key) if kept and not servers.ending(server.key) else None
            if address is not None:
                return address
            if not kept and process is not None:
                raise ServingError(f"The server of {server.model} ended before it was ready. {_last_words(place)}")
            if not kept and _has_room(servers, server):
                for name in (READY, ENDING, END):
                    (place / name).unlink(missing_ok=True)
                process = _spawn(servers, server, python)
        if time.monotonic() - began > settings.start_timeout_s:
            limit = f"{settings.start_timeout_s:g} s"
            raise ServingError(f"The server of {server.model} was not ready within {limit}. {_last_words(place)}")
        _pause(given_up)


def _spawn(servers: Servers, server: Server, python: str) -> subprocess.Popen[bytes]:
    """Start a server's keeper, tell it what to start, and wait until it has taken its lock."""
    command = [sys.executable, "-m", "dagster_project.serving.keeper", str(servers.folder), python]
    with (servers.place(server.key) / LOG).open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as told:
        told.write(server.dump())
    while process.poll() is None and not servers.kept(server.key):
        time.sleep(0.02)
    return process


def _has_room(servers: Servers, server: Server) -> bool:
    """Whether a server fits beside those that run; if not, those that nobody holds are told to end."""
    others = [running for running in servers.running() if running.server.key != server.key]
    shares = _shares([server, *(running.server for running in others)])
    full = {card for card in server.settings.cards if shares[card] > 1 + _ROUNDING}
    for running in others:
        if not running.leases and full & {*running.server.settings.cards}:
            (servers.place(running.server.key) / END).touch()
    return not full


def _busy(servers: Servers, cards: Sequence[int]) -> bool:
    with servers.changing():
        return any({*running.server.settings.cards} & {*cards} for running in servers.running())


def _wait(until: Callable[[], bool], what: str, say: Say, given_up: Event) -> None:
    told = False
    while not until():
        if not told:
            say(f"waiting for {what}")
            told = True
        _pause(given_up)


def _pause(given_up: Event) -> None:
    if given_up.wait(POLL_S):
        raise ServingError("Nobody waits for the servers any more.")


def _last_words(place: Path) -> str:
    log = place / LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"The end of {place / LOG}:", *lines[-_LAST_LINES:]])
