"""Trainings whose machine is lost, with what they had on it: another one goes on from the object store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore
from dagster_project.artifacts.objects import ObjectStore
from dagster_project.artifacts.snapshots import MARK
from dagster_project.experiment.training import Trainer
from dagster_project.training.job import write_job
from tests.conftest import ROOT
from tests.servers import BUCKET

from .machine import ADAPTER
from .test_robustness import LONG
from .toy import Corpus, files_of


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [Trainer(checkpoint_every=2), Trainer(checkpoint_every=2, mode="accelerate", processes=2)],
    ids=lambda trainer: trainer.mode,
)
def test_a_training_on_a_lost_machine_goes_on_at_another(
    corpus: Corpus,
    base: Path,
    trainer: Trainer,
    s3: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def start(name: str, location: str) -> subprocess.Popen[bytes]:
        """Begins the training on a machine that has nothing of any other's, not even a path."""
        place = tmp_path / name
        job = corpus.job(
            shutil.copytree(base, place / "base"),
            place / "out",
            LONG.model_copy(update={"max_steps": 60}),
            trainer=trainer,
        )
        write_job(job, place / "job.json")
        return subprocess.Popen(
            [sys.executable, "-m", "tests.training.machine", location, str(place / "job.json")],
            cwd=ROOT,
            env={**os.environ, **s3, "FRONTIER_CACHE": str(place / "cache")},
            start_new_session=True,
        )

    whole, lost = start("whole", str(tmp_path / "data")), start("lost", bucket)
    deadline = time.monotonic() + 400
    while not any(entry.key.endswith(f"/{MARK}") for entry in ObjectStore(bucket).entries("trial")):
        assert lost.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(lost.pid, signal.SIGKILL)
    lost.wait()
    assert start("another", bucket).wait(400) == 0
    assert whole.wait(400) == 0
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path / "reader"))
    resumed, expected = (ArtifactStore(place, "trial").get(ADAPTER) for place in (bucket, tmp_path / "data"))
    assert 0 < resumed.manifest.counts["resumed_at"] < 60 == resumed.manifest.counts["steps"]
    if trainer.mode == "in_process":
        assert resumed.manifest.counts["taken"] == 60 - resumed.manifest.counts["resumed_at"]
    assert files_of(resumed.path) == files_of(expected.path)
    assert not any("/journal/" in entry.key for entry in ObjectStore(bucket).entries("trial"))
