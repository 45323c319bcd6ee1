"""The one error model: against closed forms, and by how often it is right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dagster_project.results.intervals import (
    BOTH,
    CASES_ONLY,
    Draws,
    degrees_of_freedom,
    draw,
    fieller,
    percentiles,
    ratio_difference,
    surely_positive,
)

DRAWS = 4000


def grid(seeds: np.ndarray, cases: np.ndarray, noise: float = 0.0, number: int = 0) -> np.ndarray:
    """Scores that are a seed's effect plus a case's, shape (1, seeds, cases)."""
    generator = np.random.default_rng(number)
    return (seeds[:, None] + cases[None, :] + noise * generator.standard_normal((len(seeds), len(cases))))[None]


def test_variance_between_seeds_is_the_unbiased_one_and_its_interval_students() -> None:
    seeds = np.array([0.0, 1.0, 2.0])
    draws = draw(3, 40, DRAWS, 0)
    found = draws.summary(draws.means(grid(seeds, np.zeros(40)))[0], 0.95)
    expected = np.std(seeds, ddof=1) / np.sqrt(3)
    assert found.stderr == pytest.approx(expected, rel=0.03)
    assert found.df == pytest.approx(2, rel=0.01)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * expected, rel=0.06)
    assert found.p == pytest.approx(2 * stats.t.sf(1 / expected, 2), rel=0.1)
    assert draws.scope == BOTH


def test_variance_between_cases_is_that_of_the_mean_and_its_interval_nearly_normal() -> None:
    cases = np.random.default_rng(1).standard_normal(60)
    draws = draw(3, 60, DRAWS, 0)
    found = draws.summary(draws.means(grid(np.zeros(3), cases))[0], 0.95)
    assert found.stderr == pytest.approx(cases.std() / np.sqrt(60), rel=0.05)
    assert found.df > 40


def test_one_seed_generalises_to_cases_alone() -> None:
    draws = draw(1, 30, 200, 0)
    assert draws.scope == CASES_ONLY and (draws.seeds == 1).all()


def test_what_is_the_same_everywhere_has_no_spread_and_no_p_value() -> None:
    draws = draw(3, 20, 100, 0)
    found = draws.summary(draws.means(np.ones((1, 3, 20)))[0], 0.95)
    assert (found.low, found.high) == pytest.approx((1, 1))
    assert found.stderr == pytest.approx(0, abs=1e-12)


def test_without_draws_there_is_an_estimate_alone() -> None:
    draws = draw(3, 20, 0, 0)
    found = draws.summary(draws.means(np.ones((1, 3, 20)))[0], 0.95)
    assert found.estimate == 1 and np.isnan(found[1:]).all()


def test_percentiles_are_of_the_draws_there_are() -> None:
    drawn = np.array([*range(101), float("nan")], dtype=float)
    assert percentiles(drawn, 0.9) == pytest.approx((5, 95))
    assert np.isnan(percentiles(np.array([]), 0.9)).all()
    assert np.isnan(percentiles(np.array([float("nan")]), 0.9)).all()


def coverage(seed_sd: float, trials: int = 300) -> tuple[float, float]:
    """How often the interval and plain percentiles of a pigeonhole bootstrap hold 0, with half the cases a seed."""
    generator = np.random.default_rng(7)
    ours = theirs = 0
    for number in range(trials):
        cells = grid(seed_sd * generator.standard_normal(3), 0.5 * generator.standard_normal(60), 0.7, number)
        for seed in range(3):
            cells[0, seed, generator.permutation(60)[:30]] = np.nan
        draws = draw(3, 60, 300, number % 4)
        low, high = draws.interval(draws.means(cells)[0], 0.95)
        ours += low <= 0 <= high
        drawn = np.random.default_rng(number)
        weights = (
            drawn.multinomial(3, np.full(3, 1 / 3), 300)[:, :, None]
            * drawn.multinomial(60, np.full(60, 1 / 60), 300)[:, None]
        )
        known = ~np.isnan(cells[0])
        means = (weights[:, known] * cells[0][known]).sum(axis=1) / weights[:, known].sum(axis=1)
        low, high = percentiles(means, 0.95)
        theirs += low <= 0 <= high
    return ours / trials, theirs / trials


def test_the_interval_holds_the_truth_about_as_often_as_it_says_with_three_seeds() -> None:
    ours, theirs = coverage(0.3)
    assert 0.91 < ours < 0.985
    assert theirs < ours - 0.03, "resampling three seeds and taking percentiles does not"


@pytest.mark.parametrize("seeds", [3, 4, 5, 8])
def test_intervals_hold_whatever_part_of_the_variance_is_the_seeds(seeds: int) -> None:
    generator, trials, few, many = np.random.default_rng(0), 20_000, seeds - 1, 100
    for part in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        error = generator.standard_normal(trials)
        of_seeds = part * generator.chisquare(few, trials) / few
        of_cases = (1 - part) * generator.chisquare(many, trials) / many
        df = degrees_of_freedom(of_seeds, of_cases, seeds, many + 1)  # type: ignore[arg-type]
        held = np.abs(error) <= stats.t.ppf(0.975, df) * np.sqrt(of_seeds + of_cases)
        assert 0.935 < held.mean() < 0.965, part


def test_how_far_small_p_values_of_three_seeds_are_too_small() -> None:
    """docs/warehouse.md has these numbers."""
    generator, trials = np.random.default_rng(1), 400_000
    for part, least in ((0.1, 0.0009), (0.9, 0.0096)):
        of_seeds = part * generator.chisquare(2, trials) / 2
        of_cases = (1 - part) * generator.chisquare(100, trials) / 100
        t = np.abs(generator.standard_normal(trials)) / np.sqrt(of_seeds + of_cases)
        p = 2 * stats.t.sf(t, degrees_of_freedom(of_seeds, of_cases, 3, 101))  # type: ignore[arg-type]
        assert (p < 0.001).mean() == pytest.approx(least, rel=0.2)


def noise(n: int, spread: float, mean: float, number: int) -> np.ndarray:
    drawn = np.random.default_rng(number).standard_normal(n)
    return np.concatenate([[mean], mean + spread * (drawn - drawn.mean()) / drawn.std()])


def test_fieller_by_hand_and_none_where_the_denominator_may_be_0() -> None:
    draws = Draws(np.ones((DRAWS + 1, 1)), np.ones((DRAWS + 1, 1000)))
    top, bottom = noise(DRAWS, 0.1, 1.0, 0), noise(DRAWS, 0.1, 2.0, 1)
    low, high = fieller(top, bottom, draws, 0.95)
    for ratio in (low, high):  # at the bounds the difference is as many standard errors from 0 as the quantile says
        difference = top - ratio * bottom
        assert abs(difference[0]) / difference[1:].std(ddof=1) == pytest.approx(1.96, rel=0.01)
    assert low < 0.5 < high
    assert np.isnan(fieller(top, noise(DRAWS, 2.0, 2.0, 2), draws, 0.95)).all()


def test_a_ratio_has_an_interval_exactly_where_its_denominator_is_clearly_above_0() -> None:
    draws = draw(3, 40, 500, 0)
    for mean in (0.1, 0.2, 0.3, 0.4):
        cells = np.concatenate(
            [grid(np.array([0.5, 0.0, 1.0]), np.zeros(40), 0.5, 0), grid(np.array([mean] * 3), np.zeros(40), 1.5, 1)]
        )
        top, bottom = draws.means(cells)
        bounds = fieller(top, bottom, draws, 0.95)
        assert np.isfinite(bounds).all() == surely_positive(draws.summary(bottom, 0.95), 0.95)


def test_the_test_of_two_ratios_agrees_with_their_interval() -> None:
    draws = draw(3, 50, 500, 0)
    one, other = noise(500, 0.05, 0.9, 0), noise(500, 0.05, 0.5, 1)
    gain = noise(500, 0.05, 1.0, 2)
    found = ratio_difference((one, gain), (other, gain), draws, 0.95)
    assert found.estimate == pytest.approx(0.4) and found.low > 0 and found.p < 0.05
    same = ratio_difference((one, gain), (one, gain), draws, 0.95)
    assert same.estimate == 0 and not same.p < 0.05
