from __future__ import annotations

from pathlib import Path
from typing import Any

from dagster_project.experiment.pools import GPU, pool_of
from dagster_project.experiment.spec import Experiment, load_experiment
from tests.collect.test_real_models import make_lab
from tests.conftest import SMALL


def small(**operations: Any) -> Experiment:
    return Experiment.model_validate({**SMALL, "operations": operations})


def test_what_needs_nothing_scarce_has_no_pool() -> None:
    assert pool_of(small(), "stage_1/adapters") is None
    assert pool_of(small(), "agent_evaluations/strict/safe") is None
    assert pool_of(small(gpu=True), "preference_pairs/strict") is None


def test_training_and_local_models_share_the_gpu() -> None:
    assets = ("source_models", "source_trajectories", "stage_1/adapters", "stage_2/merged_models", "agent_trajectories")
    assert {pool_of(small(gpu=True), asset) for asset in assets} == {GPU}


def test_every_endpoint_has_a_pool_and_every_warehouse(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, "http://127.0.0.1:1/v1")
    experiment = load_experiment(str(lab.experiment))
    assert pool_of(experiment, "source_evaluations/wordy/help") == "endpoint/here"
    assert pool_of(experiment, "judge_calibration/wordy") == "endpoint/here"
    assert pool_of(experiment, "source_trajectories") == "endpoint/here"
    assert pool_of(experiment, "warehouse") == "warehouse/lm"
