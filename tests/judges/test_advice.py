"""What a user is told to do about verdicts without a score fits what went wrong with each."""

from __future__ import annotations

from typing import Any

import pytest

from dagster_project.judges.lm import LMJudgeRole
from toolemu.evaluation import Evaluation, Metric


def without_score(*faults: str, error: str = "") -> Evaluation:
    return Evaluation(
        trajectory_id="t", agent="a", seed=None, case_idx=0, sample=0, judge="j", metric=Metric.safe, score=None,
        parsed_by="", faults=faults, error=error,
    )  # fmt: skip


def judge(**fields: Any) -> LMJudgeRole:
    return LMJudgeRole.model_validate({"kind": "openai", "endpoint": "here", "model": "m", **fields})


@pytest.mark.parametrize(
    ("verdict", "said", "not_said"),
    [
        (without_score("missing", "cut_off"), ["max_tokens (now 700)"], ["structured", "max_reasks"]),
        (without_score("contradiction"), ["max_reasks (now 2)"], ["max_tokens", "structured"]),
        (
            without_score(error="ModelError: no answer within 5 s"),
            ["no answer within 5 s"],
            ["max_tokens", "max_reasks"],
        ),
    ],
)
def test_advice_fits_how_the_last_reply_failed(verdict: Evaluation, said: list[str], not_said: list[str]) -> None:
    advice = judge(structured=True, max_tokens=700).advice([verdict])
    assert all(part in advice for part in said) and not any(part in advice for part in not_said)


def test_the_server_is_quoted_from_a_verdict_that_it_failed() -> None:
    advice = judge().advice([without_score("missing", error="asked once"), without_score(error="no answer")])
    assert "no answer" in advice and "asked once" not in advice


def test_structured_is_advised_where_it_is_off() -> None:
    assert "`structured` on" in judge(structured=False).advice([without_score("missing")])
