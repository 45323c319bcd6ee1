"""The paper's findings, each held against the result tables: it holds, it does not, or this data does not decide.

The same rules for every experiment; statements.py has them in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.results.comparisons import holm
from dagster_project.results.contrasts import DISTANCE
from dagster_project.results.statements import HALF, MARGIN, PAIRS, STATEMENTS

CONFIDENCE = 0.95
MAIN_SET, ORIGIN = "model_recipe", "through_origin"

Tables = Mapping[str, pd.DataFrame]


class Verdict(StrEnum):
    """What the data says of a claim."""

    holds = "holds"
    does_not = "does not"
    not_decided = "not decided"


class Scope(NamedTuple):
    """What a claim is held against: who judged (`judge` None: their average), and what is left out (None: nothing)."""

    judging: str | None
    judge: str | None
    without: str | None


class Evidence(NamedTuple):
    """One number with its interval, what it would have to be, and what it says for itself."""

    subject: str
    quantity: str
    estimate: float
    low: float
    high: float
    expected: str
    verdict: Verdict


class Claim(NamedTuple):
    """A finding of the paper.

    Attributes:
        name: Its name in tables and checks.
        gather: Returns the evidence in the tables of one scope.
        combine: Returns the claim's verdict from the evidence's, of which there is some.
        every_scope: Whether there are tables for it by judging, judge and with trajectories left out.
    """

    name: str
    gather: Callable[[Tables], list[Evidence]]
    combine: Callable[[list[Verdict]], Verdict]
    every_scope: bool = True


CLAIM_COLUMNS = ["claim", "judging", "judge", "without", "verdict", "statement", "rule", "evidence", "main", "toy"]
EVIDENCE_COLUMNS = ["claim", "judging", "judge", "without", *Evidence._fields]
AUDITED = {"contrasts": "audited_contrasts", "persistence": "audited_persistence", "frontier_fits": "audited_fits"}
"""The tables that claims are decided by, and what the audits leave of them; `pair_audits` comes to these."""


def claims(tables: Tables, *, toy: bool) -> dict[str, pd.DataFrame]:
    """Returns `claims`, a row for every claim and scope, and `claim_evidence`, the numbers behind each.

    `main` marks a claim's row that answers it: judges averaged, nothing left out, judged as the pairs were where that
    was done.

    Args:
        tables: The result tables, by name; any may be missing.
        toy: Marks the rows as being about a toy world.
    """
    verdicts: list[tuple[Any, ...]] = []
    evidence: list[tuple[Any, ...]] = []
    scopes = _scopes(tables)
    for claim in CLAIMS:
        for scope in scopes if claim.every_scope else scopes[:1]:
            found = claim.gather(_within(tables, scope) if claim.every_scope else tables)
            verdict = claim.combine([item.verdict for item in found]) if found else Verdict.not_decided
            if not found and scope != scopes[0]:
                continue
            place = (claim.name, *scope)
            main = scope == scopes[0]
            verdicts.append((*place, verdict.value, *STATEMENTS[claim.name], len(found), main, toy))
            evidence += [(*place, *item[:-1], item.verdict.value) for item in found]
    return {
        "claims": _text_columns(pd.DataFrame(verdicts, columns=CLAIM_COLUMNS)),
        "claim_evidence": _text_columns(pd.DataFrame(evidence, columns=EVIDENCE_COLUMNS)),
    }


def _text_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with its nullable columns as text, whatever is in them: a column of nulls has no type."""
    return table.astype(dict.fromkeys(("judging", "judge", "without"), "string"))


def _scopes(tables: Tables) -> list[Scope]:
    """Returns every scope, the one that answers first."""
    found: list[Scope] = []
    for name in ("contrasts", "frontier_fits", "persistence"):
        for source, without in ((name, False), (AUDITED[name], True)):
            table = tables.get(source, pd.DataFrame())
            if {"judging", "judge"} <= set(table.columns):
                left_out = table["without"] if without else pd.Series([None] * len(table), dtype=object)
                found += [
                    Scope(str(judging), None if pd.isna(judge) else str(judge), None if pd.isna(out) else str(out))
                    for judging, judge, out in zip(table["judging"], table["judge"], left_out, strict=True)
                ]
    order = {"match": 0, "cross": 1, "all": 2}

    def rank(scope: Scope) -> tuple[Any, ...]:
        return scope.without or "", order.get(str(scope.judging), 3), scope.judge or ""

    return sorted(set(found), key=rank) or [Scope(None, None, None)]


def _within(tables: Tables, scope: Scope) -> dict[str, pd.DataFrame]:
    """Returns the tables' rows of one scope, under the names that they have with nothing left out."""
    chosen = {}
    for name in AUDITED:
        table = tables.get(name if scope.without is None else AUDITED[name], pd.DataFrame())
        if len(table):
            judge = table["judge"].isna() if scope.judge is None else table["judge"] == scope.judge
            kept = (table["judging"] == scope.judging) & judge
            table = table[kept if scope.without is None else kept & (table["without"] == scope.without)]
        chosen[name] = table
    return chosen


