"""What several tests share: a small experiment of the miniature world, and one finished run of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]

# Models of 220 steps have learned the format, which is all that these tests need.
SMALL = {
    "name": "small",
    "toy": True,
    "world": {"kind": "miniature", "cases": 12, "seed": 3},
    "models": {
        "eager": {"kind": "miniature", "temperament": "eager", "steps": 220},
        "cautious": {"kind": "miniature", "temperament": "cautious", "steps": 220},
    },
    "judges": {
        "strict": {"kind": "miniature", "strictness": "strict"},
        "lenient": {"kind": "miniature", "strictness": "lenient"},
    },
    "agent": {
        "prompt_style": "brief",
        "max_steps": 6,
        "token_budget": 300,
        "max_tokens_per_turn": 50,
        "max_reprompts": 1,
    },
    "source": {"samples": 6, "temperature": 1.0},
    "test": {"samples": 2, "temperature": 1.0},
    "pairs": {"min_gap": 1, "min_chosen": 1, "per_case": 6, "floor": 1},
    "grid": {
        "models": ["eager"],
        "recipes": ["safe", "help", "safe_then_help"],
        "pairs_judges": ["strict"],
        "seeds": [0, 1],
    },
    "training": {
        "learning_rate": 3e-4,
        "max_steps": 4,
        "batch_size": 4,
        "lora_rank": 4,
        "lora_alpha": 8,
        "dtype": "float32",
    },
    "statistics": {"n_bootstrap": 200},
    "limits": {"min_in_format": 0.0, "processes": 2},
}


class Lab(NamedTuple):
    """A place with an experiment file, data and a Dagster home of its own."""

    directory: Path
    experiment: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands run here."""
        own = {"FRONTIER_DATA": str(self.directory / "data"), "DAGSTER_HOME": str(self.directory / "home")}
        return {**os.environ, **own, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def frontier(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the command line in a process of its own."""
        command = [sys.executable, "-m", "dagster_project.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=800, check=False
        )
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done


def make_lab(directory: Path, **changes: object) -> Lab:
    """Writes the small experiment, with some of its sections replaced, into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False), encoding="utf-8")
    return Lab(directory, path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The small experiment, run to its end. Read only: tests that change it take a copy."""
    lab = make_lab(tmp_path_factory.mktemp("finished"))
    lab.frontier("run", "small.yaml")
    yield lab
