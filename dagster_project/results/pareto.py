"""Which points nothing beats in both axes at once, and how much of the plane they cover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dagster_project.results.intervals import Array

BEST = 3.0
"""The best score on either axis; areas are shares of its square."""


def undominated(points: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """Returns, for each (x, y), whether no other point is at least as good in both and better in one."""
    values = np.array(points).reshape(-1, 2)
    at_least = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    better = (values[:, None, :] < values[None, :, :]).any(axis=2)
    found: npt.NDArray[np.bool_] = np.logical_not(np.any(at_least & better, axis=1))
    return found


def hypervolume(points: Array) -> Array:
    """Returns the area that points dominate, as a share of the whole, for each draw.

    Args:
        points: Shape (points, 2, draws), scores 0 to 3.
    """
    order = np.argsort(-points[:, 0], axis=0)  # best x first
    x = np.take_along_axis(points[:, 0], order, axis=0)
    y = np.maximum.accumulate(np.take_along_axis(points[:, 1], order, axis=0), axis=0)
    next_x = np.concatenate([x[1:], np.zeros((1, x.shape[1]))])
    area: Array = ((x - next_x) * y).sum(axis=0) / BEST**2
    return area


def hypervolumes(
    models: Sequence[str], own: Sequence[Array], source: Mapping[str, Array]
) -> Iterator[tuple[str | None, Array]]:
    """Yields the hypervolume of every model's points, its source among them, and of all (None).

    Args:
        models: The model of each point.
        own: The points, shape (2, draws) each.
        source: The source models' own.
    """
    for model in (None, *sorted(set(models))):
        chosen = [values for name, values in zip(models, own, strict=True) if model in (None, name)]
        chosen += [values for name, values in source.items() if model in (None, name)]
        chosen = [values for values in chosen if not np.isnan(values[:, 0]).any()]
        if chosen:
            yield model, hypervolume(np.array(chosen))