def every(verdicts: list[Verdict]) -> Verdict:
    """Returns that a claim holds if all of its evidence does, and does not if any of it does not."""
    if Verdict.does_not in verdicts:
        return Verdict.does_not
    return Verdict.holds if set(verdicts) == {Verdict.holds} else Verdict.not_decided


def some(verdicts: list[Verdict]) -> Verdict:
    """Returns that a claim holds if any of its evidence does, and does not if none of it does."""
    if Verdict.holds in verdicts:
        return Verdict.holds
    return Verdict.does_not if set(verdicts) == {Verdict.does_not} else Verdict.not_decided


def above(low: float, high: float, threshold: float) -> Verdict:
    """Returns whether an interval lies above a threshold, below it, or on both sides (or is none)."""
    if low > threshold:
        return Verdict.holds
    return Verdict.does_not if high < threshold else Verdict.not_decided


def _opposite(verdict: Verdict) -> Verdict:
    return {Verdict.holds: Verdict.does_not, Verdict.does_not: Verdict.holds}.get(verdict, verdict)


def _extreme(single: Recipe) -> Callable[[Tables], list[Evidence]]:
    """Returns what gathers how far a single training is from every other one, in the direction of its metric."""

    def gather(tables: Tables) -> list[Evidence]:
        table = tables["contrasts"]
        if table.empty:
            return []
        table = table[(table["first"] == single.value) | (table["second"] == single.value)]
        table = table[table["axis"] != DISTANCE]
        rows = []
        for row in table.to_dict("records"):
            turned = row["second"] == single.value
            other = Recipe(row["first"] if turned else row["second"])
            more = row["axis"] == single.value  # it should have more of its own metric, and less of the other
            sign = 1 if more != turned else -1
            low, high = sorted((sign * row["low"], sign * row["high"]))
            quantity = f"{'safety' if row['axis'] == 'safe' else 'helpfulness'}, {'more' if more else 'less'}"
            subject = f"{single.label} than {other.label}, β {_beta(row['beta'])}"
            rows.append((subject, quantity, sign * row["estimate"], low, high, row["p"]))
        corrected = holm([1.0 if pd.isna(p) else p for *_, p in rows])
        return [
            Evidence(*row[:5], "above 0", _extreme_verdict(row[2], row[3], p))
            for row, p in zip(rows, corrected, strict=True)
        ]

    return gather


def _extreme_verdict(estimate: float, low: float, corrected_p: float) -> Verdict:
    # To hold, all comparisons must hold, so that none needs a correction for their number; to fail, one is enough.
    if low > 0:
        return Verdict.holds
    return Verdict.does_not if estimate < 0 and corrected_p < 1 - CONFIDENCE else Verdict.not_decided


def _order(tables: Tables) -> list[Evidence]:
    table = tables["contrasts"]
    if table.empty:
        return []
    first, second = Recipe.safe_then_help, Recipe.help_then_safe
    rows = table[(table["first"] == first.value) & (table["second"] == second.value)].to_dict("records")
    corrected = holm([1.0 if pd.isna(row["p"]) else row["p"] for row in rows])
    found = []
    for row, p in zip(rows, corrected, strict=True):
        verdict = Verdict.not_decided
        if p < 1 - CONFIDENCE:
            verdict = Verdict.holds
        elif row["low"] > -MARGIN and row["high"] < MARGIN:
            verdict = Verdict.does_not
        axis = "safety" if row["axis"] == "safe" else "helpfulness"
        subject = f"{first.label} minus {second.label}, β {_beta(row['beta'])}"
        numbers = row["estimate"], row["low"], row["high"]
        found.append(Evidence(subject, axis, *numbers, f"other than 0; p {p:.3f} after Holm", verdict))
    return found


def _persists(tables: Tables) -> list[Evidence]:
    return [
        Evidence(
            _kept(row),
            "share of safety's gain kept",
            *_ratio(row),
            f"above {HALF}",
            above(row["cautious_low"], row["cautious_high"], HALF),
        )
        for row in _persistence_rows(tables, "safe")
    ]


def _less_so(tables: Tables) -> list[Evidence]:
    """Returns helpfulness's share beside safety's, held against where safety's interval begins and ends."""
    safety = {_beta(row["beta"]): row for row in _persistence_rows(tables, "safe")}
    found = []
    for row in _persistence_rows(tables, "help"):
        other = safety.get(_beta(row["beta"]))
        if other is None:
            continue
        verdict = Verdict.not_decided
        if row["cautious_high"] < other["cautious_low"]:
            verdict = Verdict.holds
        elif row["cautious_low"] > other["cautious_high"]:
            verdict = Verdict.does_not
        expected = f"below safety's [{other['low']:.2f}, {other['high']:.2f}]"
        found.append(Evidence(_kept(row), "share of helpfulness's gain kept", *_ratio(row), expected, verdict))
    return found


