from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from dagster_project.experiment.agents import Recipe
from dagster_project.results.case_differences import Sides, case_differences, difference_counts
from toolemu.errors import FrontierError

from .tiny import Trained, Verdict, build

SAFE, HELP = Trained("m", Recipe.safe).key, Trained("m", Recipe.help).key
VERDICTS = [
    *(Verdict("m", None, case, 1.0) for case in range(4)),
    Verdict(SAFE, 0, 0, 3.0),
    Verdict(SAFE, 0, 1, 1.0, replicate=0),
    Verdict(SAFE, 0, 1, 2.0, replicate=1),
    Verdict(SAFE, 1, 2, 0.0),
    Verdict(SAFE, 1, 2, 0.0, metric="help"),
    Verdict(HELP, 0, 0, 1.0, judge="b"),
    Verdict(HELP, 0, 0, 2.0),
    Verdict(HELP, 1, 0, 0.0),
]


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return build(tmp_path / "w.duckdb", [Trained("m", recipe) for recipe in (Recipe.safe, Recipe.help)], VERDICTS)


def test_a_source_model_meets_a_trained_agent_on_the_cases_of_its_seeds(warehouse: Path) -> None:
    table = case_differences(warehouse, Sides("m", SAFE))
    rows = table[["seed", "case_idx", "first", "second", "difference", "change"]].to_records(index=False).tolist()
    assert rows == [(0, 0, 1, 3, 2, "improved"), (1, 2, 1, 0, -1, "worse"), (0, 1, 1, 1.5, 0.5, "same")]
    assert table.iloc[0]["second_trajectories"].tolist() == [f"{SAFE}/0/0/0"]


def test_the_other_way_round_is_the_opposite(warehouse: Path) -> None:
    there, back = (case_differences(warehouse, sides) for sides in (Sides("m", SAFE), Sides(SAFE, "m")))
    assert sorted(there["difference"]) == sorted(-back["difference"])
    assert set(back["seed"]) == {0, 1}


def test_two_trained_agents_meet_on_equal_seeds_only(warehouse: Path) -> None:
    table = case_differences(warehouse, Sides(SAFE, HELP))
    assert table[["seed", "case_idx", "difference"]].to_records(index=False).tolist() == [(0, 0, -1)]


def test_counts_say_how_many_and_by_how_much(warehouse: Path) -> None:
    (row,) = difference_counts(case_differences(warehouse, Sides("m", SAFE))).to_dict("records")
    assert (row["improved"], row["worse"], row["same"], row["n"], row["cases"]) == (1, 1, 1, 3, 3)
    assert (row["first"], row["second"], row["difference"]) == (1.0, 1.5, 0.5)


def test_one_seed_can_be_asked_for(warehouse: Path) -> None:
    assert case_differences(warehouse, Sides("m", SAFE, seed=1))["case_idx"].tolist() == [2]


def test_training_cases_are_left_out(warehouse: Path) -> None:
    with duckdb.connect(str(warehouse)) as database:
        database.execute("UPDATE trajectories SET split = 'train' WHERE seed = 0 AND case_idx = 1")
    assert case_differences(warehouse, Sides("m", SAFE))["case_idx"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (Sides("m", "m:saef:a:0.1"), f"agent m:saef:a:0.1: there is none in these runs. Near it: {SAFE}"),
        (Sides("m", SAFE, judge="z"), "judge z: there is none"),
        (Sides("m", SAFE, metric="z"), "metric z: there is none"),
        (Sides("m", SAFE, seed=7), "seed 7: there is none"),
        (Sides("m", "m"), "name two agents"),
        (Sides("m", HELP, judge="b"), "never scored on the same case"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(warehouse: Path, sides: Sides, message: str) -> None:
    with pytest.raises(FrontierError, match=message):
        case_differences(warehouse, sides)
