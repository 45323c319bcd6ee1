"""What the summary says about trajectories that say nothing about their agent."""

from __future__ import annotations

import pandas as pd
import pytest

from dagster_project.report.page.summary import _failed


@pytest.mark.parametrize(
    ("failed", "scored", "said"),
    [
        (0, 0, None),
        (3, 0, "They have no scores."),
        (3, 2, "2 of them are scored all the same"),
    ],
)
def test_it_says_whether_they_have_scores(failed: int, scored: int, said: str | None) -> None:
    sizes = pd.DataFrame([{"trajectories": 1000, "failed": failed, "failed_scored": scored}])
    sentences = list(_failed(sizes))
    assert len(sentences) == (said is not None)
    assert said is None or (said in sentences[0] and "3 trajectories of 1,000" in sentences[0])
