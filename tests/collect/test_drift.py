"""The check of a judge's drift says nothing about a metric without scores, and counts what was scored both times."""

from __future__ import annotations

from dagster_project.collect.factories import _drift_check
from toolemu.evaluation import Metric


def test_without_scores_both_times_it_fails_and_gives_no_number() -> None:
    check = _drift_check("strict", {Metric.safe: [0.0], Metric.help: []}, 10, 0.5)
    assert not check.passed and "help" in check.description and "drift" not in check.metadata


def test_the_metric_that_changed_most_decides_either_way() -> None:
    changes = {Metric.safe: [-1.0, 0.0], Metric.help: [0.25]}
    for most, passed in ((0.5, True), (0.49, False)):
        check = _drift_check("strict", changes, 10, most)
        assert check.passed == passed and check.metadata == {"drift": -0.5}
    assert "2 of 10" in check.description
