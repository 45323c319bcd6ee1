"""How much scores vary between cases, trainings and seeds, estimated from a warehouse by metric.

Usage: python -m benchmarks.variances WAREHOUSE
On trained agents scored by their pairs' judge. Moments of the cases that two seeds both hold out: their difference has
no case in it, and their covariance no noise of single scores.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dagster_project.results.points import AXES
from dagster_project.results.scores import Array, load_agents, load_scores


class Variances(NamedTuple):
    """Variances of one metric's scores; of means and means of scores they are the parts.

    Attributes:
        case: Of a case, the same for all agents.
        agent_case: Of an agent on a case, besides.
        training: Of an agent's mean from one seed to the next, its own.
        model_seed: Of the means of a source model's agents together, from one seed to the next.
        seed: Of all agents' means together, from one seed to the next; may come out negative, as estimates do.
        score: Of a single score, the rest.
    """

    case: float
    agent_case: float
    training: float
    model_seed: float
    seed: float
    score: float


def estimate(cells: Array, models: Sequence[str]) -> Variances:
    """Return the variances of scores, shape (agents, seeds, cases), NaN where a case is not held out.

    Args:
        cells: The scores.
        models: The source model of each agent.
    """
    found = []
    alike = np.equal.outer(np.array(models), np.array(models))
    others, same = ~alike, alike & ~np.eye(len(alike), dtype=bool)
    n_agents, n_seeds = cells.shape[:2]
    for one, other in itertools.combinations(range(n_seeds), 2):
        shared = ~np.isnan(cells[:, one]).any(axis=0) & ~np.isnan(cells[:, other]).any(axis=0)
        first, second = cells[:, one][:, shared], cells[:, other][:, shared]
        n = int(shared.sum())
        difference = first - second
        noise = np.cov(difference)  # of single scores, between agents
        between = np.outer(difference.mean(axis=1), difference.mean(axis=1)) - noise / n
        across = float(between[others].mean()) / 2 if others.any() else 0.0
        of_model = float(between[same].mean()) / 2 - across if same.any() else 0.0
        cases = (np.cov(first, second)[:n_agents, n_agents:] + np.cov(second, first)[:n_agents, n_agents:]) / 2
        common = _off(cases)
        own = float(np.trace(cases)) / n_agents
        training = float(np.trace(between)) / n_agents / 2
        left = training - of_model - across
        found.append((common, own - common, left, of_model, across, float(np.trace(noise)) / n_agents / 2))
    return Variances(*np.mean(found, axis=0).tolist())


def _off(matrix: Array) -> float:
    """Return the mean of what is off the diagonal."""
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))


def by_metric(warehouse: Path) -> dict[str, Variances]:
    """Return the variances of both axes' scores of trained agents in a warehouse, each by its pairs' judge."""
    scores, agents = load_scores(warehouse), load_agents(warehouse)
    trained = agents[agents["recipe"].notna()]
    return {
        axis: estimate(
            np.stack([scores.cells(str(row.agent), str(row.pairs_judge), axis) for row in trained.itertuples()]),
            list(map(str, trained["model"])),
        )
        for axis in AXES
    }


def main() -> None:
    """Print the variances, and their standard deviations."""
    table = pd.DataFrame({metric: found._asdict() for metric, found in by_metric(Path(sys.argv[1])).items()})
    deviations = np.sqrt(table.clip(lower=0)).add_suffix(" (sd)")
    print(table.join(deviations).round(4).to_markdown())


if __name__ == "__main__":
    main()
