"""Runs on an object store: lost machines, imports, and the same results as in a folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.copies import LIMIT
from dagster_project.artifacts.objects import ObjectStore
from tests.conftest import Import, Lab, make_import_lab, make_lab
from tests.operations.test_kills import contents
from tests.published.tree import write_raw, write_tree
from tests.servers import BUCKET

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def lose(lab: Lab, command: list[str], location: str, enough: int) -> None:
    """Runs a command until so many artifacts are there, and then the machine is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.cli", *command],
        cwd=lab.directory,
        env=lab.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 400
    manifests = 0
    while manifests < enough:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended by itself"
        time.sleep(0.2)
        found = ObjectStore(location).entries("small")
        manifests = sum(entry.key.endswith("/manifest.json") for entry in found)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_what_lost_machines_began_another_finishes_with_the_same_result(
    finished: Lab, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so little room for copies that hardly any stays."""
    location = f"s3://{BUCKET}/lost"

    def machine(name: str) -> Lab:
        places = {"FRONTIER_DATA": location, "FRONTIER_CACHE": str(tmp_path / name / "cache"), LIMIT: "0.0001"}
        return make_lab(tmp_path / name)._replace(settings={**s3, **places})

    for name, enough in (("first", 3), ("second", 20)):
        lose(machine(name), ["run", "small.yaml"], location, enough)
    third = machine("third")
    third.frontier("run", "small.yaml")
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / "reader"))
    assert contents(third) == contents(finished)
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / "third" / "cache"))
    store = ArtifactStore(location, "small")
    copied = {
        manifest.asset for manifest in store.manifests() if (store.directory(manifest.ref) / manifest.run_id).exists()
    }
    assert copied == {"figures", "report", "tables"}, "what the command tells the paths of in the end"
    third.frontier("gc", "small.yaml")  # a machine may have been lost between a commit and clearing up after it
    leftover = [entry.key for entry in ObjectStore(location).entries("small") if "/journal/" in entry.key]
    assert leftover == []
    assert "nothing to do" in machine("fourth").frontier("run", "small.yaml").stdout


def test_an_import_into_an_object_store_is_that_into_a_folder(
    imported: Import, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"s3://{BUCKET}/imported"
    places = {"FRONTIER_DATA": location, "FRONTIER_CACHE": str(tmp_path / "cache")}
    lab = make_import_lab(tmp_path / "lab")._replace(settings={**s3, **places})
    write_raw(lab.directory / "raw")
    write_tree(lab.directory / "results", betas=("",))
    lab.frontier("run", "imported.yaml", "--source", "raw", "--source", "results", "--select", "scores")
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / "reader"))
    ours = {manifest.ref: manifest.sha256 for manifest in ArtifactStore(location, "imported").manifests()}
    theirs = {
        manifest.ref: manifest.sha256 for manifest in ArtifactStore(imported.lab.location, "imported").manifests()
    }
    compared = ours.keys() - {Ref("warehouse")}
    assert {ref: ours[ref] for ref in compared} == {ref: theirs[ref] for ref in compared}
    assert len(compared) > 20
    again = lab._replace(settings={**s3, **places, "FRONTIER_CACHE": str(tmp_path / "another")})
    assert "scores" in again.frontier("status", "imported.yaml").stdout
