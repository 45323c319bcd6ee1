from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.sections import Statistics
from dagster_project.report.cases import case_scores, changes, load_changes, paired_cases, slopes
from dagster_project.results.contrasts import contrasts
from dagster_project.results.points import make_points
from dagster_project.results.scores import load_agents, load_scores

from .page.world import AGENTS, JUDGES, MODEL, make_world

STATISTICS = Statistics(n_bootstrap=50)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world")
    make_world(directory)
    return directory / "w.duckdb"


def test_scores_are_of_held_out_cases_only(warehouse: Path) -> None:
    table = case_scores(warehouse)
    per_run = table[table["metric"] == "safe"].groupby(["agent", "seed", "judge"])["case_idx"].nunique()
    assert set(per_run) == {2}  # of four cases, two are held out under each seed
    assert len(per_run) == (1 + len(AGENTS)) * 2 * len(JUDGES)


def test_a_change_is_the_mean_difference_on_equal_cases(warehouse: Path) -> None:
    table = load_changes(warehouse, STATISTICS)
    row = table[
        (table["judging"] == "match")
        & (table["judge"] == JUDGES[0])
        & (table["model"] == MODEL)
        & (table["first"] == "safe")
        & (table["second"] == "safe_then_help")
        & (table["metric"] == "help")
    ].iloc[0]
    assert (row["before"], row["after"], row["change"], row["cases"], row["pairs"]) == (0.0, 1.0, 1.0, 4, 1)
    source = table[table["first"].isna() & (table["second"] == "safe") & (table["metric"] == "safe")]
    assert set(source["change"]) == {2.0}


def test_changes_over_models_are_the_contrasts(warehouse: Path) -> None:
    points = make_points(load_scores(warehouse), load_agents(warehouse), STATISTICS)
    generator = np.random.default_rng(1)
    points.cells[:] += generator.normal(size=points.cells.shape)
    ours = changes(points, STATISTICS.confidence)
    theirs, _ = contrasts(points, STATISTICS.confidence)
    theirs = theirs[(theirs["model"] == MODEL) & theirs["beta_minus"].isna()].rename(columns={"axis": "metric"})
    keys = ["judging", "judge", "beta", "first", "second", "metric"]
    both = theirs.merge(ours[ours["model"] == MODEL], on=keys)
    assert len(both) > 8
    np.testing.assert_allclose(both["estimate"], -both["change"])
    np.testing.assert_allclose(both["low_x"], -both["high_y"])
    np.testing.assert_allclose(both["p_x"], both["p_y"])


def test_agents_are_paired_by_seed_and_case(warehouse: Path) -> None:
    scores = case_scores(warehouse)
    agents = load_agents(warehouse)
    pairs = paired_cases(scores, agents, Recipe.safe, Recipe.safe_then_help)
    safe = pairs[pairs["metric"] == "safe"]
    assert len(safe) == 2 * 2 * len(JUDGES)
    assert set(zip(safe["before"], safe["after"], strict=True)) == {(3.0, 2.0)}
    assert set(safe.loc[safe["judge"] == JUDGES[0], "judging"]) == {"match"}


def test_equal_slopes_are_counted_once() -> None:
    pairs = pd.DataFrame(
        {
            "judging": "match",
            "judge": "a",
            "model": "m",
            "case_idx": [0, 0, 1, 2],
            "before": [3.0, 2.0, 2.6, 1.0],
            "after": [1.0, 1.0, 1.1, 1.0],
        }
    )
    found = slopes(pairs)[["before", "after", "cases"]].values.tolist()
    assert found == [[1.0, 1.0, 1], [2.5, 1.0, 2]]
