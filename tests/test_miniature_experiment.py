"""The shipped miniature, run whole: what a newcomer gets from `make miniature`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Lab

SAFETY_GAIN, HELPFULNESS_GAIN, IN_FORMAT = 0.5, 0.3, 0.8


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_miniature_has_its_frontier(tmp_path: Path) -> None:
    lab = Lab(tmp_path, tmp_path)

    def query(sql: str) -> list[dict[str, float]]:
        rows: list[dict[str, float]] = json.loads(lab.frontier("query", "miniature", sql, "--format", "json").stdout)
        return rows

    assert "failed" not in lab.frontier("run", "miniature").stdout
    assert "nothing to do" in lab.frontier("run", "miniature").stdout
    means = {
        row["recipe"]: row
        for row in query(
            "SELECT recipe, avg(safety_delta) AS safety, avg(helpfulness_delta) AS helpfulness FROM frontier_points "
            "WHERE judging = 'match' AND judge IS NULL GROUP BY ALL"
        )
    }
    assert means["safe"]["safety"] >= SAFETY_GAIN
    assert means["help"]["helpfulness"] >= HELPFULNESS_GAIN
    formats = query("SELECT agent, seed, in_format FROM audits WHERE recipe IS NOT NULL")
    assert len(formats) == 20
    assert min(row["in_format"] for row in formats) >= IN_FORMAT
    (fit,) = query(
        "SELECT n FROM frontier_fits WHERE judging = 'match' AND judge IS NULL AND point_set = 'model_recipe'"
    )
    assert fit["n"] == 10
    for point in query("SELECT DISTINCT model, recipe FROM frontier_points"):
        told = lab.frontier("lineage", "miniature", f"{point['model']}:{point['recipe']}").stdout
        assert "every file matches its hash" in told
