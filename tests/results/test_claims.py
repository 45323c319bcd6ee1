"""Every claim, on result tables written by hand, can hold, not hold and stay undecided, by each judge and by all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.results.claims import CLAIMS, answers, claims, combined, every, some
from dagster_project.results.evidence import Verdict, above
from dagster_project.results.statements import MIN_CASES, MIN_CELLS, STATEMENTS

Tables = dict[str, pd.DataFrame]
NAN = float("nan")
WAY: dict[str, Any] = {"judging": "match", "judge": "a", "model": None, "cells": 500, "cases": 100}


def contrast(first: str, second: str | None, axis: str, low: float, high: float, p: float = 0.001) -> dict[str, Any]:
    numbers = {"estimate": (low + high) / 2, "low": low, "high": high, "p": p, "n": 6}
    return {**WAY, "beta": 0.1, "beta_minus": NAN, "first": first, "second": second, "axis": axis, **numbers}


def between_betas(low: float, high: float, p: float) -> dict[str, Any]:
    return {**contrast("safe_then_help", "help_then_safe", "safe", low, high, p), "beta": 0.05, "beta_minus": 0.1}


def fit(
    point_set: str = "model_recipe",
    slope: tuple[float, float] = (-1.2, -0.8),
    intercept: tuple[float, float] = (-0.1, 0.1),
    scatter: tuple[float, float] = (0.1, 0.2),
) -> dict[str, Any]:
    row: dict[str, Any] = {**WAY, "point_set": point_set, "n": 10, "slope_p": 0.001 if slope[0] * slope[1] > 0 else 0.9}
    for name, (low, high) in (("slope", slope), ("intercept", intercept), ("scatter", scatter)):
        kinds = (name, f"{name}_disattenuated") if name != "scatter" else (name,)
        for kind in kinds:
            row |= {kind: (low + high) / 2, f"{kind}_low": low, f"{kind}_high": high}
    return row


def kept(low: float, high: float, verdict: str = "gain") -> dict[str, Any]:
    gain = {"gain": 1.0, "gain_low": 0.5, "gain_high": 1.5, "gain_p": 0.001, "gain_verdict": verdict}
    return {
        **WAY,
        "beta": 0.1,
        "metric": "safe",
        **gain,
        "share": (low + high) / 2,
        "share_low": low,
        "share_high": high,
    }


def less(quantity: str, low: float, high: float, verdict: str = "gain") -> dict[str, Any]:
    numbers = {"estimate": (low + high) / 2, "low": low, "high": high, "p": 0.001, "verdict": verdict}
    return {**WAY, "beta": 0.1, "quantity": quantity, **numbers}


def table(*rows: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def verdict(tables: Tables, claim: str) -> str:
    found = claims(tables, toy=False)["claims"]
    (row,) = found[(found["claim"] == claim) & found["main"]].to_dict("records")
    return str(row["verdict"])


def order(low: float, high: float, p: float) -> Tables:
    return {"contrasts": table(contrast("safe_then_help", "help_then_safe", "safe", low, high, p))}


def single(metric: str, low: float, high: float, p: float = 0.001) -> Tables:
    """S or H, against training on both: more of its own metric, and surely less of the other."""
    other = "help" if metric == "safe" else "safe"
    return {
        "contrasts": table(contrast(metric, "both", metric, low, high, p), contrast(metric, "both", other, -0.9, -0.5))
    }


def shares(share: dict[str, Any], points: dict[str, Any]) -> Tables:
    return {"persistence_differences": table(share, points)}


def line(**changes: tuple[float, float]) -> Tables:
    return {"frontier_fits": table(fit(**changes))}  # type: ignore[arg-type]


def best(low: float, high: float, p: float = 0.001) -> Tables:
    """S&H minus S; S&H minus H is surely above 0."""
    rows = (
        contrast("safe", "both", "best_of_both", -high, -low, p),
        contrast("help", "both", "best_of_both", -0.2, -0.1),
    )
    return {"contrasts": table(*rows)}


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
    ("safety_persists", lambda: {"persistence": table(kept(0.6, 0.9))}, "holds"),
    ("safety_persists", lambda: {"persistence": table(kept(0.4, 0.9))}, "not decided"),
    ("safety_persists", lambda: {"persistence": table(kept(-0.4, 0.1))}, "does not"),
    ("safety_persists", lambda: {"persistence": table(kept(NAN, NAN, "no gain"))}, "not decided"),
    ("helpfulness_persists_less", lambda: shares(less("share", 0.1, 0.4), less("points", -1, -0.5)), "holds"),
    ("helpfulness_persists_less", lambda: shares(less("share", -0.4, -0.1), less("points", 0.5, 1)), "does not"),
    ("helpfulness_persists_less", lambda: shares(less("share", -0.1, 0.4), less("points", 0.5, 1)), "not decided"),
    (
        "helpfulness_persists_less",
        lambda: shares(less("share", NAN, NAN, "no gain"), less("points", 0.5, 1)),
        "holds",
    ),
    ("order_matters", lambda: order(0.1, 0.5, 0.001), "holds"),
    ("order_matters", lambda: order(-0.1, 0.1, 0.9), "does not"),
    ("order_matters", lambda: order(-0.4, 0.6, 0.9), "not decided"),
    (
        "order_matters",
        lambda: {"contrasts": pd.concat([order(-0.1, 0.1, 0.9)["contrasts"], table(between_betas(0.1, 0.4, 0.001))])},
        "holds",
    ),
    ("one_line", lambda: line(), "holds"),
    ("one_line", lambda: line(intercept=(0.2, 0.6)), "does not"),
    ("one_line", lambda: line(intercept=(-0.1, 0.6)), "not decided"),
    ("one_line", lambda: line(slope=(0.5, 0.9)), "does not"),
    ("one_line", lambda: line(slope=(-0.5, 0.9)), "not decided"),
    ("one_line", lambda: line(scatter=(0.3, 0.6)), "does not"),
    ("one_line", lambda: line(scatter=(0.2, 0.6)), "not decided"),
    ("one_line_everywhere", lambda: {"frontier_fits": table(fit(), fit("per_run"))}, "holds"),
    ("one_line_everywhere", lambda: {"frontier_fits": table(fit(), fit("per_run", (0.5, 0.9)))}, "does not"),
    ("one_line_everywhere", lambda: {"frontier_fits": table(fit(), fit("per_run", (-0.5, 0.9)))}, "not decided"),
    ("one_line_everywhere", lambda: {"frontier_fits": table(fit(), fit("through_origin", (1, 2)))}, "no data"),
    ("no_best_of_both", lambda: {"contrasts": table(contrast("both", None, "distance", 0.0, 0.2))}, "holds"),
    ("no_best_of_both", lambda: {"contrasts": table(contrast("both", None, "distance", 0.3, 0.6))}, "does not"),
    ("no_best_of_both", lambda: {"contrasts": table(contrast("both", None, "distance", 0.1, 0.6))}, "not decided"),
    ("best_of_both_more_often", lambda: best(0.02, 0.2), "holds"),
    ("best_of_both_more_often", lambda: best(-0.02, 0.2), "not decided"),
    ("best_of_both_more_often", lambda: best(-0.2, -0.02), "does not"),
    ("best_of_both_more_often", lambda: best(-0.2, -0.02, 0.2), "not decided"),
]


@pytest.mark.parametrize(("claim", "tables", "expected"), CASES)
def test_each_verdict(claim: str, tables: Callable[[], Tables], expected: str) -> None:
    assert verdict(tables(), claim) == expected


@pytest.mark.parametrize("scarce", [{"cells": MIN_CELLS - 1}, {"cases": MIN_CASES - 1}])
def test_a_number_from_too_little_data_decides_nothing(scarce: dict[str, int]) -> None:
    found = {"persistence": table({**kept(0.6, 0.9), **scarce})}
    assert verdict(found, "safety_persists") == "too little data"
    assert verdict(found, "order_matters") == "no data"


def test_without_tables_there_is_no_data() -> None:
    found = claims({}, toy=True)
    assert list(found["claims"]["claim"]) == list(STATEMENTS) == [claim.name for claim in CLAIMS]
    assert set(found["claims"]["verdict"]) == {"no data"}
    assert found["claims"]["main"].all() and found["claims"]["toy"].all()
    assert found["claim_evidence"].empty


def by_judges(one: tuple[float, float], other: tuple[float, float], average: tuple[float, float]) -> Tables:
    rows = [{**kept(*bounds), "judge": judge} for judge, bounds in (("a", one), ("b", other), (None, average))]
    difference = {
        "judging": "match", "judge_a": "a", "judge_b": "b", "found_in": "persistence", "model": None, "beta": 0.1,
        "subject": "safe", "quantity": "share", "p": 0.01,
    }  # fmt: skip
    return {"persistence": table(*rows), "persistence_disagreements": table(difference)}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0.6, 0.9), (0.7, 0.8), "holds"),
        ((0.1, 0.4), (0.2, 0.4), "does not"),
        ((0.6, 0.9), (0.1, 0.4), "judges disagree"),
        ((0.6, 0.9), (0.1, 0.9), "not decided"),
    ],
)
def test_judges_are_heard_apart_and_their_average_decides_nothing(
    one: tuple[float, float], other: tuple[float, float], expected: str
) -> None:
    found = claims(by_judges(one, other, (0.6, 0.9)), toy=False)["claims"]
    (row,) = found[(found["claim"] == "safety_persists") & found["main"]].to_dict("records")
    assert (row["verdict"], row["verdict_of_average"]) == (expected, "holds")
    assert row["judges_differ_p"] == 0.01 and row["judges_differ"]
    (answer,) = (row for row in answers(found) if row["claim"] == "safety_persists")
    assert set(answer["by_judge"]) == {"a", "b"}


def test_there_is_a_verdict_for_every_source_model() -> None:
    rows = [kept(0.6, 0.9), {**kept(0.6, 0.9), "model": "m"}, {**kept(0.1, 0.3), "model": "n"}]
    (row,) = (row for row in answers(claims({"persistence": table(*rows)}, toy=False)["claims"]) if row["evidence"])
    assert (row["verdict"], row["by_model"]) == ("holds", {"m": "holds", "n": "does not"})


def test_what_is_left_out_is_told_beside_the_answer_and_marked_as_a_selection() -> None:
    left = {**fit(slope=(0.1, 0.3)), "without": "runaways"}
    tables = {"frontier_fits": table(fit()), "audited_fits": table(left)}
    found = claims(tables, toy=False)["claims"]
    (row,) = (row for row in answers(found) if row["claim"] == "one_line")
    assert (row["verdict"], row["left_out"]) == ("holds", {"runaways": "does not"})
    assert (found["selected_on_outcome"] == found["without"].notna()).all()


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
    assert combined(verdicts) is Verdict.holds or set(verdicts) != {Verdict.holds}


def test_no_interval_decides_nothing() -> None:
    assert above(NAN, NAN, 0) is Verdict.not_decided
