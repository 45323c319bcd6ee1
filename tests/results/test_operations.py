from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dagster_project.artifacts import Manifest
from dagster_project.artifacts.failures import Failure
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment
from dagster_project.results.operations import failure_rows, operation_rows
from tests.conftest import SMALL

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PARTITION = {"agent": "eager:safe:strict:0.1", "seed": "0"}


def manifest(asset: str, *, gpu: str = "NVIDIA H100", **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "experiment": "small",
        "asset": asset,
        "partition": PARTITION,
        "run_id": "r",
        "code_version": "1",
        "config": {},
        "packages": {},
        "git_commit": "",
        "started_at": BEGAN,
        "ended_at": BEGAN + timedelta(minutes=90),
        "host": "h",
        "gpu": gpu,
        "files": (),
        "sha256": "",
        "counts": {},
        "metrics": {},
        "inputs": (),
    }
    return Manifest.model_validate({**values, **changes})


def failure() -> Failure:
    ended = BEGAN - timedelta(hours=1)
    return Failure(
        asset="stage_1/adapters",
        partition=PARTITION,
        run_id="f",
        cause="memory",
        message="CUDA out of memory",
        started_at=ended - timedelta(seconds=30),
        failed_at=ended,
    )


def test_time_gpu_tokens_and_money_of_each_partition() -> None:
    graph = build_graph(Experiment.model_validate({**SMALL, "operations": {"gpu": True}}))
    counts = {"judge_prompt_tokens": 900, "judge_completion_tokens": 100, "judge_calls": 7, "evaluations": 7}
    manifests = [
        manifest("stage_1/adapters"),
        manifest("stage_1/merged_models", gpu=""),
        manifest("agent_evaluations/strict/safe", counts=counts, metrics={"judge_cost": 0.5}),
    ]
    trained, merged, judged = operation_rows(graph, manifests, [failure()])
    place = "agent=eager:safe:strict:0.1/seed=0"
    assert trained == ("stage_1/adapters", place, "r", "h", "NVIDIA H100", 5400.0, 1.5, None, None, 1)
    assert merged[4:] == (None, 5400.0, None, None, None, 0)
    assert judged[6:] == (None, 1000, 0.5, 0), "a judge on a machine with a GPU uses none of it"


def test_what_failed_and_how_much_work_was_lost() -> None:
    (row,) = failure_rows([failure()])
    assert row[2:] == ("f", "memory", "CUDA out of memory", BEGAN - timedelta(hours=1), 30.0)
