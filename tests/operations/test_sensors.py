"""The sensors on a real instance: what they ask for, what they tell, and what they leave alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.failures import failures
from dagster_project.definitions import build_definitions
from dagster_project.experiment.assets import materialisation
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.following import results
from tests.conftest import SMALL
from tests.operations.test_alerts import webhook
from tests.operations.test_state import make


class Lab:
    """A store, an instance, and the experiment's definitions."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, **operations: Any) -> None:
        experiment = Experiment.model_validate({**SMALL, "operations": {"settle_s": 0, **operations}})
        self.graph, self.store = build_graph(experiment), ArtifactStore(folder, "small")
        self.repository = build_definitions(experiment).get_repository_def()
        self.instance, self.cursor = instance, None

    def make(self, asset: str, **keys: str) -> None:
        """Makes a partition, and tells Dagster."""
        ref = Ref.of(asset, **keys)
        make(self.graph, self.store, ref, str(time.time()))
        self.instance.report_runless_asset_event(materialisation(self.store, self.store.get(ref).manifest))

    def look(self) -> dg.SensorResult:
        """Lets the results' sensor have a look."""
        sensor = self.repository.get_sensor_def("results")
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, repository_def=self.repository)
        found = sensor.evaluate_tick(context)
        self.cursor = found.cursor
        return found


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("FRONTIER_DATA", str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Lab(tmp_path, instance)


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
        posting = Lab(tmp_path, lab.instance, webhook="MY_WEBHOOK")
        assert "small failed (lost)" in fail(posting)
        assert "tried again" in fail(posting, {"dagster/will_retry": "true"})
    (body,) = got
    assert body["cause"] == "lost" and body["assets"] == ["stage_1/adapters [eager:safe:strict:0.1, 0]"]
    assert [failure.cause for failure in failures(posting.store)] == ["lost", "lost"]
