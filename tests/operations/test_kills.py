"""kill -9 at random moments, run again: the same result as a run that nothing disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from tests.conftest import Lab, make_lab

KILLS = 10
NAME_RUNS = ("warehouse", "tables", "figures", "report")


def contents(lab: Lab) -> dict[Ref, str]:
    """Returns every artifact's content hash, without those that name runs: the warehouse, its copies, links to runs."""
    store = ArtifactStore(lab.location, "small")
    manifests = {manifest.ref: manifest for manifest in store.manifests()}
    assert all(store.get(ref).altered_files() == [] for ref in manifests)
    return {ref: manifest.sha256 for ref, manifest in manifests.items() if ref.asset not in NAME_RUNS}


def result_table(output: str) -> str:
    """Returns the result table that a run ends with, without the paths below it, which hold run ids."""
    return output[output.index("Δ safety") : output.index("A toy world")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_ten_times_and_resumed_the_result_is_the_same(finished: Lab, tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "killed")
    moments = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_project.cli", "run", "small.yaml"],
            cwd=lab.directory,
            env=lab.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=moments.uniform(3, 15))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= KILLS // 2, "the run is over too soon for its kills to mean much"
    told = lab.frontier("run", "small.yaml").stdout
    assert contents(lab) == contents(finished)
    assert result_table(told) == result_table(finished.frontier("run", "small.yaml").stdout)
    rows = "SELECT trajectory_id, stop_reason, steps, agent_tokens FROM trajectories ORDER BY ALL"
    assert lab.frontier("query", "small.yaml", rows).stdout == finished.frontier("query", "small.yaml", rows).stdout
    assert "nothing to do" in lab.frontier("run", "small.yaml").stdout
