"""The state that leases, keepers and claims share: files, and locks that the system frees when their holder dies.

Below the servers' folder, ``<server key>/`` holds ``server.json`` (what it is), ``keeper.lock`` (held while its keeper
lives), ``ready.json`` (there while it answers), ``log.txt``, ``adapters/``, and ``leases/``: a file a lease, locked by
its holder. The number of leases is thus the number of locks that somebody holds, whoever was killed meanwhile.
``claims/`` has the same for those who want cards to themselves. Whoever changes or counts any of it holds ``.lock``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import orjson
from filelock import FileLock, Timeout

from dagster_project.artifacts.files import write_atomically
from dagster_project.serving.settings import Server, ServerSettings

SPEC, KEEPER, READY, ENDING, END, LOG, ADAPTERS, LEASES, CLAIMS = (
    "server.json", "keeper.lock", "ready.json", "ending", "end", "log.txt", "adapters", "leases", "claims",
)  # fmt: skip


class Running(NamedTuple):
    """A server whose keeper lives.

    Attributes:
        url: Where it answers; empty while it starts or ends.
        leases: How many hold it.
    """

    server: Server
    url: str
    leases: int


class Servers:
    """The servers of one machine, below a folder; made if there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, key: str) -> Path:
        """Returns a server's folder."""
        return self.folder / key

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the lock under which all of this is changed and counted."""
        with FileLock(self.folder / ".lock"):
            yield

    def running(self) -> list[Running]:
        """Returns the servers whose keepers live, in order of key; to be called while `changing`."""
        found = []
        for path in sorted(self.folder.glob(f"*/{SPEC}")):
            key = path.parent.name
            if self.kept(key):
                found.append(Running(self.described(key), self.url(key), self.leases(key)))
        return found

    def described(self, key: str) -> Server:
        """Returns what a server is."""
        weights, revision, model, settings = orjson.loads((self.place(key) / SPEC).read_bytes())
        return Server(weights, revision, model, ServerSettings.model_validate(settings))

    def describe(self, server: Server) -> None:
        """Notes what a server is."""
        value = (server.weights, server.revision, server.model, server.settings.model_dump(mode="json"))
        write_atomically(self.place(server.key) / SPEC, orjson.dumps(value))

    def kept(self, key: str) -> bool:
        """Whether the server's keeper lives."""
        return is_held(self.place(key) / KEEPER)

    def url(self, key: str) -> str:
        """Returns where a server answers; empty while it does not."""
        with suppress(FileNotFoundError):
            return (self.place(key) / READY).read_text()
        return ""

    def ending(self, key: str) -> bool:
        """Whether the server's keeper has decided to end."""
        return (self.place(key) / ENDING).exists()

    def leases(self, key: str) -> int:
        """Returns how many hold a server; to be called while `changing`, like `claims`."""
        return len(_held(self.place(key) / LEASES))

    def claims(self, cards: Sequence[int]) -> int:
        """Returns how many want any of some cards to themselves, or have it."""
        return sum(bool({*map(int, path.name.split("_")[:-1])} & {*cards}) for path in _held(self.folder / CLAIMS))

    def lease(self, key: str) -> FileLock:
        """Returns a new lease, held until it is released or its process dies; to be called while `changing`."""
        return _hold(self.place(key) / LEASES, uuid.uuid4().hex)

    def claim(self, cards: Sequence[int]) -> FileLock:
        """Returns a new claim on cards; as `lease`."""
        return _hold(self.folder / CLAIMS, "_".join([*map(str, cards), uuid.uuid4().hex]))


def release(lock: FileLock) -> None:
    """Gives a lease or a claim back."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at `path`."""
    if not path.exists():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _hold(folder: Path, name: str) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name, thread_local=False)  # another thread may give it back
    lock.acquire()
    return lock


def _held(folder: Path) -> list[Path]:
    """Returns the locks that somebody holds, and removes those whose holder died."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        if is_held(path):
            found.append(path)
        else:
            path.unlink(missing_ok=True)
    return found
