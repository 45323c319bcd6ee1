"""The paper's findings, each held against the result tables, by every judge and for every source model.

The same rules for every experiment; statements.py has them in words, evidence.py applies them to numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.results.comparisons import holm
from dagster_project.results.evidence import (
    ALPHA,
    Evidence,
    Gather,
    Place,
    Tables,
    Verdict,
    best_of_both,
    beyond_line,
    extreme,
    kept,
    kept_less,
    line,
    lines,
    order,
)
from dagster_project.results.statements import STATEMENTS

CLAIM_COLUMNS = ["claim", "judging", "judge", "model", "without", "verdict", "verdict_of_average", "judges_differ_p"]
CLAIM_COLUMNS += ["judges_differ", "selected_on_outcome", "evidence", "least_cells", "least_cases", "statement", "rule"]
CLAIM_COLUMNS += ["main", "toy"]
EVIDENCE_COLUMNS = ["claim", "judging", "judge", "model", "without", *Evidence._fields[:-1]]
AUDITED = {
    "contrasts": "audited_contrasts",
    "persistence": "audited_persistence",
    "persistence_differences": "audited_persistence_differences",
    "frontier_fits": "audited_fits",
}
"""The tables that claims are decided by, and what the audits leave of them."""
DISAGREEMENTS = ("frontier_disagreements", "persistence_disagreements")
JUDGINGS = ("match", "cross", "all")


class Scope(NamedTuple):
    """What a claim is held against.

    Attributes:
        judging: The way of judging; None where there is none.
        judge: None for their average.
        model: The source model; None for the average.
        without: The trajectories that are left out; None for none.
    """

    judging: str | None
    judge: str | None
    model: str | None
    without: str | None


class Claim(NamedTuple):
    """A finding of the paper: its name in tables and checks, its evidence, and its verdict from the evidence's."""

    name: str
    gather: Gather
    combine: Callable[[Sequence[Verdict]], Verdict]


def claims(tables: Tables, *, toy: bool) -> dict[str, pd.DataFrame]:
    """Return `claims`, a row for every claim and scope, and `claim_evidence`, the numbers behind each.

    A claim is held against each judge's scores alone. The row whose `judge` is null says what the judges say together:
    the verdict that all of them give, `judges disagree` where it holds by one and does not by another, and else that it
    is not decided. Averages over judges decide nothing: `verdict_of_average` says what they would. `judges_differ_p` is
    the least p, after Holm, of the differences between judges in the claim's own numbers. `main` marks the row that
    answers: all judges and models, nothing left out, judged as the pairs were where that was done.
    `selected_on_outcome` marks rows that leave trajectories out by how they ended.

    Args:
        tables: The result tables, by name; any may be missing.
        toy: Marks the rows as being about a toy world.
    """
    rows: list[dict[str, Any]] = []
    evidence: list[dict[str, Any]] = []
    scopes, parts, tests = _scopes(tables), _parts(tables), _tests(tables)
    for claim in CLAIMS:
        for place, judges in scopes.items():
            by_judge = {
                judge: claim.gather(_within(parts, place._replace(judge=judge)), place.model)
                for judge in (*judges, None)
            }
            if place != next(iter(scopes)) and not any(by_judge.values()):
                continue
            verdicts = {
                judge: claim.combine([item.verdict for item in found]) if found else Verdict.no_data
                for judge, found in by_judge.items()
            }
            averaged = verdicts.pop(None)
            together = combined(list(verdicts.values())) if verdicts else averaged
            asked = {item.place for items in by_judge.values() for item in items} if place.without is None else set()
            values = [p for item in asked for p in tests.get((str(place.judging), place.model, item), [])]
            differ = min(holm(values), default=float("nan"))
            for judge in (None, *judges):
                found = by_judge[judge]
                behind = [item for name in judges for item in by_judge[name]] if judge is None and judges else found
                row = {**place._asdict(), "judge": judge, "claim": claim.name, "evidence": len(behind), "toy": toy}
                row |= {"verdict": (together if judge is None else verdicts[judge]).value}
                row |= {"least_cells": min((item.cells for item in behind), default=0)}
                row |= {"least_cases": min((item.cases for item in behind), default=0)}
                row |= {"verdict_of_average": averaged.value if judge is None and found else None}
                row |= {"judges_differ_p": differ if judge is None else float("nan")}
                row |= {"judges_differ": bool(differ < ALPHA) if judge is None else False}
                row |= {"selected_on_outcome": place.without is not None}
                row |= {"main": judge is None and place == next(iter(scopes))}
                said = STATEMENTS[claim.name]
                rows.append({**row, "statement": said.claim, "rule": said.rule})
                for item in found:
                    shown = {**item._asdict(), "verdict": item.verdict.value}
                    evidence.append({**place._asdict(), "judge": judge, "claim": claim.name, **shown})
    return {
        "claims": _text_columns(pd.DataFrame(rows).reindex(columns=CLAIM_COLUMNS)),
        "claim_evidence": _text_columns(pd.DataFrame(evidence).reindex(columns=EVIDENCE_COLUMNS)),
    }


