from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.batches_by_case import changes_of, compare, relative_size
from benchmarks.coverage import make_world, observe
from dagster_project.experiment.sections import Statistics
from dagster_project.results.points import make_points

BY = ("model", "recipe", "beta")


def test_changes_that_are_a_fifth_smaller_are_told_apart_from_chance() -> None:
    generator = np.random.default_rng(0)
    world = make_world(generator)
    points = make_points(observe(world, generator), world.agents, Statistics(n_bootstrap=200))
    plain = changes_of(points, BY)
    assert len(plain) == 3 * 5 * 2 * 2
    same = compare(plain, plain)
    assert all(row.within and row.difference == 0 and row.difference_bounds == (0, 0) for row in same)
    smaller = changes_of(dataclasses.replace(points, delta=0.8 * points.delta), BY)
    np.testing.assert_allclose(relative_size(plain, smaller), 0.8)
    for row in compare(plain, smaller):
        assert row.difference == pytest.approx(-0.2 * row.plain)
        low, high = row.difference_bounds
        assert high - low == pytest.approx(0.2 * (row.plain_bounds[1] - row.plain_bounds[0]))
    far = changes_of(dataclasses.replace(points, delta=points.delta + 2), BY)
    assert not any(row.within for row in compare(plain, far))
