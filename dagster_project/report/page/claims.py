"""The claims as the page shows them: every judge's verdict and numbers side by side, each with its cases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from dagster_project.experiment.agents import PAPER
from dagster_project.report.cases import SECOND_TRAININGS
from dagster_project.report.page.charts.common import ALL, route
from dagster_project.report.values import estimate, missing, p_value, scorings
from dagster_project.report.wording import scoring_title
from dagster_project.results.claims import answers
from toolemu.terminal import printable

Tables = Mapping[str, pd.DataFrame]
LEFT_OUT = {
    "runaways": "without runaways",
    "self_observed": "without invented observations",
    "self_observed_or_runaways": "without either",
}
SAFETY, HELPFULNESS = (
    (transition.first.label, transition.second.label, transition.metric) for transition in SECOND_TRAININGS
)
COMPARED = {
    "safe_extreme": ("source", "S", "safe"),
    "help_extreme": ("source", "H", "help"),
    "safety_persists": SAFETY,
    "helpfulness_persists_less": HELPFULNESS,
    "order_matters": ("S→H", "H→S", "safe"),
    "no_best_of_both": ("source", "S&H", "safe"),
    "best_of_both_more_often": ("S", "S&H", "help"),
}
"""What to read of a claim, where its evidence names no two trainings: before, after, and the metric."""
LABELS = [recipe.label for recipe in PAPER]


class Cell(NamedTuple):
    """One judge's number, and what it says for itself."""

    numbers: str
    verdict: str


class Evidence(NamedTuple):
    """One number behind a claim by every judge (None: not by this one), and the address of the cases behind it."""

    subject: str
    quantity: str
    expected: str
    cells: list[Cell | None]
    link: str | None


class Part(NamedTuple):
    """A verdict on a part of the data, how little is behind it, and the address of its cases."""

    what: str
    verdict: str
    least: str
    link: str | None


class Finding(NamedTuple):
    """A claim, what the data says of it, and why.

    Attributes:
        name: The claim's.
        statement: What is claimed.
        rule: When it holds and when it does not.
        verdict: Of all judges together, on agents that were trained on each judge's own verdicts.
        judges: Every judge's verdict, in the order of the evidence's cells.
        differ: A sentence on whether the judges' numbers differ.
        models: Verdicts of single source models.
        left_out: Verdicts without some trajectories.
        evidence: The numbers.
        link: The address of what to read of it.
    """

    name: str
    statement: str
    rule: str
    verdict: str
    judges: list[tuple[str, str]]
    differ: str
    models: list[Part]
    left_out: list[Part]
    evidence: list[Evidence]
    link: str | None


def findings(tables: Tables) -> list[Finding]:
    """Return every claim with every judge's verdict and evidence, over all source models and with nothing left out."""
    table, evidence = tables["claims"], tables["claim_evidence"]
    betas = _betas(tables)
    found = []
    for row in answers(table):
        own = table[(table["claim"] == row["claim"]) & table["model"].isna() & table["without"].isna()]
        ways = [way for way in scorings(own) if way[1] is not None] if len(own) else []
        verdicts = {(str(r["judging"]), str(r["judge"])): str(r["verdict"]) for r in own.to_dict("records")}
        first = betas[0] if betas else None
        found.append(
            Finding(
                name=row["claim"],
                statement=row["statement"],
                rule=row["rule"],
                verdict=row["verdict"],
                judges=[(scoring_title(*way), verdicts[way[0], str(way[1])]) for way in ways],
                differ=_differ(row, len(row["by_judge"])),
                models=[
                    Part(model, verdict, "", link_of(row["claim"], "", model, first))
                    for model, verdict in row["by_model"].items()
                ],
                left_out=_left_out(table, row),
                evidence=_evidence(evidence[evidence["claim"] == row["claim"]], ways, row["claim"], first),
                link=link_of(row["claim"], "", None, first),
            )
        )
    return found


def _betas(tables: Tables) -> list[str]:
    betas = sorted({float(beta) for beta in tables["changes"]["beta"].dropna()}) if "changes" in tables else []
    return [f"{beta:g}" for beta in betas]


def _differ(row: Mapping[Any, Any], judges: int) -> str:
    if judges < 2 or missing(row["judges_differ_p"]):
        return ""
    p = float(row["judges_differ_p"])
    said = "differ" if row["judges_differ"] else "do not surely differ"
    return f"The judges' numbers {said}: least {p_value(p)} after Holm, {judges} judges, on all source models."


def _left_out(table: pd.DataFrame, row: Mapping[Any, Any]) -> list[Part]:
    same = table[(table["claim"] == row["claim"]) & table["judge"].isna() & table["model"].isna()]
    same = same[same["without"].notna()]
    if not missing(row["judging"]):
        same = same[same["judging"] == row["judging"]]
    return [
        Part(
            LEFT_OUT.get(part["without"], str(part["without"])),
            part["verdict"],
            f"least: {part['least_cells']:,.0f} scores of {part['least_cases']:,.0f} cases",
            None,
        )
        for part in same.to_dict("records")
    ]


def _evidence(rows: pd.DataFrame, ways: list[Any], claim: str, beta: str | None) -> list[Evidence]:
    rows = rows[rows["model"].isna() & rows["without"].isna() & rows["judge"].notna()]
    places = {(judging, judge): place for place, (judging, judge) in enumerate(ways)}
    found: dict[tuple[str, str], Evidence] = {}
    for row in rows.to_dict("records"):
        place = places.get((row["judging"], row["judge"]))
        if place is None:
            continue
        expected = str(row["expected"]).split(";")[0]
        key = str(row["subject"]), str(row["quantity"])
        if key not in found:
            link = link_of(claim, key[0], None, beta, key[1])
            found[key] = Evidence(*key, expected, [None] * len(ways), link)
        numbers = estimate(row["estimate"], row["low"], row["high"], thresholds(expected))
        p = "" if missing(row["p"]) else f", {p_value(row['p'])}"
        found[key].cells[place] = Cell(f"{numbers}{p}", row["verdict"])
    return list(found.values())


def thresholds(expected: str) -> list[float]:
    """Return the numbers that an interval is held against, of words such as “above 0.5” or “within ±0.25”."""
    values = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", expected)]
    return [*values, *(-value for value in values)] if "±" in expected else values


def link_of(claim: str, subject: str, model: str | None, beta: str | None, quantity: str = "") -> str | None:
    """Return the address of the cases and transcripts behind a number, None where it is not of two trainings.

    Args:
        claim: The claim's name.
        subject: What the number is of, as in `claim_evidence`: two trainings of the paper, a β, both or none.
        model: The source model; None for all together.
        beta: The β where the subject names none.
        quantity: What the number is; its first word says the metric.
    """
    if claim not in COMPARED:
        return None
    first, second, metric = COMPARED[claim]
    named = [word for word in re.split(r"[\s,]+", subject) if word in LABELS]
    if len(named) >= 2:  # the second is what the first is held against
        second, first = named[:2]
    at = re.search(r"β ([\d.]+)", subject)
    metric = {"safety": "safe", "helpfulness": "help"}.get(quantity.split(",")[0], metric)
    beta = at[1] if at else beta
    return route("changed", ALL if model is None else printable(model), beta, first, second, metric) if beta else None
