"""What an imported tree holds: it takes the place of models, judges and grid in the experiment file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dagster_project.experiment.agents import Agent
from toolemu.evaluation import Metric

INVENTORY = "inventory.json"
CASES = "cases.json"


class Inventory(BaseModel):
    """What was imported.

    Attributes:
        models: Source models, those included of which only trained agents were found.
        judges: Everybody who judged, and every judge of training pairs.
        metrics: What was judged.
        seeds: The seeds of the trained agents.
        agents: The trained agents.
        partitions: What is complete and was taken, by asset: the partition keys, dimensions in order of their names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...]
    judges: tuple[str, ...]
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    agents: tuple[Agent, ...]
    partitions: Mapping[str, tuple[tuple[str, ...], ...]]

    @property
    def source_models(self) -> tuple[str, ...]:
        """The models with trajectories of their own."""
        return tuple(key for (key,) in self.partitions.get("source_trajectories", ()))


def read_inventory(directory: Path) -> Inventory:
    """Returns the inventory in an import's directory."""
    return Inventory.model_validate_json((directory / INVENTORY).read_bytes())
