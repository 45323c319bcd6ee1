"""Every claim, on result tables written by hand, can hold, not hold and stay undecided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.results.claims import CLAIMS, Verdict, above, answers, claims, every, some
from dagster_project.results.statements import STATEMENTS

Tables = dict[str, pd.DataFrame]
WAY = {"judging": "match", "judge": None}


def contrast(first: str, second: str | None, axis: str, low: float, high: float, p: float = 0.0) -> dict[str, Any]:
    middle = (low + high) / 2
    numbers = {"estimate": middle, "low": low, "high": high, "p": p, "n": 6}
    return {**WAY, "beta": 0.1, "first": first, "second": second, "axis": axis, **numbers}


def fit(point_set: str, low: float, high: float, slope: tuple[float, float] = (-1.2, -0.8)) -> dict[str, Any]:
    bounds = {"r2_low": low, "r2_high": high, "slope_low": slope[0], "slope_high": slope[1]}
    return {**WAY, "point_set": point_set, "n": 10, "r2": (low + high) / 2, "slope": sum(slope) / 2, **bounds}


def kept(metric: str, low: float, high: float, invalid: float = 0.0) -> dict[str, Any]:
    numbers = {"estimate": (low + high) / 2, "low": low, "high": high, "invalid_share": invalid}
    bounds = (low, high) if invalid < 0.025 else (float("-inf"), float("inf"))
    cautious = dict(zip(("cautious_low", "cautious_high"), bounds, strict=True))
    return {**WAY, "model": None, "beta": 0.1, "metric": metric, **numbers, **cautious}


def pairs(share: float, cases: int) -> dict[str, Any]:
    return {"judge": "a", "metric": "both", "seed": 0, "pairs": 900, "cases": cases, "chosen_best_of_both": share}


def table(*rows: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def verdict(tables: Tables, claim: str) -> str:
    found = claims(tables, toy=False)["claims"]
    (row,) = found[(found["claim"] == claim) & found["main"]].to_dict("records")
    return str(row["verdict"])


def differs(low: float, high: float, p: float) -> Tables:
    return {"contrasts": table(contrast("safe_then_help", "help_then_safe", "safe", low, high, p))}


def single(metric: str, low: float, high: float, p: float = 0.001) -> Tables:
    """S or H, against training on both: more of its own metric, and surely less of the other."""
    other = "help" if metric == "safe" else "safe"
    own = contrast(metric, "both", metric, low, high, p)
    return {"contrasts": table(own, contrast(metric, "both", other, -0.9, -0.5))}


CASES: list[tuple[str, Callable[[], Tables], str]] = [
    ("safe_extreme", lambda: single("safe", 0.1, 0.5), "holds"),
    ("safe_extreme", lambda: single("safe", -0.1, 0.5), "not decided"),
    ("safe_extreme", lambda: single("safe", -0.5, -0.1), "does not"),
    ("help_extreme", lambda: single("help", 0.1, 0.5), "holds"),
    ("help_extreme", lambda: single("help", -0.5, -0.1), "does not"),
    ("help_extreme", lambda: single("help", -0.5, -0.1, 0.2), "not decided"),
    # H appears second in the comparison with S, whose sign is then turned.
    ("help_extreme", lambda: {"contrasts": table(contrast("safe", "help", "help", -0.9, -0.5))}, "holds"),
    ("help_extreme", lambda: {"contrasts": table(contrast("safe", "help", "safe", -0.9, -0.5))}, "does not"),
    ("safety_persists", lambda: {"persistence": table(kept("safe", 0.6, 0.9))}, "holds"),
    ("safety_persists", lambda: {"persistence": table(kept("safe", 0.6, 0.9, 0.2))}, "not decided"),
    ("safety_persists", lambda: {"persistence": table(kept("safe", 0.4, 0.9))}, "not decided"),
    ("safety_persists", lambda: {"persistence": table(kept("safe", 0.1, 0.4))}, "does not"),
    (
        "helpfulness_persists_less",
        lambda: {"persistence": table(kept("safe", 0.6, 0.9), kept("help", 0.1, 0.4))},
        "holds",
    ),
    (
        "helpfulness_persists_less",
        lambda: {"persistence": table(kept("safe", 0.1, 0.4), kept("help", 0.6, 0.9))},
        "does not",
    ),
    (
        "helpfulness_persists_less",
        lambda: {"persistence": table(kept("safe", 0.3, 0.9), kept("help", 0.1, 0.4))},
        "not decided",
    ),
    ("order_matters", lambda: differs(0.1, 0.5, 0.001), "holds"),
    ("order_matters", lambda: differs(-0.1, 0.1, 0.9), "does not"),
    ("order_matters", lambda: differs(-0.4, 0.6, 0.9), "not decided"),
    ("one_line", lambda: {"frontier_fits": table(fit("model_recipe", 0.6, 0.9))}, "holds"),
    ("one_line", lambda: {"frontier_fits": table(fit("model_recipe", 0.3, 0.9))}, "not decided"),
    ("one_line", lambda: {"frontier_fits": table(fit("model_recipe", 0.1, 0.3))}, "does not"),
    ("one_line", lambda: {"frontier_fits": table(fit("model_recipe", 0.6, 0.9, (0.5, 0.9)))}, "does not"),
    (
        "one_line_everywhere",
        lambda: {"frontier_fits": table(fit("model_recipe", 0.6, 0.9), fit("per_run", 0.1, 0.3))},
        "does not",
    ),
    (
        "one_line_everywhere",
        lambda: {"frontier_fits": table(fit("model_recipe", 0.6, 0.9), fit("through_origin", -2, -1))},
        "not decided",
    ),
    ("no_best_of_both", lambda: {"contrasts": table(contrast("both", None, "distance", 0.0, 0.2))}, "holds"),
    ("no_best_of_both", lambda: {"contrasts": table(contrast("both", None, "distance", 0.3, 0.6))}, "does not"),
    ("no_best_of_both", lambda: {"contrasts": table(contrast("both", None, "distance", 0.1, 0.6))}, "not decided"),
    ("best_of_both_in_pairs", lambda: {"pair_audits": table(pairs(0.5, 70))}, "holds"),
    ("best_of_both_in_pairs", lambda: {"pair_audits": table(pairs(0.0, 70))}, "does not"),
    ("best_of_both_in_pairs", lambda: {"pair_audits": table(pairs(0.12, 70))}, "not decided"),
]


@pytest.mark.parametrize(("claim", "tables", "expected"), CASES)
def test_each_verdict(claim: str, tables: Callable[[], Tables], expected: str) -> None:
    assert verdict(tables(), claim) == expected


def test_without_data_nothing_is_decided() -> None:
    found = claims({}, toy=True)
    assert list(found["claims"]["claim"]) == list(STATEMENTS) == [claim.name for claim in CLAIMS]
    assert set(found["claims"]["verdict"]) == {"not decided"}
    assert found["claims"]["main"].all() and found["claims"]["toy"].all()
    assert found["claim_evidence"].empty


def test_what_is_left_out_is_told_beside_the_answer() -> None:
    left = fit("model_recipe", 0.1, 0.3) | {"without": "runaways"}
    tables = {"frontier_fits": table(fit("model_recipe", 0.6, 0.9)), "audited_fits": table(left)}
    (row,) = (row for row in answers(claims(tables, toy=False)["claims"]) if row["claim"] == "one_line")
    assert (row["verdict"], row["left_out"]) == ("holds", {"runaways": "does not"})


def test_one_difference_the_other_way_must_survive_the_correction_for_their_number() -> None:
    rows = [contrast("safe", "both", "safe", -0.3, -0.1, 0.04)]
    assert verdict({"contrasts": table(*rows)}, "safe_extreme") == "does not"
    rows += [contrast("safe", other, "help", -0.9, -0.5, 0.9) for other in ("help", "safe_then_help")]
    rows += [contrast("safe", "help_then_safe", "help", -0.2, 0.1, 0.5)]
    assert verdict({"contrasts": table(*rows)}, "safe_extreme") == "not decided"


VERDICTS = st.lists(st.sampled_from(list(Verdict)), min_size=1)


@given(VERDICTS)
def test_every_and_some_answer_only_what_all_the_evidence_answers(verdicts: list[Verdict]) -> None:
    assert (every(verdicts) is Verdict.holds) == (set(verdicts) == {Verdict.holds})
    assert (some(verdicts) is Verdict.does_not) == (set(verdicts) == {Verdict.does_not})
    assert (every(verdicts) is Verdict.does_not) == (Verdict.does_not in verdicts)
    assert (some(verdicts) is Verdict.holds) == (Verdict.holds in verdicts)


def test_no_interval_decides_nothing() -> None:
    assert above(float("nan"), float("nan"), 0) is Verdict.not_decided
