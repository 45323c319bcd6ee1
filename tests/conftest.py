"""What several tests share: finished runs of a small experiment of the miniature world, and of an imported one."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from dagster_project.artifacts import Location
from tests.published.tree import JUDGES, N_CASES, SEEDS, write_raw, write_tree
from tests.servers import BUCKET, postgresql_programs, postgresql_server, s3_server

ROOT = Path(__file__).parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:  # test processes share the cores; waiting threads would take them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

RUNS_PROGRAMS = {"finished", "finished_remotely", "imported", "postgresql", "published_tree", "s3"}
"""Fixtures that run whole experiments or servers: a test that uses one of them is slow."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if RUNS_PROGRAMS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


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
    "limits": {"min_in_format": 0.0, "min_reward_accuracy": 0.0, "processes": 2},
}


class Lab(NamedTuple):
    """A place with an experiment file, data and a Dagster home of its own; `settings` are further variables."""

    directory: Path
    experiment: Path
    settings: Mapping[str, str] = {}

    @property
    def location(self) -> Location:
        """Where the artifacts are."""
        return self.settings.get("FRONTIER_DATA") or self.directory / "data"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands run here."""
        own = {"FRONTIER_DATA": str(self.directory / "data"), "DAGSTER_HOME": str(self.directory / "home")}
        return {**os.environ, **own, **self.settings, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

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


@pytest.fixture(scope="session")
def finished_remotely(tmp_path_factory: pytest.TempPathFactory, s3: dict[str, str], postgresql: dict[str, str]) -> Lab:
    """The same with artifacts in a bucket and Dagster's records in PostgreSQL. Read only."""
    directory = tmp_path_factory.mktemp("finished-remotely")
    places = {"FRONTIER_DATA": f"s3://{BUCKET}/finished", "FRONTIER_CACHE": str(directory / "cache")}
    lab = make_lab(directory)._replace(settings={**s3, **postgresql, **places})
    lab.frontier("run", "small.yaml")
    return lab


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server, and the variables that name it; they are set for all tests from now on."""
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="session")
def postgresql() -> Iterator[dict[str, str]]:
    """A PostgreSQL server with an empty database, and the variables that name it."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    with postgresql_server(programs) as environment:
        yield environment


IMPORTED = {
    "name": "imported",
    "judge_failed": True,  # as the released code did
    "world": {
        "kind": "imported",
        "cases": N_CASES,
        "seeds": list(SEEDS),
        "pairs_judges": dict(JUDGES),
    },
    "pairs": {
        "min_gap": 1,
        "min_chosen": 1,
        "lead": "help",
        "exclude_self_observed": False,
        "exclude_failed": False,
        "floor": 0,
    },
    "statistics": {"n_bootstrap": 50},
}


class Import(NamedTuple):
    """A finished run of an imported experiment, and what it printed."""

    lab: Lab
    told: str


def make_import_lab(directory: Path) -> Lab:
    """Writes an experiment that imports into `directory`, without anything to import."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "imported.yaml"
    path.write_text(yaml.safe_dump(IMPORTED, sort_keys=False), encoding="utf-8")
    return Lab(directory, path)


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Import:
    """Two written trees, imported and run to the end. Read only: tests that change it take a copy."""
    lab = make_import_lab(tmp_path_factory.mktemp("imported"))
    write_raw(lab.directory / "raw")
    write_tree(lab.directory / "results", betas=("",))
    done = lab.frontier("run", "imported.yaml", "--source", "raw", "--source", "results")
    assert done.stderr == ""
    return Import(lab, done.stdout)


HOW_TO_GET = (
    "set PUBLISHED_RUNS to a folder that holds match_eval_results and raw_data_by_eval (or their .tar.xz), "
    "all_cases.json and all_toolkits.json of github.com/bplaut/safety-persists-llm-agents"
)


@pytest.fixture(scope="session")
def published_runs() -> Path:
    """The folder that PUBLISHED_RUNS names."""
    folder = os.environ.get("PUBLISHED_RUNS")
    if not folder:
        pytest.skip(HOW_TO_GET)
    return Path(folder)


@pytest.fixture(scope="session")
def published_tree(published_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Finds a tree of the released runs, unpacking it if need be."""

    def find(name: str) -> Path:
        for tree in (published_runs / name, published_runs / "results" / name, published_runs / "data" / name):
            if tree.is_dir():
                return tree
        archive = published_runs / f"{name}.tar.xz"
        if not archive.exists():
            pytest.skip(f"{published_runs} holds no {name}: {HOW_TO_GET}")
        folder = tmp_path_factory.mktemp("published")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        return folder / name

    return find
