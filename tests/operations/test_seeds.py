"""Backfills over seeds, on a real instance of Dagster: the next one, once, one at a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.failures import note_failure
from dagster_project.operations.seeds import Launch, launch_seed, next_seed
from dagster_project.operations.state import states
from tests.conftest import SMALL
from tests.operations.conftest import InstanceLab
from tests.operations.test_alerts import failure
from tests.operations.test_state import graph_of, make, make_everything
from toolemu.errors import FrontierError


class Lab(InstanceLab):
    """A lab that launches seeds."""

    def launch(self, *seeds: int) -> Launch:
        return launch_seed(self.instance, self.repository.asset_graph, self.graph, self.store, seeds)

    def end(self, status: BulkActionStatus) -> None:
        """Ends every backfill that is under way."""
        for backfill in self.instance.get_backfills():
            if backfill.status is BulkActionStatus.REQUESTED:
                self.instance.update_backfill(backfill.with_status(status))

    def fail(self, cause: str) -> None:
        note_failure(self.store, failure(cause, "Oh no."))


@pytest.fixture
def lab(instance: dg.DagsterInstance, tmp_path: Path) -> Lab:
    return Lab(tmp_path, instance)


def test_the_next_seed_is_the_first_that_lacks_anything(tmp_path: Path) -> None:
    graph, store = graph_of(), ArtifactStore(tmp_path, "small")
    work = next_seed(graph, states(graph, store))
    assert work is not None and work.seed == 0
    assert {dict(ref.partition).get("seed", "0") for ref in work.refs} == {"0"}
    make_everything(graph, store)
    assert next_seed(graph, states(graph, store)) is None
    grown = graph_of(grid={**SMALL["grid"], "seeds": [0, 1, 2]})  # type: ignore[dict-item]
    work = next_seed(grown, states(grown, store))
    assert work is not None and work.seed == 2
    assert {ref.asset for ref in work.refs} >= {"stage_2/adapters", "warehouse", "report"}
    assert not any(ref.asset.startswith("source") for ref in work.refs)
    with pytest.raises(FrontierError, match="has the seeds"):
        next_seed(graph, states(graph, store), [7])


def test_a_new_model_judge_or_recipe_adds_partitions_and_nothing_else(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, "small")
    make_everything(graph_of(), store)
    grid: dict[str, Any] = SMALL["grid"]  # type: ignore[assignment]
    changes: list[dict[str, Any]] = [
        {"grid": {**grid, "recipes": [*grid["recipes"], "both"]}},
        {"grid": {**grid, "models": ["eager", "cautious"]}},
        {"grid": {**grid, "pairs_judges": ["strict", "lenient"]}},
    ]
    for change in changes:
        graph = graph_of(**change)
        current = states(graph, store)
        work = next_seed(graph, current)
        assert work is not None and work.seed == 0
        old = {ref for ref in work.refs if ref.partition and store.manifest(ref)}
        assert old == set(), change


def test_a_seed_is_launched_once_and_one_at_a_time(lab: Lab) -> None:
    first = lab.launch()
    assert first.backfill_id is not None and first.backfill_id.startswith("seed_0_") and len(first.backfill_id) <= 32
    assert lab.launch() == Launch(None, f"backfill {first.backfill_id} is under way; one at a time")
    (backfill,) = lab.instance.get_backfills()
    assert backfill.tags["dagster/priority"] == "-10"
    wanted = next_seed(lab.graph, states(lab.graph, lab.store))
    assert wanted is not None and backfill.asset_backfill_data is not None
    assert backfill.asset_backfill_data.target_subset.num_partitions_and_non_partitioned_assets == len(wanted.refs)


def test_two_ticks_at_once_launch_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_project.operations.seeds.active_backfill", lambda *_: None)
    monkeypatch.setattr("dagster_project.operations.seeds._earlier", lambda *_: [])
    assert lab.launch().backfill_id is not None
    assert "at the same moment" in lab.launch().reason
    assert len(lab.instance.get_backfills()) == 1


def test_what_failed_for_good_is_not_launched_again_until_a_person_asks(lab: Lab) -> None:
    lab.launch()
    lab.fail("check")
    lab.end(BulkActionStatus.COMPLETED_FAILED)
    refused = lab.launch()
    assert refused.backfill_id is None and "Oh no." in refused.reason and "by hand" in refused.reason
    assert lab.launch(0).backfill_id is not None


def test_what_may_pass_is_launched_again(lab: Lab) -> None:
    lab.fail("check")  # before it was launched, and so mended or no part of it
    time.sleep(0.01)
    first = lab.launch().backfill_id
    lab.fail("server")
    lab.end(BulkActionStatus.COMPLETED_FAILED)
    second = lab.launch().backfill_id
    assert second is not None and second != first


def test_a_seed_of_which_something_was_made_goes_on(lab: Lab) -> None:
    lab.launch()
    lab.fail("check")
    lab.end(BulkActionStatus.COMPLETED_FAILED)
    time.sleep(0.01)
    make(lab.graph, lab.store, Ref.of("source_models", model="eager"))
    assert lab.launch().backfill_id is not None


def test_a_cancelled_backfill_stays_cancelled(lab: Lab) -> None:
    lab.launch()
    lab.end(BulkActionStatus.CANCELED)
    assert "was cancelled" in lab.launch().reason
