"""Trained agents as points: their scores and deltas, plain and resampled, before anything is averaged or fitted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from dagster_project.experiment.sections import Statistics
from dagster_project.results.intervals import Array, Draws
from dagster_project.results.scores import BEST, Scores, combinations, draws_of, judges_of

JUDGINGS = ("match", "cross", "all")
AXES = ("help", "safe")
"""Of every array whose second-to-last meaning is an axis: helpfulness (x), then safety (y)."""


class Key(NamedTuple):
    """A trained agent and who scored it; `here`: it was trained by the experiment, and neither elsewhere nor mixed."""

    agent: str
    model: str
    recipe: str
    beta: float
    pairs_judge: str
    judge: str
    label: str
    here: bool


@dataclass(frozen=True)
class Points:
    """Every trained agent by every judge who scored it on both axes.

    Attributes:
        keys: Who, in order.
        cells: Own scores, shape (keys, 2, seeds, cases).
        delta_cells: The same minus the source model's on the same case by the same judge.
        best_cells: Shares of trajectories that are safe and helpful at once, shape (keys, seeds, cases).
        own: Means over seeds and cases, shape (keys, 2, 1 + draws); the estimate comes first.
        delta: The same of the deltas.
        source: Means of the source models, by model and judge, shape (2, 1 + draws).
        draws: The weights behind all of them.
        ways: What is averaged in which way of judging, see `combinations`.
    """

    keys: list[Key]
    cells: Array
    delta_cells: Array
    best_cells: Array
    own: Array
    delta: Array
    source: Mapping[tuple[str, str], Array]
    draws: Draws
    ways: Mapping[tuple[str, str | None], list[tuple[str, str]]]
    seeds: tuple[int, ...]

    def groups(
        self, way: tuple[str, str | None], by: Sequence[str]
    ) -> Iterator[tuple[tuple[Hashable, ...], list[int]]]:
        """Yields, for a way of judging, the positions of the keys that make one point, by the values of `by`.

        A point is there only if everything is that is averaged in it, for each model.
        """
        pairs = self.ways[way]
        found: dict[tuple[Hashable, ...], list[int]] = {}
        complete = self._complete(pairs)
        for position, key in enumerate(self.keys):
            if (key.pairs_judge, key.judge) in pairs and (key.model, key.recipe, key.beta) in complete:
                values = tuple(getattr(key, name) for name in by)
                found.setdefault(values, []).append(position)
        yield from sorted(found.items(), key=lambda item: tuple(map(str, item[0])))

    def _complete(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str, float]]:
        """Returns the (model, recipe, beta) that every one of their pairs' judges' agents was scored for as asked."""
        scored: dict[tuple[str, str, float], set[tuple[str, str]]] = {}
        trained_on: dict[tuple[str, str, float], set[str]] = {}
        for key in self.keys:
            scored.setdefault((key.model, key.recipe, key.beta), set()).add((key.pairs_judge, key.judge))
            trained_on.setdefault((key.model, key.recipe, key.beta), set()).add(key.pairs_judge)
        return {
            place
            for place, found in scored.items()
            if found & set(pairs) and {pair for pair in pairs if pair[0] in trained_on[place]} <= found
        }

    def source_mean(self, way: tuple[str, str | None], model: str) -> Array:
        """Returns a source model's means in a way of judging, shape (2, 1 + draws); NaN where it was not scored."""
        judges = [judge for _, judge in self.ways[way]]
        missing = np.full((2, len(self.draws.seeds)), np.nan)
        mean: Array = np.mean([self.source.get((model, judge), missing) for judge in judges], axis=0)
        return mean


def make_points(scores: Scores, agents: pd.DataFrame, statistics: Statistics) -> Points:
    """Returns the points of all trained agents.

    Args:
        scores: Held-out scores.
        agents: Of `load_agents`.
        statistics: How many draws, from which seed.
    """
    draws = draws_of(scores, statistics)
    trained = agents[agents["recipe"].notna()]
    judges = judges_of(scores)
    keys = []
    cells, deltas, best = [], [], []
    for row in trained.itertuples(index=False):
        for judge in judges:
            own = np.stack([scores.cells(str(row.agent), judge, axis) for axis in AXES])
            if np.isnan(own).all(axis=(1, 2)).any():
                continue
            source = np.stack([scores.cells(str(row.model), judge, axis) for axis in AXES])
            beta = float("nan") if pd.isna(row.beta) else float(row.beta)  # type: ignore[arg-type]
            names = str(row.agent), str(row.model), str(row.recipe), beta, str(row.pairs_judge), judge, str(row.label)
            keys.append(Key(*names, here=bool(row.here)))
            cells.append(own)
            deltas.append(own - source)
            best.append(scores.cells(str(row.agent), judge, BEST))
    shape = (len(keys), 2, *scores.values.shape[1:])
    own_cells, delta_cells = np.reshape(cells, shape), np.reshape(deltas, shape)
    sources = {
        (model, judge): draws.means(np.stack([scores.cells(model, judge, axis) for axis in AXES]))
        for model in sorted(map(str, set(agents["model"])))
        for judge in judges
    }
    return Points(
        keys,
        own_cells,
        delta_cells,
        np.reshape(best, (len(keys), *scores.values.shape[1:])),
        _means(own_cells, draws),
        _means(delta_cells, draws),
        sources,
        draws,
        combinations(JUDGINGS, judges, sorted(trained["pairs_judge"].unique())),
        scores.seeds,
    )


def _means(cells: Array, draws: Draws) -> Array:
    n_keys, n_axes, n_seeds, n_cases = cells.shape
    flat = draws.means(cells.reshape(n_keys * n_axes, n_seeds, n_cases))
    return flat.reshape(n_keys, n_axes, flat.shape[1])
