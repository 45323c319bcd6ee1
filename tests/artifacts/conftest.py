from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore
from tests.servers import BUCKET

Machines = Callable[[str], ArtifactStore]


@pytest.fixture
def bucket(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place in a bucket; copies go to a folder of this test's."""
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / "cache"))
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store, in a folder and in a bucket."""
    location = tmp_path / "data" if request.param == "folder" else request.getfixturevalue("bucket")
    return ArtifactStore(location, "trial")


@pytest.fixture
def machine(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Gives the store as it is from a machine of this name: with copies and unfinished work of its own."""

    def at(name: str) -> ArtifactStore:
        monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / name))
        return ArtifactStore(bucket, "trial")

    return at
