"""The sensors on a real instance: what they ask for, what they tell, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dagster_project.artifacts.failures import failures
from dagster_project.operations.following import results
from tests.operations.conftest import InstanceLab
from tests.operations.test_alerts import webhook


class Lab(InstanceLab):
    """A lab whose results' sensor looks."""

    def look(self) -> dg.SensorResult:
        """Lets the results' sensor have a look."""
        return self.look_of("results")


@pytest.fixture
def lab(instance: dg.DagsterInstance, tmp_path: Path) -> Lab:
    return Lab(tmp_path, instance)


def test_results_are_asked_for_once_and_only_they(lab: Lab) -> None:
    assert not lab.look().run_requests, "nothing is there"
    for model in ("eager", "cautious"):
        for asset in ("source_models", "source_trajectories", "source_evaluations/strict/safe"):
            lab.make(asset, model=model)
    (request,) = lab.look().run_requests
    assert ["/".join(key.path[1:]) for key in request.asset_selection] == results(lab.graph)
    assert request.tags["dagster/priority"] == "10"
    assert not lab.look().run_requests, "the burst is over and was answered"
    lab.make("source_evaluations/strict/help", model="eager")
    assert len(lab.look().run_requests) == 1


def test_results_wait_while_something_is_made(lab: Lab) -> None:
    lab.make("source_models", model="eager")
    lab.make("source_trajectories", model="eager")
    lab.make("source_evaluations/strict/safe", model="eager")
    keys = [dg.AssetKey(["small", "source_trajectories"])]
    job = lab.repository.get_implicit_global_asset_job_def()
    run = lab.instance.create_run_for_job(job, asset_selection=frozenset(keys), status=dg.DagsterRunStatus.STARTED)
    found = lab.look()
    assert not found.run_requests and "being made" in found.skip_message
    lab.instance.report_run_canceled(run)
    assert len(lab.look().run_requests) == 1


def fail(lab: Lab, tags: dict[str, str] | None = None) -> str:
    """Has a run fail without having noted why, and the sensor look at it; returns what the sensor said."""
    keys = frozenset([dg.AssetKey(["small", "stage_1", "adapters"])])
    job = lab.repository.get_implicit_global_asset_job_def()
    partition = {"dagster/partition": "eager:safe:strict:0.1|0"}
    run = lab.instance.create_run_for_job(
        job, asset_selection=keys, tags={**partition, **(tags or {})}, status=dg.DagsterRunStatus.STARTED
    )
    event = lab.instance.report_run_failed(run, "its process is gone")
    context = dg.build_run_status_sensor_context(
        "failures", event, lab.instance, lab.instance.get_run_by_id(run.run_id), repository_def=lab.repository
    ).for_run_failure()
    said = lab.repository.get_sensor_def("failures")(context)
    return str(said.skip_message)


def test_a_lost_run_is_noted_and_posted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    with webhook() as (url, got):
        monkeypatch.setenv("MY_WEBHOOK", url)
        posting = Lab(tmp_path, lab.instance, operations={"webhook": "MY_WEBHOOK"})
        assert "small failed (lost)" in fail(posting)
        assert "tried again" in fail(posting, {"dagster/will_retry": "true"})
    (body,) = got
    assert body["cause"] == "lost" and body["assets"] == ["stage_1/adapters [eager:safe:strict:0.1, 0]"]
    assert [failure.cause for failure in failures(posting.store)] == ["lost", "lost"]
