"""The parts of the graph: kinds of assets, their names, and the node that describes one asset.

No code takes a name apart. Names are made here from what an asset is; with a name in hand, ask the graph for its node.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dagster_project.artifacts import Ref
from toolemu.evaluation import Metric

Dimensions = Mapping[str, tuple[str, ...]]
"""Partition keys by dimension."""


class Kind(StrEnum):
    """What an asset holds."""

    imported = "imported"
    model = "model"
    trajectories = "trajectories"
    evaluations = "evaluations"
    calibration = "calibration"
    pairs = "pairs"
    specs = "specs"
    adapters = "adapters"
    merged = "merged"
    interpolated = "interpolated"
    warehouse = "warehouse"
    result = "result"
    claims = "claims"
    transcripts = "transcripts"
    tables = "tables"
    page = "page"
    figures = "figures"


class Side(StrEnum):
    """Whose records an asset holds: the source models', or the trained and external agents'."""

    source = "source"
    agent = "agent"


class Input(StrEnum):
    """The part that an input plays in making a partition.

    Attributes:
        base: The weights that act, are trained, or are merged into.
        adapters: LoRA adapters over the base, in order of their stages.
        spec: The agent's stages and parameters.
        pairs: Preference pairs to train on.
        trajectories: Trajectories to judge, to pair, or to train on.
        verdicts: Judges' evaluations, of all metrics that are needed.
        calibration: The judge's second verdicts, which must be there before it judges a seed's agents.
        warehouse: The DuckDB file.
        tables: Assets with result tables.
        transcripts: The report's transcript files.
        imported: The import, with its cases and findings.
        records: Everything that the warehouse or the transcripts collect.
    """

    base = "base"
    adapters = "adapters"
    spec = "spec"
    pairs = "pairs"
    trajectories = "trajectories"
    verdicts = "verdicts"
    calibration = "calibration"
    warehouse = "warehouse"
    tables = "tables"
    transcripts = "transcripts"
    imported = "imported"
    records = "records"


Inputs = Mapping[Input, tuple[Ref, ...]]
"""The partitions that a partition reads, by their part in making it."""


@dataclass(frozen=True)
class Node:
    """One asset.

    Attributes:
        path: The parts of its name. Dagster's key is the experiment's name and these.
        kind: What it holds.
        group: The room it belongs to.
        run: Assets of one `run` and the same partition are made in one Dagster run.
        dimensions: Keys per partition dimension; none for an unpartitioned asset.
        code_version: Changes when the asset's meaning changes, not with every edit.
        expensive: Redone only when asked to.
        inputs: The partitions that a partition reads, by their part in making it.
        config: The values that decide a partition's content besides code and inputs.
        description: For people.
        side: Whose records it holds; None where that makes no difference.
        judge: The judge whose verdicts, pairs or calibration it holds.
        metric: The metric of its verdicts.
        stage: The training stage (1, 2 …) of its adapters or merged models.
        pool: What is scarce and held while a partition is made; None for nothing.
        partial: Takes those of its inputs that exist; other assets need all of theirs.
        made_by: The asset whose run also makes this one's partitions; None for its own.
        present: The only partitions there are, where not every combination of keys is one.
        unread: Patterns of its inputs' files that it never opens, and that need not be fetched for it.
    """

    path: tuple[str, ...]
    kind: Kind
    group: str
    run: str
    code_version: str
    description: str
    dimensions: Dimensions
    inputs: Callable[[Ref], Inputs]
    config: Callable[[Ref], dict[str, Any]]
    expensive: bool = False
    side: Side | None = None
    judge: str | None = None
    metric: Metric | None = None
    stage: int | None = None
    pool: str | None = None
    partial: bool = False
    made_by: str | None = None
    present: frozenset[tuple[str, ...]] | None = None
    unread: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The asset's key without the experiment."""
        return "/".join(self.path)

    @property
    def family(self) -> str:
        """The name without judge and metric: `agent_evaluations`, `stage_1/adapters`. Totals are shown by it."""
        return self.name if self.stage else self.path[0]

    def refs(self) -> list[Ref]:
        """Return every partition of the asset."""
        names = sorted(self.dimensions)
        return [
            Ref(self.name, tuple(zip(names, keys, strict=True)))
            for keys in itertools.product(*(self.dimensions[name] for name in names))
            if self.present is None or keys in self.present
        ]

    def sources(self, ref: Ref) -> list[Ref]:
        """Return every partition that a partition reads, in order, each once."""
        return list(dict.fromkeys(source for group in self.inputs(ref).values() for source in group))

    def is_meant_by(self, text: str) -> bool:
        """Return whether a person means this asset by `text`: its name, or its beginning up to a slash."""
        parts = tuple(text.split("/"))
        return self.path[: len(parts)] == parts

    def ref(self, **partition: str | int) -> Ref:
        """Return a reference to one partition."""
        return Ref.of(self.name, **partition)


def trajectories_path(side: Side) -> tuple[str, ...]:
    """Return the path of the trajectories of a side."""
    return (f"{side}_trajectories",)


def evaluations_path(side: Side, judge: str, metric: Metric) -> tuple[str, ...]:
    """Return the path of one judge's verdicts on one metric."""
    return f"{side}_evaluations", judge, metric.value


def pairs_path(judge: str) -> tuple[str, ...]:
    """Return the path of the preference pairs by one judge's scores."""
    return "preference_pairs", judge


def calibration_path(judge: str) -> tuple[str, ...]:
    """Return the path of one judge's second verdicts."""
    return "judge_calibration", judge


def adapters_path(stage: int) -> tuple[str, ...]:
    """Return the path of the adapters of a training stage (1, 2 …)."""
    return f"stage_{stage}", "adapters"


def merged_path(stage: int) -> tuple[str, ...]:
    """Return the path of the merged models of a training stage (1, 2 …)."""
    return f"stage_{stage}", "merged_models"


def name_of(path: tuple[str, ...]) -> str:
    """Return the name that a path makes."""
    return "/".join(path)
