"""The state that leases, keepers and claims share: files, and locks that the system frees when their holder dies.

Below the servers' folder, ``<server key>/`` holds ``server.json`` (what the server is), ``keeper.lock`` (held while its
keeper lives), ``key`` (what its clients must send), ``ready.json`` (there while it answers), ``log.txt``,
``adapters/``, and ``leases/``: a file for each lease, locked by its holder. The number of leases is the number of locks
that are held, even after a holder was killed. ``claims/`` has the same for those who want cards to themselves.
``.lock`` is held by whoever changes or counts any of it.

Only this user can enter the folder, and it is refused if others own it or can write to it. No command is read from it:
a keeper is told by its parent which server to start. ``server.json`` must match its folder's name, which is a hash of
it, and ``ready.json`` must be signed with the key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson
from filelock import FileLock, Timeout
from pydantic import SecretStr

from dagster_project.artifacts.files import write_atomically
from dagster_project.artifacts.private import private_folder, read_private, write_private
from dagster_project.serving.settings import Server
from toolemu.errors import FrontierError
from toolemu.redaction import remember

SPEC, KEEPER, SECRET, READY, ENDING, END, LOG, ADAPTERS, LEASES, CLAIMS = (
    "server.json", "keeper.lock", "key", "ready.json", "ending", "end", "log.txt", "adapters", "leases", "claims",
)  # fmt: skip
_LOCAL = re.compile(r"http://127\.0\.0\.1:\d{1,5}/v1")


class Running(NamedTuple):
    """A server whose keeper lives; `leases`: how many hold it."""

    server: Server
    leases: int


class Address(NamedTuple):
    """Where a server answers, and the secret that it wants."""

    url: str
    key: SecretStr


class ServingError(FrontierError):
    """A server that cannot be had."""


class Servers:
    """The servers of one machine, below a folder of this user alone; made if there is none.

    Raises:
        FrontierError: Others own the folder or can write to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)

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
                found.append(Running(self.described(key), self.leases(key)))
        return found

    def described(self, key: str) -> Server:
        """Return what a server is.

        Raises:
            ServingError: `server.json` is not the description of this server.
        """
        content = (self.place(key) / SPEC).read_bytes()
        try:
            server = Server.load(content)
        except (ValueError, TypeError):
            server = None
        if server is None or server.key != key:
            raise ServingError(
                f"{self.place(key) / SPEC} does not describe the server whose folder it is in, so it was planted or "
                f"damaged. Delete the folder: rm -r {self.place(key)}",
                code="serving.planted",
            )
        return server

    def describe(self, server: Server) -> None:
        """Note what a server is."""
        private_folder(self.place(server.key))
        write_atomically(self.place(server.key) / SPEC, server.dump())

    def new_key(self, key: str) -> SecretStr:
        """Make the secret that a server's clients must send from now on, and return it."""
        made = secrets.token_urlsafe(32)
        write_private(self.place(key) / SECRET, made.encode())
        return SecretStr(made)

    def announce(self, key: str, secret: SecretStr, url: str) -> None:
        """Note where a server answers."""
        signed = {"url": url, "signature": _signature(secret.get_secret_value(), url)}
        write_private(self.place(key) / READY, orjson.dumps(signed))

    def address(self, key: str) -> Address | None:
        """Return where a server answers; None while it does not, or where its own keeper did not say so.

        Raises:
            FrontierError: Others can have written what says so.
        """
        secret, ready = read_private(self.place(key) / SECRET), read_private(self.place(key) / READY)
        if not secret or not ready:
            return None
        try:
            said = orjson.loads(ready)
            url, signature = str(said["url"]), str(said["signature"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        if not hmac.compare_digest(signature, _signature(secret.decode(), url)) or not _LOCAL.fullmatch(url):
            return None
        remember(secret.decode())
        return Address(url, SecretStr(secret.decode()))

    def kept(self, key: str) -> bool:
        """Whether the server's keeper lives."""
        return is_held(self.place(key) / KEEPER)

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


def _signature(secret: str, url: str) -> str:
    return hmac.new(secret.encode(), url.encode(), hashlib.sha256).hexdigest()


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
