"""Runs on an object store: lost machines, imports, and the same results as in a folder."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.copies import LIMIT
from dagster_project.artifacts.lease import LOST_AFTER
from dagster_project.artifacts.objects import ObjectStore
from dagster_project.artifacts.snapshots import MARK
from tests.conftest import SMALL, Import, Lab, make_import_lab, make_lab
from tests.lm_world import experiment, play, write_world
from tests.operations.test_kills import contents
from tests.published.tree import write_raw, write_tree
from tests.servers import BUCKET
from tests.toolemu.chat.server import Answer, ChatServer, Fault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@contextmanager
def begun(lab: Lab, command: Sequence[str], location: str, ending: str, enough: int) -> Iterator[subprocess.Popen[str]]:
    """Runs a command until there are so many objects with this ending; after the block, its machine is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.cli", *command],
        cwd=lab.directory,
        env=lab.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 400
    try:
        while sum(entry.key.endswith(ending) for entry in ObjectStore(location).entries("")) < enough:
            assert process.poll() is None and time.monotonic() < deadline, "the run ended by itself"
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.communicate()


def lose(lab: Lab, command: Sequence[str], location: str, ending: str, enough: int) -> None:
    """Runs a command until there are so many objects with this ending, and then the machine is gone."""
    with begun(lab, command, location, ending, enough):
        pass


def test_what_lost_machines_began_another_finishes_with_the_same_result(
    finished: Lab, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so little room for copies that hardly any stays."""
    location = f"s3://{BUCKET}/lost"

    def machine(name: str) -> Lab:
        places = {"FRONTIER_DATA": location, "FRONTIER_CACHE": str(tmp_path / name / "cache")}
        return make_lab(tmp_path / name)._replace(settings={**s3, **places, LIMIT: "0.0001", LOST_AFTER: "2"})

    for name, enough in (("first", 3), ("second", 20)):
        lose(machine(name), ["run", "small.yaml"], location, "/manifest.json", enough)
    third = machine("third")
    told = third.frontier("run", "small.yaml").stdout
    assert "that machine is taken for lost, and this one goes on" in told
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


def test_a_second_machine_buys_nothing_until_the_first_sleeps_which_then_stops(
    s3: dict[str, str], tmp_path: Path
) -> None:
    """Each has servers of models of its own; the first one's judges never answer."""
    location = f"s3://{BUCKET}/shared"

    def without_judges(body: dict[str, Any]) -> Answer:
        answers = not body["model"].startswith("judge") or body["messages"][-1]["content"] == "Say: ready"
        return play(body) if answers else Fault.hang

    def machine(name: str, url: str) -> Lab:
        write_world(tmp_path / name)
        endpoints = {"here": {"url": url, "key": "TEST_KEY", "timeout_s": 600}}
        path = tmp_path / name / "lm.yaml"
        path.write_text(yaml.safe_dump(experiment(url, endpoints=endpoints)), encoding="utf-8")
        places = {"FRONTIER_DATA": location, "FRONTIER_CACHE": str(tmp_path / name / "cache")}
        return Lab(tmp_path / name, path, {**s3, **places, LOST_AFTER: "6", "TEST_KEY": "sk-nobody"})

    judge = ("run", "lm.yaml", "--select", "source_evaluations/strict/safe")
    with ChatServer(without_judges) as ours, ChatServer(play) as theirs:
        second = machine("second", theirs.url)
        # Two models, and the trajectories of both.
        with begun(machine("first", ours.url), judge, location, "/manifest.json", 4) as first:
            refused = second.frontier(*judge, check=False)
            cleared = second.frontier("gc", "lm.yaml", check=False)
            bought = list(theirs.requests)
            workers = psutil.Process(first.pid).children(recursive=True)
            first.send_signal(signal.SIGSTOP)  # its machine falls asleep
            followed = second.frontier(*judge)
            first.send_signal(signal.SIGCONT)
            _, stopped = first.communicate(timeout=60)
            assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert (refused.returncode, cleared.returncode, first.returncode) == (1, 1, 1)
    holder = (
        f"A `frontier run lm.yaml` is under way on {location}/lm: process {first.pid} of {socket.gethostname()}, since "
    )
    for told in (refused.stderr, cleared.stderr):
        assert holder in told and "Wait until it ended, or end it there." in told
    assert bought == []
    assert "that machine is taken for lost, and this one goes on" in followed.stdout
    asked = {body["model"] for body in theirs.requests if body["messages"][-1]["content"] != "Say: ready"}
    assert asked == {"judge-x"}, "what the first had bought is not bought again"
    assert f"{location}/.lm.lease was taken over by process " in stopped
    assert "This command stops, so that nothing is made twice; what was finished is kept." in stopped


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
        return make_lab(tmp_path / name, **changes)._replace(settings={**s3, **places, LOST_AFTER: "2"})

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
