"""What an imported tree holds: it takes the place of models, judges and grid in the experiment file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dagster_project.experiment.agents import Agent
from dagster_project.experiment.nodes import Side, evaluations_path, trajectories_path
from toolemu.evaluation import Metric

INVENTORY = "inventory.json"
CASES = "cases.json"


class ImportedAsset(BaseModel):
    """Partitions of trajectories, or of one judge's verdicts on one metric, that an import made.

    Attributes:
        side: Whose they are.
        judge: Who judged; None for trajectories.
        metric: What was judged; None for trajectories.
        keys: The partitions that are complete and were taken; keys in order of the dimensions' names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Side
    judge: str | None
    metric: Metric | None
    keys: tuple[tuple[str, ...], ...]

    @property
    def path(self) -> tuple[str, ...]:
        """The path of the asset's name."""
        if self.judge is None or self.metric is None:
            return trajectories_path(self.side)
        return evaluations_path(self.side, self.judge, self.metric)


class Inventory(BaseModel):
    """What was imported.

    Attributes:
        models: Source models, those included of which only trained agents were found.
        judges: Everybody who judged, and every judge of training pairs.
        metrics: What was judged.
        seeds: The seeds of the trained agents.
        agents: The trained agents.
        assets: What is complete and was taken, in order of the assets' names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...]
    judges: tuple[str, ...]
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    agents: tuple[Agent, ...]
    assets: tuple[ImportedAsset, ...]

    @property
    def source_models(self) -> tuple[str, ...]:
        """The models with trajectories of their own."""
        found = (part for part in self.assets if part.side is Side.source and part.judge is None)
        return tuple(key for part in found for (key,) in part.keys)


def read_inventory(directory: Path) -> Inventory:
    """Returns the inventory in an import's directory."""
    return Inventory.model_validate_json((directory / INVENTORY).read_bytes())
