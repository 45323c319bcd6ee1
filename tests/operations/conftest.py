"""What several tests of operations share: an instance in memory, and a store and definitions beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.definitions import build_definitions
from dagster_project.experiment.assets import materialisation
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment
from tests.conftest import SMALL
from tests.operations.test_state import make


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance in memory; artifacts are below `tmp_path`."""
    monkeypatch.setenv("FRONTIER_DATA", str(tmp_path))
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class InstanceLab:
    """A store, an instance, and the small experiment as Dagster has it, with other sections where they are given."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, **sections: Any) -> None:
        operations = {"settle_s": 0, **sections.pop("operations", {})}
        self.experiment = Experiment.model_validate({**SMALL, **sections, "operations": operations})
        self.graph, self.store = build_graph(self.experiment), ArtifactStore(folder, "small")
        self.repository = build_definitions(self.experiment).get_repository_def()
        self.instance = instance
        self._cursors: dict[str, str | None] = {}

    def make(self, asset: str, **keys: str) -> None:
        """Makes a partition, and tells Dagster."""
        ref = Ref.of(asset, **keys)
        make(self.graph, self.store, ref, str(time.time()))
        self.instance.report_runless_asset_event(materialisation(self.store, self.store.get(ref).manifest))

    def look_of(self, name: str) -> dg.SensorResult:
        """Lets a sensor have a look."""
        cursor = self._cursors.get(name)
        context = dg.build_sensor_context(self.instance, cursor=cursor, repository_def=self.repository)
        found = self.repository.get_sensor_def(name).evaluate_tick(context)
        self._cursors[name] = found.cursor
        return found
