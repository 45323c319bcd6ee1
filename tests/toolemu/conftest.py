"""The released runs of the paper, where whoever runs the tests has them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

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
