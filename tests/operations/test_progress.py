from __future__ import annotations

import time
from unittest.mock import Mock

from dagster_project.operations.run import _detail
from dagster_project.operations.runner import Worker
from dagster_project.operations.worker import Progressed


def test_progress_says_how_fast_and_how_long() -> None:
    worker = Worker(Mock(), Mock())
    assert _detail(worker) == "starting"
    worker.progress = Progressed("trajectories", 100, 300)
    worker.first = time.monotonic(), worker.progress
    assert _detail(worker) == "trajectories: 100 of 300"
    # Forty since the first word, ten seconds ago: what a resumed run found done is no speed.
    worker.first = time.monotonic() - 10, Progressed("trajectories", 60, 300)
    assert _detail(worker) == "trajectories: 100 of 300, 4 a second, 50 s left"
