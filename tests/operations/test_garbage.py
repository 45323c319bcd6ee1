from __future__ import annotations

import shutil
import socket
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.garbage import collect_garbage, under_way
from dagster_project.operations.instance import OWNER_TAG
from tests.conftest import SMALL, Lab, make_lab
from toolemu.errors import FrontierError

GRID = {**SMALL["grid"], "recipes": ["safe", "help", "safe_then_help", "safe_then_help_then_safe"]}  # type: ignore[dict-item]
BASE = Ref.of("stage_2/merged_models", agent="eager:safe_then_help:strict:0.1", seed="0")


@pytest.fixture
def lab(finished: Lab, tmp_path: Path) -> Lab:
    """The small experiment, finished, with a folder that a crash left."""
    lab = Lab(tmp_path / "lab", tmp_path / "lab" / "small.yaml")
    shutil.copytree(finished.directory, lab.directory)
    left = lab.directory / "data" / "small" / BASE.asset / BASE.partition_label / "killed"
    left.mkdir()
    (left / "model.safetensors").write_bytes(bytes(3_000_000))
    return lab


def write(lab: Lab, **changes: object) -> None:
    lab.experiment.write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")


@pytest.mark.slow
def test_what_a_crash_left_goes_and_nothing_else(lab: Lab) -> None:
    before = lab.frontier("gc", "small.yaml", "--dry-run").stdout
    assert "3.0 MB  small/stage_2/merged_models/agent=eager:safe_then_help:strict:0.1/seed=0/killed" in before
    assert "3.0 MB in 1 places would be removed (--dry-run)." in before
    assert "3.0 MB in 1 places removed." in lab.frontier("gc", "small.yaml").stdout
    assert "0.0 MB in 0 places removed." in lab.frontier("gc", "small.yaml").stdout
    assert "nothing to do" in lab.frontier("run", "small.yaml").stdout


@pytest.mark.slow
def test_merged_weights_go_and_come_back_for_a_stage_that_needs_them(lab: Lab) -> None:
    store = ArtifactStore(lab.location, "small")
    before = store.get(BASE).manifest
    write(lab, trainer={"keep_merged": "needed"})
    told = lab.frontier("gc", "small.yaml").stdout
    assert told.count("weights that nothing unfinished reads") == 3 * 2
    removed = store.manifest(BASE)
    assert removed is not None
    assert removed.removed == ("model.safetensors",)
    assert "nothing to do" in lab.frontier("run", "small.yaml").stdout
    assert "every file matches its hash" in lab.frontier("lineage", "small.yaml", "eager:safe_then_help").stdout
    write(lab, trainer={"keep_merged": "needed"}, grid=GRID)
    select = ("--select", "stage_3/adapters", "--seed", "0")
    told = lab.frontier("run", "small.yaml", *select).stdout
    assert "train_1 [eager:safe:strict:0.1, 0]" in told
    assert "train_3 [eager:safe_then_help_then_safe:strict:0.1, 0]" in told
    again = store.get(BASE).manifest
    assert (again.sha256, again.run_id != before.run_id) == (before.sha256, True)
    first = store.manifest(Ref.of("stage_1/merged_models", agent="eager:safe:strict:0.1", seed="0"))
    assert first is not None
    assert first.removed, "stage two is merged again, and nothing else needs stage one"


def test_a_dry_run_says_that_something_is_made(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    graph, store = build_graph(Experiment.model_validate(SMALL)), ArtifactStore(lab.location, "small")
    draft = {"run_id": "begun", "code_version": "1", "config": {}, "inputs": {}}
    with store.being_made(), store.write(BASE, **draft) as written:  # type: ignore[arg-type]
        (written.path / "model.safetensors").write_bytes(bytes(1_000_000))
        beside = lab.frontier("gc", "small.yaml", "--dry-run").stdout
    assert "seed=0/begun: no manifest names it" in beside
    assert "A `frontier run small.yaml` is under way on" in beside
    assert "What it writes is among these, and nothing is removed until it ended." in beside
    with dg.DagsterInstance.ephemeral() as instance:
        assert under_way(graph, store, instance) == ""
        run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={OWNER_TAG: "another|1|1"})
        assert under_way(graph, store, instance) == f"small: 1 runs are under way ({run.run_id} …)."
        instance.report_run_failed(run)
        gone = f"{socket.gethostname()}|{2**30}|1.0"
        run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={OWNER_TAG: gone})
        assert under_way(graph, store, instance) == "", "its process is gone"
        left = instance.get_run_by_id(run.run_id)
        assert left is not None and left.status is dg.DagsterRunStatus.STARTED, "looking changes nothing"


def test_nothing_goes_while_something_is_made(tmp_path: Path) -> None:
    graph, store = build_graph(Experiment.model_validate(SMALL)), ArtifactStore(tmp_path, "small")
    left = store.directory(BASE) / "begun"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    with dg.DagsterInstance.ephemeral() as instance:
        with store.being_made(), pytest.raises(FrontierError, match="A `frontier run small` is under way"):
            collect_garbage(graph, store, instance)
        run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={OWNER_TAG: "another|1|1"})
        with pytest.raises(FrontierError, match=f"1 runs are under way .{run.run_id}"):
            collect_garbage(graph, store, instance)
        instance.report_run_failed(run)
        assert collect_garbage(graph, store, instance).unnamed == {left: 4}
    assert not left.exists()