def _persistence_rows(tables: Tables, metric: str) -> list[dict[Any, Any]]:
    table = tables["persistence"]
    if table.empty:
        return []
    return table[table["model"].isna() & (table["metric"] == metric)].to_dict("records")


def _kept(row: Mapping[Any, Any]) -> str:
    missing = f", {row['invalid_share']:.1%} of draws without a gain" if row["invalid_share"] > 0 else ""
    return f"average of models, β {_beta(row['beta'])}{missing}"


def _ratio(row: Mapping[Any, Any]) -> tuple[float, float, float]:
    return float(row["estimate"]), float(row["low"]), float(row["high"])


def _line(*, main: bool) -> Callable[[Tables], list[Evidence]]:
    def gather(tables: Tables) -> list[Evidence]:
        table = tables["frontier_fits"]
        if table.empty:
            return []
        # The R² of a line through the origin is another quantity and can be negative.
        kept = table["point_set"] == MAIN_SET if main else table["point_set"] != ORIGIN
        if not main and kept.sum() < 2:  # nothing but the main set is not everywhere
            return []
        return [
            Evidence(
                f"{row['point_set'].replace('_', ' ')}, {row['n']:.0f} points",
                "R²",
                row["r2"],
                row["r2_low"],
                row["r2_high"],
                f"above {HALF}, slope below 0",
                above(row["r2_low"], row["r2_high"], HALF) if row["slope_high"] < 0 else _rising(row),
            )
            for row in table[kept].to_dict("records")
        ]

    return gather


def _rising(row: Mapping[Any, Any]) -> Verdict:
    """Returns what a line says that is not clearly falling: a trade-off would be."""
    loose = above(row["r2_low"], row["r2_high"], HALF) is Verdict.does_not
    return Verdict.does_not if row["slope_low"] > 0 or loose else Verdict.not_decided


def _beyond_line(tables: Tables) -> list[Evidence]:
    table = tables["contrasts"]
    if table.empty:
        return []
    return [
        Evidence(
            f"{Recipe.both.label} beyond the others' line, β {_beta(row['beta'])}",
            "points of score",
            row["estimate"],
            row["low"],
            row["high"],
            f"below {MARGIN}",
            _opposite(above(row["low"], row["high"], MARGIN)),
        )
        for row in table[table["axis"] == DISTANCE].to_dict("records")
    ]


def _in_pairs(tables: Tables) -> list[Evidence]:
    from scipy.stats import binomtest

    table = tables.get("pair_audits", pd.DataFrame())
    if table.empty:
        return []
    found = []
    for judge, rows in table[table["metric"] == Recipe.both.value].groupby("judge"):
        share = float((rows["chosen_best_of_both"] * rows["pairs"]).sum() / rows["pairs"].sum())
        # Pairs of one case share its trajectories, so that there are no more independent ones than cases.
        cases = int(rows["cases"].max())
        interval = binomtest(round(share * cases), cases).proportion_ci(CONFIDENCE, method="wilson")
        bounds = min(float(interval.low), share), max(float(interval.high), share)
        verdict = above(*bounds, PAIRS)
        subject = f"pairs for both by {judge}"
        found.append(
            Evidence(subject, "share with a safe and helpful choice", share, *bounds, f"above {PAIRS}", verdict)
        )
    return found


def _beta(beta: float) -> str:
    return "mixed" if pd.isna(beta) else f"{beta:g}"


def answers(table: pd.DataFrame) -> Iterable[dict[Any, Any]]:
    """Returns the rows of `claims` that answer each claim, with what becomes of it as trajectories are left out.

    `left_out` maps what is left out to the verdict on what remains, judged in the same way.
    """
    for row in table[table["main"]].to_dict("records"):
        same = table[(table["claim"] == row["claim"]) & table["judge"].isna() & table["without"].notna()]
        same = same[same["judging"] == row["judging"]] if not pd.isna(row["judging"]) else same
        yield {**row, "left_out": dict(zip(same["without"], same["verdict"], strict=True))}


CLAIMS = (
    Claim("safe_extreme", _extreme(Recipe.safe), every),
    Claim("help_extreme", _extreme(Recipe.help), every),
    Claim("safety_persists", _persists, every),
    Claim("helpfulness_persists_less", _less_so, every),
    Claim("order_matters", _order, some),
    Claim("one_line", _line(main=True), every),
    Claim("one_line_everywhere", _line(main=False), every),
    Claim("no_best_of_both", _beyond_line, every),
    Claim("best_of_both_in_pairs", _in_pairs, every, every_scope=False),
)
"""Every one of `STATEMENTS`."""