def _text_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its nullable columns as text, whatever is in them: a column of nulls has no type."""
    names = ("judging", "judge", "model", "without", "verdict_of_average")
    return table.astype({name: "string" for name in names if name in table})


def _scopes(tables: Tables) -> dict[Scope, list[str]]:
    """Return every scope, `judge` None in all, the one that answers first; and the judges there are in each."""
    found: dict[Scope, dict[str, None]] = {}
    for name, audited in AUDITED.items():
        for source in (name, audited):
            table = tables.get(source, pd.DataFrame())
            if not {"judging", "judge"} <= set(table.columns):
                continue
            for row in table.drop_duplicates(_present(table, "judging", "judge", "model", "without")).to_dict(
                "records"
            ):
                model, out, judge = (_text(row.get(column)) for column in ("model", "without", "judge"))
                for of_model in dict.fromkeys((None, model)):
                    judges = found.setdefault(Scope(str(row["judging"]), None, of_model, out), {})
                    if judge is not None:
                        judges[judge] = None

    def rank(scope: Scope) -> tuple[Any, ...]:
        place = JUDGINGS.index(scope.judging) if scope.judging in JUDGINGS else len(JUDGINGS)
        return scope.without or "", place, scope.model or ""

    ordered = {scope: sorted(found[scope]) for scope in sorted(found, key=rank)}
    return ordered or {Scope(None, None, None, None): []}


def _present(table: pd.DataFrame, *names: str) -> list[str]:
    return [name for name in names if name in table]


def _text(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else str(value)


Parts = Mapping[tuple[str, str | None, str, str | None], pd.DataFrame]
"""Tables' rows by the table's name, what is left out, judging and judge."""


def _parts(tables: Tables) -> Parts:
    """Return the rows of every scope, by the names that tables have with nothing left out."""
    found = {}
    for name, audited in AUDITED.items():
        for source in (name, audited):
            table = tables.get(source, pd.DataFrame())
            names = _present(table, "without", "judging", "judge")
            for key, rows in table.groupby(names, dropna=False, sort=False) if "judging" in names else ():
                without, judging, judge = key if len(names) == 3 else (None, *key)
                found[name, _text(without), str(judging), _text(judge)] = rows
    return found


def _within(parts: Parts, scope: Scope) -> dict[str, pd.DataFrame]:
    """Return the rows of one way of judging and judge."""
    place = scope.without, str(scope.judging), scope.judge
    return {name: parts.get((name, *place), pd.DataFrame()) for name in AUDITED}


def _tests(tables: Tables) -> dict[tuple[str, str | None, Place], list[float]]:
    """Return the p-values of two judges' differences by judging, model and place."""
    found: dict[tuple[str, str | None, Place], list[float]] = {}
    for name in DISAGREEMENTS:
        for row in tables.get(name, pd.DataFrame()).to_dict("records"):
            if not pd.isna(row["p"]):
                key = str(row["judging"]), _text(row["model"]), _place(row)
                found.setdefault(key, []).append(float(row["p"]))
    return found


def _place(row: Mapping[Any, Any]) -> Place:
    return Place(*(str(row[name]) for name in Place._fields))


def every(verdicts: Sequence[Verdict]) -> Verdict:
    """Return that a claim holds if all of its evidence does, and does not if any of it does not."""
    return _first(verdicts, Verdict.does_not, Verdict.holds)


def some(verdicts: Sequence[Verdict]) -> Verdict:
    """Return that a claim holds if any of its evidence does, and does not if none of it does."""
    return _first(verdicts, Verdict.holds, Verdict.does_not)


def _first(verdicts: Sequence[Verdict], any_of: Verdict, all_of: Verdict) -> Verdict:
    if any_of in verdicts:
        return any_of
    if set(verdicts) == {all_of}:
        return all_of
    return Verdict.too_little if Verdict.too_little in verdicts else Verdict.not_decided


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return what judges say together, from what each says alone."""
    said = set(verdicts)
    if len(said) == 1:
        return verdicts[0]
    if {Verdict.holds, Verdict.does_not} <= said:
        return Verdict.judges_disagree
    return Verdict.too_little if Verdict.too_little in said else Verdict.not_decided


def answers(table: pd.DataFrame) -> Iterable[dict[Any, Any]]:
    """Return the rows of `claims` that answer each claim, with what each judge says and what trajectories change.

    `left_out` maps what is left out to the verdict on what remains, judged in the same way; `by_judge` a judge to its
    own; `by_model` a source model to what all judges say of it.
    """

    def verdicts(rows: pd.DataFrame, name: str) -> dict[str, str]:
        return dict(zip(rows[name], rows["verdict"], strict=True))

    for row in table[table["main"]].to_dict("records"):
        same = table[table["claim"] == row["claim"]]
        if not pd.isna(row["judging"]):
            same = same[same["judging"] == row["judging"]]
        together, all_models, whole = same["judge"].isna(), same["model"].isna(), same["without"].isna()
        yield {
            **row,
            "left_out": verdicts(same[together & all_models & ~whole], "without"),
            "by_judge": verdicts(same[~together & all_models & whole], "judge"),
            "by_model": verdicts(same[together & ~all_models & whole], "model"),
        }


CLAIMS = (
    Claim("safe_extreme", extreme(Recipe.safe), every),
    Claim("help_extreme", extreme(Recipe.help), every),
    Claim("safety_persists", kept, every),
    Claim("helpfulness_persists_less", kept_less, every),
    Claim("order_matters", order, some),
    Claim("one_line", line, every),
    Claim("one_line_everywhere", lines, every),
    Claim("no_best_of_both", beyond_line, every),
    Claim("best_of_both_more_often", best_of_both, every),
)
"""Every one of `STATEMENTS`."""
