"""Runs on an object store: lost machines, imports, and the same results as in a folder."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.copies import LIMIT
from dagster_project.artifacts.objects import ObjectStore
from dagster_project.artifacts.snapshots import MARK
from tests.conftest import SMALL, Import, Lab, make_import_lab, make_lab
from tests.operations.test_kills import contents
from tests.published.tree import write_raw, write_tree
from tests.servers import BUCKET

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def lose(lab: Lab, command: list[str], location: str, ending: str, enough: int) -> None:
    """Runs a command until there are so many objects with this ending, and then the machine is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.cli", *command],
        cwd=lab.directory,
        env=lab.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 400
    while sum(entry.key.endswith(ending) for entry in ObjectStore(location).entries("small")) < enough:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended by itself"
        time.sleep(0.2)
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
        lose(machine(name), ["run", "small.yaml"], location, "/manifest.json", enough)
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


def test_a_training_on_a_lost_machine_goes_on_at_another(
    finished: Lab, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes long enough for a checkpoint to be uploaded, in a process of its own."""
    changes = {
        "grid": {**SMALL["grid"], "recipes": ["safe"], "seeds": [0]},
        "training": {**SMALL["training"], "max_steps": 400},
        "trainer": {"mode": "subprocess", "checkpoint_every": 20},
    }
    location, command = f"s3://{BUCKET}/lost-training", ["run", "small.yaml", "--select", "stage_1/adapters"]
    whole = make_lab(tmp_path / "whole", **changes)
    for folder in ("source_models", "source_trajectories", "source_evaluations", "preference_pairs"):
        shutil.copytree(finished.directory / "data" / "small" / folder, whole.directory / "data" / "small" / folder)
    for path in (whole.directory / "data").rglob("*"):
        if path.is_file():
            ObjectStore(location).upload(path, path.relative_to(whole.directory / "data").as_posix())

    def machine(name: str) -> Lab:
        places = {"FRONTIER_DATA": location, "FRONTIER_CACHE": str(tmp_path / name / "cache")}
        return make_lab(tmp_path / name, **changes)._replace(settings={**s3, **places})

    lose(machine("first"), command, location, f"/{MARK}", 1)
    machine("second").frontier(*command)
    whole.frontier(*command)
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / "reader"))
    ref = Ref.of("stage_1/adapters", agent="eager:safe:strict:0.1", seed="0")
    resumed, expected = (ArtifactStore(place, "small").get(ref).manifest for place in (location, whole.location))
    assert 0 < resumed.counts["resumed_at"] < 400
    assert resumed.counts["computed_tokens"] < expected.counts["computed_tokens"]
    assert resumed.sha256 == expected.sha256


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
