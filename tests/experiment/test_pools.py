from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dagster_project.experiment import pools as pools_module
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.pools import GPU
from dagster_project.experiment.spec import Experiment, load_experiment
from tests.collect.test_real_models import make_lab
from tests.conftest import SMALL


def pools(**operations: Any) -> dict[str, str | None]:
    graph = build_graph(Experiment.model_validate({**SMALL, "operations": operations}))
    return {node.name: node.pool for node in graph.nodes.values()}


def test_what_needs_nothing_scarce_has_no_pool() -> None:
    assert pools()["stage_1/adapters"] is None
    assert pools()["agent_evaluations/strict/safe"] is None
    assert pools(gpu=True)["preference_pairs/strict"] is None


def test_training_and_local_models_share_the_gpu() -> None:
    assets = ("source_models", "source_trajectories", "stage_1/adapters", "stage_2/merged_models", "agent_trajectories")
    assert {pools(gpu=True)[asset] for asset in assets} == {GPU}


def test_every_endpoint_has_a_pool_and_every_warehouse(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, "http://127.0.0.1:1/v1")
    nodes = build_graph(load_experiment(str(lab.experiment))).nodes
    assert nodes["source_evaluations/wordy/help"].pool == "endpoint/here"
    assert nodes["source_trajectories"].pool == "endpoint/here"
    assert nodes["warehouse"].pool == "warehouse/lm"


@pytest.mark.parametrize(("gpu", "pods", "pool"), [("", [], None), ("H100", [], GPU), ("", [{"gpus": 1}], GPU)])
def test_real_weights_take_the_pool_only_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpu: str, pods: list[dict[str, int]], pool: str | None
) -> None:
    monkeypatch.setattr(pools_module, "gpu_name", lambda: gpu)
    models = {**SMALL["models"], "eager": {"kind": "weights", "source": "some/model"}}  # type: ignore[dict-item]
    graph = build_graph(Experiment.model_validate({**SMALL, "models": models, "kubernetes": pods}))
    assert graph.nodes["stage_1/adapters"].pool == pool
