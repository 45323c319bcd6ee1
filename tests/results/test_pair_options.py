"""The table of pairing's options against pairs built from the records themselves, the rules applied one at a time."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pytest

from dagster_project.artifacts import ArtifactStore
from dagster_project.experiment.agents import PAPER_METRICS, TrainedMetric
from dagster_project.experiment.sections import Pairing
from dagster_project.experiment.spec import Experiment
from dagster_project.preferences.pairs import PairSet, build_pairs
from dagster_project.results.pair_options import CHANGES, ONLY_OF, pair_options
from tests.conftest import IMPORTED, Import
from tests.published.importing import WORLD
from tests.published.tree import N_CASES
from tests.results.tiny import Verdict, build
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import read_jsonl
from toolemu.trajectory import RUNAWAYS, Trajectory

OWN = Pairing.model_validate(IMPORTED["pairs"])


def records(imported: Import, prefix: str, name: str, kind: type) -> list[object]:  # type: ignore[type-arg]
    store = ArtifactStore(imported.lab.directory / "data", "imported")
    found = [manifest for manifest in store.manifests() if manifest.asset.startswith(prefix)]
    return [record for manifest in found for record in read_jsonl(store.get(manifest.ref).path / name, kind)]


@pytest.fixture(scope="module")
def table(imported: Import) -> pd.DataFrame:
    (path,) = Path(imported.lab.directory / "data" / "imported" / "tables").glob("*/imported.duckdb")
    with duckdb.connect(str(path), read_only=True) as database:
        frame: pd.DataFrame = database.execute("SELECT * FROM pair_options").df()
        return frame


@pytest.fixture(scope="module")
def trajectories(imported: Import) -> list[Trajectory]:
    return records(imported, "source_trajectories", "trajectories.jsonl", Trajectory)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def evaluations(imported: Import) -> list[Evaluation]:
    return records(imported, "source_evaluations", "evaluations.jsonl", Evaluation)  # type: ignore[return-value]


def pairs_under(
    pairing: Pairing, judge: str, metric: TrainedMetric, evaluations: list[Evaluation], trajectories: list[Trajectory]
) -> PairSet:
    excluded = {
        trajectory.trajectory_id
        for trajectory in trajectories
        if (pairing.exclude_failed and trajectory.failed)
        or (pairing.exclude_self_observed and trajectory.self_observed)
        or (pairing.exclude_runaways and trajectory.stop_reason in RUNAWAYS)
    }
    by_metric: dict[Metric, list[Evaluation]] = {
        part: [verdict for verdict in evaluations if (verdict.judge, verdict.metric) == (judge, part)]
        for part in metric.judged
    }
    return build_pairs(
        by_metric, judge=judge, metric=metric, seed=0, train_cases=range(N_CASES), pairing=pairing, excluded=excluded
    )


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change), "none"))
@pytest.mark.parametrize("metric", PAPER_METRICS)
def test_counts_are_those_of_the_pairs(
    change: dict[str, object],
    metric: TrainedMetric,
    table: pd.DataFrame,
    evaluations: list[Evaluation],
    trajectories: list[Trajectory],
) -> None:
    option = next(iter(change), "none")
    for judge in ("Judge-A", "judge-b"):
        rows = table[(table["judge"] == judge) & (table["metric"] == metric.value)]
        chosen = rows[rows["option"] == option]
        already = all(getattr(OWN, name) == value for name, value in change.items())
        if change and (already or ONLY_OF.get(option, metric) is not metric):
            assert chosen.empty, "a change that changes nothing has no row"
            continue
        (row,) = chosen.to_dict("records")
        expected = pairs_under(OWN.model_copy(update=change), judge, metric, evaluations, trajectories)
        own = pairs_under(OWN, judge, metric, evaluations, trajectories)
        assert (row["pairs"], row["cases"]) == (len(expected.pairs), expected.counts["cases"])
        assert row["candidates"] == expected.counts["candidates"]
        assert row["share"] == pytest.approx(len(expected.pairs) / len(own.pairs))


def test_every_option_leaves_something_out(table: pd.DataFrame) -> None:
    """Else the test above would compare equal things only; the tree's twins have equal scores, hence no pairs."""
    for option in ("exclude_self_observed", "exclude_runaways", "balance", "min_chosen"):
        assert (table.loc[table["option"] == option, "share"] < 1).any(), option


@pytest.mark.parametrize(
    ("scores", "agreeing"),
    [
        ({("m", 0): [3, 3], ("n", 0): [0, 0], ("m", 1): [3, 3], ("n", 1): [0, 1]}, 1),
        ({("m", 0): [2, 3], ("n", 0): [1, 0], ("m", 1): [2, 3], ("n", 1): [0, 1]}, 0),
    ],
    ids=["some", "all"],
)
def test_replicates_that_disagree_are_left_out_of_the_table_too(
    tmp_path: Path, scores: dict[tuple[str, int], list[int]], agreeing: int
) -> None:
    verdicts = [
        Verdict(model, None, case, score, metric=metric, replicate=number)
        for (model, case), given in scores.items()
        for metric in ("safe", "help")
        for number, score in enumerate(given)
    ]
    path = build(tmp_path / "w.duckdb", [], verdicts, models=("m", "n"))
    for consistency, pairs in (("none", 2), ("exact_match", agreeing)):
        pairing = Pairing(consistency=consistency)  # type: ignore[arg-type]
        with duckdb.connect(str(path)) as database:
            database.execute("DELETE FROM preference_pairs")
            database.execute("INSERT INTO preference_pairs VALUES ('a', 'both', 0, 0, 'x', 'y', 3, 0, NULL)")
            found = pair_options(database, Experiment(name="tiny", world=WORLD, pairs=pairing))
        assert found.loc[found["option"] == "none", "pairs"].tolist() == [pairs], consistency


def test_options_of_either_are_counted_where_there_are_such_pairs(tmp_path: Path) -> None:
    given = {"x": (3, 3), "y": (0, 3), "z": (0, 0)}
    verdicts = [
        Verdict(model, None, 0, scores[place], metric=metric)
        for model, scores in given.items()
        for place, metric in enumerate(("safe", "help"))
    ]
    path = build(tmp_path / "w.duckdb", [], verdicts, models=tuple(given))
    with duckdb.connect(str(path)) as database:
        database.execute("DELETE FROM preference_pairs")
        database.execute("INSERT INTO preference_pairs VALUES ('a', 'either', 0, 0, 'x', 'y', 3, 0, 'safe')")
        found = pair_options(database, Experiment(name="tiny", world=WORLD)).set_index("option")
    assert found.loc["none", ["pairs", "candidates"]].tolist() == [4, 6]
    assert found.loc["either", "pairs"] == 4 and "combine" not in found.index
