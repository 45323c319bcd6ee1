from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.training import LENGTHS
from tests.conftest import ROOT


def test_the_committed_lengths_are_of_pairs_of_one_case() -> None:
    lengths = json.loads(LENGTHS.read_bytes())
    conversations, pairs = lengths["conversations"], lengths["pairs"]
    assert (len(pairs), len(conversations)) == (6827, 1916)
    assert all(conversations[chosen][0] == conversations[rejected][0] for chosen, rejected in pairs)
    assert {case for case, _ in conversations} == set(lengths["prompts"])


@pytest.mark.slow
def test_the_benchmark_runs_without_a_card() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--model", "tiny", "--steps", "1"],
        cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout.splitlines()
    assert told[0] == "tiny on the CPU: this says nothing of speed, 1 steps"
    assert told[1].startswith("released code's settings: 8 pairs")
    assert "16 references" in told[1]  # two a pair; ours has one a conversation
    assert "1 pairs at once, 100% recomputed" in told[1]
    assert "8 pairs at once, 0% recomputed" in told[2]
    assert told[3].endswith("times the pairs a second")
