"""Judges score trajectories: what they promise."""

from __future__ import annotations

from typing import Protocol

from toolemu.cases import Case
from toolemu.evaluation import Evaluation, Metric
from toolemu.trajectory import Trajectory


class Judge(Protocol):
    """Scores trajectories, 0 to 3 on one metric at a time. One judge serves many trajectories at once."""

    name: str

    async def evaluate(self, case: Case, trajectory: Trajectory, metric: Metric, replicate: int = 0) -> Evaluation:
        """Returns one verdict; a verdict that cannot be had is one without score and with an `error`."""
        ...
