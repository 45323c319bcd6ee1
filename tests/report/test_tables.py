from __future__ import annotations

import numpy as np

from dagster_project.report.tables import result_rows

from .test_figures import JUDGINGS, make_points


def test_rows_are_in_the_order_of_the_paper_and_averaged_over_judges() -> None:
    points = make_points(JUDGINGS, betas=(0.1, 0.05)).sample(frac=1, random_state=0)
    rows = result_rows(points)
    assert len(rows) == 3 * 2 * 5 * 2  # half of the points: the others are one judge's
    assert list(dict.fromkeys(rows["judging"])) == list(JUDGINGS)
    first = rows[(rows["judging"] == "match") & (rows["model"] == "m")]
    assert list(first["trained on"]) == [label for label in ("S", "H", "S&H", "S→H", "H→S") for _ in range(2)]
    assert list(first["beta"]) == ["0.05", "0.1"] * 5


def test_deltas_have_signs_and_intervals() -> None:
    points = make_points().iloc[:1].assign(
        cells=72, safety=2.0, safety_delta=0.5, safety_delta_low=-0.25, safety_delta_high=1.0,
        helpfulness_delta=-0.5, helpfulness_delta_low=-1.0, helpfulness_delta_high=0.0,
    )  # fmt: skip
    row = result_rows(points).iloc[0]
    assert (row["safety"], row["n"]) == ("2.00", "72")
    assert row["Δ safety"] == "+0.50 [-0.25, +1.00]"
    assert row["Δ helpfulness"] == "-0.50 [-1.00, +0.00]"


def test_without_a_bootstrap_there_is_no_interval() -> None:
    points = make_points().iloc[:1].assign(safety_delta=0.5, safety_delta_low=np.nan, safety_delta_high=np.nan)
    assert result_rows(points).iloc[0]["Δ safety"] == "+0.50"


def test_no_points_are_an_empty_table() -> None:
    rows = result_rows(make_points().iloc[:0])
    assert rows.empty
    assert "Δ safety" in rows.columns
