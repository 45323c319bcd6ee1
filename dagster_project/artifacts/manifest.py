"""The manifest: which run of a partition counts, what it holds, and what it was made from."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from dagster_project.artifacts.refs import Ref

TRACKED_PACKAGES = ("dagster", "duckdb", "numpy", "peft", "safety-frontier", "torch", "transformers", "trl", "vllm")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Record):
    """One file of an artifact; `path` is relative to the run's directory."""

    path: str
    sha256: str
    bytes: int


class InputEntry(_Record):
    """One artifact that was read: exactly this run of it, with this content."""

    asset: str
    partition: dict[str, str]
    run_id: str
    sha256: str

    @property
    def ref(self) -> Ref:
        """The partition that was read."""
        return Ref.of(self.asset, **self.partition)


class Manifest(_Record):
    """What one partition of one asset is.

    Attributes:
        kind: What the asset holds; empty in manifests that were written before this was recorded.
        sha256: Content hash over the files' paths and hashes; its data version.
        config: Everything that decides the result besides inputs and code.
        counts: Numbers of records and the like, for people and checks.
        metrics: Measurements of the run (seconds, tokens …) that are not part of its content.
        removed: Files that were removed since, to save room; making the partition again brings them back.
    """

    experiment: str
    asset: str
    partition: dict[str, str]
    run_id: str
    code_version: str
    config: dict[str, Any]
    packages: dict[str, str]
    git_commit: str
    started_at: datetime
    ended_at: datetime
    host: str
    gpu: str
    files: tuple[FileEntry, ...]
    sha256: str
    counts: dict[str, int]
    metrics: dict[str, float]
    inputs: tuple[InputEntry, ...]
    removed: tuple[str, ...] = ()
    kind: str = ""

    @property
    def ref(self) -> Ref:
        """The partition this is the manifest of."""
        return Ref.of(self.asset, **self.partition)

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.bytes for file in self.files)

    @property
    def kept(self) -> tuple[FileEntry, ...]:
        """The files that were not removed."""
        return tuple(file for file in self.files if file.path not in self.removed)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def content_sha256(files: tuple[FileEntry, ...]) -> str:
    """Returns the content hash of an artifact: SHA-256 over its files' paths and hashes, in order of path."""
    return hashlib.sha256(orjson.dumps(sorted((file.path, file.sha256) for file in files))).hexdigest()


def config_sha256(config: Mapping[str, Any]) -> str:
    """Returns a hash of a configuration that does not depend on the order of its keys."""
    return hashlib.sha256(orjson.dumps(config, option=orjson.OPT_SORT_KEYS)).hexdigest()


def tree_entries(directory: Path) -> tuple[FileEntry, ...]:
    """Returns an entry for every file below `directory`, in order of path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return tuple(
        FileEntry(path=path.relative_to(directory).as_posix(), sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in files
    )


def altered_files(directory: Path, files: Iterable[FileEntry]) -> list[str]:
    """Returns the paths of those files that are missing below `directory`, or have another content."""
    return [
        file.path
        for file in files
        if not (directory / file.path).is_file() or file_sha256(directory / file.path) != file.sha256
    ]


@functools.cache
def package_versions() -> dict[str, str]:
    """Returns the installed versions of the packages that can change a result."""
    versions = {}
    for name in TRACKED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **versions}


@functools.cache
def git_commit() -> str:
    """Returns the commit of the code, with `+changes` if the tree differs from it.

    Outside a checkout it is what `$FRONTIER_COMMIT` says, as images do.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("FRONTIER_COMMIT", "")


@functools.cache
def gpu_name() -> str:
    """Returns the first NVIDIA card's name, without importing torch; empty if there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return ""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return next(iter(names.splitlines()), "")
