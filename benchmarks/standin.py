"""A code location of the experiment that $FRONTIER_EXPERIMENT names, whose assets do nothing but take a while."""

from __future__ import annotations

import os
import time
from typing import Any

import dagster as dg

from dagster_project.definitions import build_definitions
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.spec import load_experiment

SECONDS = float(os.environ.get("STANDIN_SECONDS", "0.2"))


def stand_in(runs: dict[str, AssetRun]) -> None:
    """Writes what every artifact of the benchmark holds: its own name."""
    time.sleep(SECONDS)
    for run in runs.values():
        (run.draft.path / "content").write_text(run.ref.label)


class StandInFactory(AssetFactory):
    """Makes the same assets with the same partitions, dependencies and pools, without their work and its checks."""

    def multi_asset(self, names: Any, compute: Any, **options: Any) -> dg.AssetsDefinition:
        """Returns assets that only stand in for these."""
        return super().multi_asset(names, stand_in, **{**options, "checks": None})


def __getattr__(name: str) -> dg.Definitions:
    """Builds the definitions when the code location asks for them."""
    if name != "experiment":
        raise AttributeError(name)
    return build_definitions(load_experiment(os.environ["FRONTIER_EXPERIMENT"]), StandInFactory)
