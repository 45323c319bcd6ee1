from __future__ import annotations

import numpy as np

from benchmarks.coverage import make_world, observe, tallies, truth
from dagster_project.experiment.sections import Statistics


def test_the_truth_is_what_many_experiments_average_to() -> None:
    world = make_world(np.random.default_rng(0))
    generator = np.random.default_rng(1)
    means = [np.nanmean(observe(world, generator).values, axis=(1, 2)) for _ in range(150)]
    expected = truth(world).reshape(-1)
    error = np.std(means, axis=0) / np.sqrt(len(means))
    assert (np.abs(np.mean(means, axis=0) - expected) < 4.5 * error).all()


def test_every_interval_stands_beside_its_truth() -> None:
    generator = np.random.default_rng(0)
    world = make_world(generator)
    found = tallies(world, observe(world, generator), Statistics(n_bootstrap=40))
    names = {tally.name for tally in found}
    assert {"the line's slope_disattenuated", "the paper's position (help), released code"} <= names
    assert {"gain (safe, over models)", "share (safe, over models)", "a point's change of safety"} <= names
    for tally in found:
        if tally.name.startswith("share") and np.isnan(tally.estimate):  # without a clear gain there is none
            assert np.isnan([tally.low, tally.high]).all()
            continue
        assert tally.low <= tally.high
        ratio = "share" in tally.name or "position" in tally.name  # far from the truth where a gain is small
        clipped = np.isnan(tally.estimate)  # of R², which then has a lower bound alone
        assert ratio or clipped or abs(tally.truth - tally.estimate) < 1
