"""Dagster's instance: pools have one limit, however many steps ask for them at first."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dagster_project.operations.instance import create_pools, open_instance


def limits(instance: dg.DagsterInstance) -> dict[str, int]:
    return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}


def test_a_pool_is_created_once_and_keeps_the_limit_that_a_person_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    with open_instance() as instance:
        create_pools(instance, ["gpu", None, "endpoint/here", "gpu"])
        assert limits(instance) == {"gpu": 1, "endpoint/here": 1}
        storage = instance.event_log_storage
        storage.set_concurrency_slots("gpu", 4)
        create_pools(instance, ["gpu", "endpoint/there"])
        assert limits(instance) == {"gpu": 4, "endpoint/here": 1, "endpoint/there": 1}
        for run in ("first", "second"):  # the second waits, since the pool's place is taken
            storage.claim_concurrency_slot("endpoint/here", run, "step")
        assert storage.get_concurrency_info("endpoint/here").active_run_ids == {"first"}
