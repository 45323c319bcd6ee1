"""A failed check as Dagster's users see it: in the history of checks, whether it stops the run or not."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.failures import failures
from dagster_project.experiment.assets import AssetFactory, AssetRun, Check
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment
from tests.conftest import SMALL

MODEL = Ref.of("source_models", model="eager")


def compute(run: AssetRun) -> None:
    (run.draft.path / "weights").write_text("some")
    run.checks += [Check("fine", True, "All is well."), Check("broken", False, "Too small.", {"size": 1})]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_failed_check_is_in_the_history_and_stops_what_it_blocks(tmp_path: Path, blocking: bool) -> None:
    store = ArtifactStore(tmp_path, "small")
    factory = AssetFactory(build_graph(Experiment.model_validate(SMALL)), store)
    checks = {"fine": "It is fine.", "broken": "It is not broken."}
    asset = factory.asset("source_models", compute, checks=checks, blocking=blocking)
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([asset], partition_key="eager", instance=instance, raise_on_error=False)
        seen = {}
        for name in checks:
            key = dg.AssetCheckKey(factory.key("source_models"), name)
            (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
            seen[name] = record.status.value
    assert seen == {"fine": "SUCCEEDED", "broken": "FAILED"}
    assert done.success is not blocking
    assert (store.manifest(MODEL) is None) is blocking, "nothing is committed that a check has stopped"
    assert [failure.cause for failure in failures(store)] == (["check"] if blocking else [])
