"""An object store as files by key: what the artifact store needs of S3, and its faults in words. Knows no artifacts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

from toolemu.errors import FrontierError, PassingError

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME = "s3"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Environment variables that name a server other than Amazon's, the first one set counts; see docs/deploy.md."""
AT_ONCE = 32
"""Requests in flight. A request is latency, not work: 5,000 manifests at 20 ms each take 3 s so, and 100 s in turn."""
PATIENCE = timedelta(seconds=60)
"""How long a request that fails by the server's or the network's fault is tried again."""
HASTE = timedelta(seconds=5)
"""The same where somebody waits to be told that the address is wrong."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class StorageError(FrontierError):
    """The object store cannot be reached, does not know the bucket, or does not allow what is needed."""


class SilentStorageError(StorageError, PassingError):
    """The object store failed for as long as it was asked again; it may answer later."""


class ExistsError(StorageError):
    """An object that was to be made is there already."""


class NoObjectError(StorageError):
    """There is no such object."""


class Entry(NamedTuple):
    """An object in a listing: its key, its size in bytes, and its server's tag, which changes with its content."""

    key: str
    bytes: int
    tag: str


class ObjectStore:
    """The objects below one `s3://bucket/prefix`; keys are relative to it. Usable from any number of threads.

    Args:
        url: Where.
        patience: How long a failing request is tried again.
    """

    def __init__(self, url: str, patience: timedelta = PATIENCE) -> None:
        self.url = url
        self._patience = patience

    def check(self) -> None:
        """Makes sure that objects can be listed, written and deleted, before anything depends on it.

        Raises:
            StorageError: One of it does not work; says which, and what to do.
        """
        hasty = ObjectStore(self.url, HASTE)
        probe = f".check/{os.uname().nodename}-{os.getpid()}"
        next(hasty.entries(".check"), None)
        hasty.put(probe, b"frontier")
        hasty.delete([probe])

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yields the objects below a folder."""
        obstore = _client(self.url)
        with self._asking(f"listing {folder or 'everything'}"):
            for chunk in obstore.list(self._store, prefix=folder or None, chunk_size=1000):
                for found in chunk:
                    yield Entry(found["path"], found["size"], found["e_tag"] or "")

    def folders(self, folder: str) -> list[str]:
        """Returns the folders directly below a folder."""
        obstore = _client(self.url)
        with self._asking(f"listing {folder or 'everything'}"):
            return list(obstore.list_with_delimiter(self._store, prefix=folder or None)["common_prefixes"])

    def get(self, key: str) -> bytes | None:
        """Returns an object's content, or None if there is no such object."""
        try:
            return b"".join(self._stream(key))
        except NoObjectError:
            return None

    def put(self, key: str, content: bytes, *, new: bool = False) -> str:
        """Writes an object, whole or not at all, and returns its tag.

        Raises:
            ExistsError: It is there, and `new` says that it must not be.
        """
        obstore = _client(self.url)
        with self._asking(f"writing {key}"):
            put = obstore.put(self._store, key, content, mode="create" if new else "overwrite")
            return put["e_tag"] or ""

    def upload(self, path: Path, key: str) -> None:
        """Writes a file of any size as an object, whole or not at all."""
        obstore = _client(self.url)
        with self._asking(f"writing {key}"):
            obstore.put(self._store, key, path)

    def download(self, key: str, path: Path) -> str:
        """Writes an object to a file and returns its SHA-256 in hex.

        Raises:
            StorageError: There is no such object.
        """
        digest = hashlib.sha256()
        with path.open("wb") as out:
            for chunk in self._stream(key):
                out.write(chunk)
                digest.update(chunk)
        return digest.hexdigest()

    def sha256(self, key: str) -> str | None:
        """Returns the SHA-256 of an object's content in hex, or None if there is no such object."""
        digest = hashlib.sha256()
        try:
            for chunk in self._stream(key):
                digest.update(chunk)
        except NoObjectError:
            return None
        return digest.hexdigest()

    def _stream(self, key: str) -> Iterator[bytes]:
        obstore = _client(self.url)
        with self._asking(f"reading {key}"):
            for chunk in obstore.get(self._store, key).stream():
                yield bytes(chunk)

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; those that are not there do no harm."""
        obstore, found = _client(self.url), list(keys)
        with self._asking(f"deleting {len(found)} objects"):
            if found:
                obstore.delete(self._store, found)

    @cached_property
    def _store(self) -> S3Store:
        place, plain = urlsplit(self.url), (endpoint() or "").startswith("http://")
        client: S3Store = _client(self.url).store.S3Store(
            place.netloc,
            prefix=place.path.strip("/") or None,
            # Weights take as long as they take, if only something comes.
            client_options={"allow_http": plain, "timeout": "24h", "read_timeout": "60s"},
            retry_config={"max_retries": 6, "retry_timeout": self._patience},
        )
        return client

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turns the client's errors into ours."""
        try:
            yield
        except (FrontierError, GeneratorExit):
            raise
        except Exception as error:
            faults = _client(self.url).exceptions
            if isinstance(error, faults.AlreadyExistsError | faults.PreconditionError):
                raise ExistsError(f"{self.url}: {what}: it is there already.") from error
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                raise NoObjectError(f"{self.url}: {what}: there is no such object.") from error
            if not isinstance(error, faults.BaseError | OSError):
                raise
            raise SilentStorageError(f"{self.url}: {what} failed: {_explained(error)}") from error


def _client(url: str) -> ModuleType:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise StorageError(
            f"{url}: the client for object stores is not installed. Install it: pip install 'safety-frontier[s3]'."
        ) from None
    return obstore


def endpoint() -> str | None:
    """Returns the address of the server, where it is not Amazon's."""
    return next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Returns what `work` makes of every item, in their order, many at a time; raises the first error."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, items))


EXPLAINED: Mapping[str, str] = {
    "NoSuchBucket": "there is no such bucket. Make it, or mend FRONTIER_DATA.",
    "InvalidAccessKeyId": "the access key is not known there. Check AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "the secret key is wrong. Check AWS_SECRET_ACCESS_KEY.",
    "AccessDenied": "access is denied. The credentials need s3:ListBucket on the bucket, and s3:GetObject, "
    "s3:PutObject and s3:DeleteObject below the prefix.",
    "PermanentRedirect": "the bucket is in another region. Set AWS_REGION.",
}
UNREACHABLE = ("error sending request", "dns error", "Connect", "timed out")


def _explained(error: Exception) -> str:
    text = str(error)
    for code, explanation in EXPLAINED.items():
        if code in text:
            return explanation
    if "169.254." in text or "instance metadata" in text.lower():
        return (
            "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a service account "
            "or an instance role gives them."
        )
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return EXPLAINED["AccessDenied"]
    if any(sign in text for sign in UNREACHABLE):
        return f"{endpoint() or 'Amazon S3'} cannot be reached. Check the network and AWS_ENDPOINT_URL."
    return text.splitlines()[0]
