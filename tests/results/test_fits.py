from __future__ import annotations

import numpy as np
import pytest

from dagster_project.results.fits import Cloud, fit_disattenuated, fit_line, fit_row
from dagster_project.results.intervals import draw

SLOPE = -1.2


def resampled(points: np.ndarray, error: float, draws: int = 4000, seed: int = 0) -> Cloud:
    """Returns points measured with an error, and draws that add such an error once more; shape (points, 2) in."""
    generator = np.random.default_rng(seed)
    measured = points + error * generator.standard_normal(points.shape)
    drawn = measured[..., None] + error * generator.standard_normal((*points.shape, draws))
    everything = np.concatenate([measured[..., None], drawn], axis=-1)
    return Cloud(everything[:, 0], everything[:, 1])


def on_a_line(n: int) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal(n)
    return np.stack([x, SLOPE * x], axis=1)


def test_errors_of_measurement_loosen_and_flatten_a_line_and_are_taken_out() -> None:
    cloud = resampled(on_a_line(4000), error=0.5)
    measured, true = fit_line(cloud), fit_disattenuated(cloud)
    # Variances of 1 and 1.44 gain 0.25 each.
    assert measured.slope[0] == pytest.approx(SLOPE / 1.25, abs=0.03)
    assert measured.r2[0] == pytest.approx(1.44**2 / (1.44 * 1.25 * 1.69), abs=0.03)
    assert true.slope[0] == pytest.approx(SLOPE, abs=0.04)
    assert true.r2[0] == pytest.approx(1, abs=0.03)


def test_points_without_error_stay_as_they_are() -> None:
    cloud = resampled(on_a_line(10), error=0.0, draws=5)
    measured, true = fit_line(cloud), fit_disattenuated(cloud)
    assert np.allclose(true.slope, measured.slope) and np.allclose(true.slope, SLOPE)
    assert np.allclose(true.r2, 1)


def test_the_true_line_lies_in_its_interval_more_often_than_in_that_of_the_measured_one() -> None:
    held = {"slope": 0, "slope_disattenuated": 0}
    for seed in range(40):
        row = fit_row(resampled(on_a_line(30), error=0.6, draws=200, seed=seed), draw(1, 500, 200, 0), 0.95)
        for name in held:
            held[name] += row[f"{name}_low"] <= SLOPE <= row[f"{name}_high"]
    assert held["slope"] < 25
    assert held["slope_disattenuated"] >= 36


def test_where_all_spread_may_be_error_there_is_no_true_line() -> None:
    cloud = resampled(np.zeros((6, 2)), error=1.0)
    shrunk = Cloud(cloud.x[:, :1] * 0.01 + (cloud.x - cloud.x[:, :1]), cloud.y)
    assert np.isnan(fit_disattenuated(shrunk).slope[0])


def test_without_draws_nothing_is_known_of_errors() -> None:
    points = on_a_line(5)
    row = fit_row(Cloud(points[:, :1], points[:, 1:]), draw(1, 5, 0, 0), 0.95)
    assert row["slope"] == pytest.approx(SLOPE)
    assert np.isnan([row["slope_disattenuated"], row["r2_disattenuated"], row["r2_disattenuated_low"]]).all()


def test_slope_intercept_and_scatter_have_intervals_that_hold_the_estimate() -> None:
    cloud = resampled(on_a_line(30) + np.array([0.0, 0.4]), error=0.2, draws=500)
    row = fit_row(cloud, draw(1, 500, 500, 0), 0.95)
    for name in ("slope", "intercept", "scatter", "r2"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"], name
    residual = cloud.y[:, 0] - row["intercept"] - row["slope"] * cloud.x[:, 0]
    assert row["scatter"] == pytest.approx(np.sqrt((residual**2).sum() / 28))
    assert row["slope_p"] < 1e-6


def test_r2_without_errors_is_none_where_it_would_be_one_or_more() -> None:
    """Points that lie nearer to their line than the errors of the draws could have put them."""
    points = on_a_line(12)
    drawn = points[..., None] + 0.3 * np.random.default_rng(0).standard_normal((12, 2, 500))
    everything = np.concatenate([points[..., None], drawn], axis=-1)
    row = fit_row(Cloud(everything[:, 0], everything[:, 1]), draw(1, 500, 500, 0), 0.95)
    assert np.isnan([row["r2_disattenuated"], row["r2_disattenuated_high"]]).all()
    assert row["r2_disattenuated_clipped"] and 0.5 < row["r2_disattenuated_low"] <= 1
