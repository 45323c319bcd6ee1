"""The summary in words: every sentence is made from numbers of the result tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from dagster_project.report.values import beta_name, between, missing, number
from dagster_project.report.wording import JUDGING_TITLES
from dagster_project.results.claims import answers
from dagster_project.results.persistence import GAIN

Tables = Mapping[str, pd.DataFrame]
LEFT_OUT = {
    "runaways": "without runaways",
    "self_observed": "without invented observations",
    "self_observed_or_runaways": "without either",
}


WHOSE = {
    "source": "source models, all cases",
    "source_held_out": "source models, cases that a seed holds out",
    "trained": "trained agents, held-out cases",
}


class Evidence(NamedTuple):
    """One number behind a claim."""

    subject: str
    quantity: str
    numbers: str
    expected: str
    verdict: str


class Finding(NamedTuple):
    """A claim, what the data says of it, and why.

    `left_out` says what becomes of it without some trajectories; `judges`, by single judges.
    """

    name: str
    statement: str
    rule: str
    verdict: str
    evidence: list[Evidence]
    left_out: list[tuple[str, str]]
    judges: list[tuple[str, str]]


def findings(tables: Tables) -> list[Finding]:
    """Returns every claim with its verdict and evidence."""
    table, evidence = tables["claims"], tables["claim_evidence"]
    found = []
    for row in answers(table):
        behind = evidence[(evidence["claim"] == row["claim"]) & evidence["without"].isna() & evidence["model"].isna()]
        behind = behind[behind["judge"].notna()] if behind["judge"].notna().any() else behind
        if not missing(row["judging"]):
            behind = behind[behind["judging"] == row["judging"]]
        numbers = [
            Evidence(
                f"{item['judge']}: {item['subject']}" if not missing(item["judge"]) else item["subject"],
                item["quantity"],
                f"{number(item['estimate'])}{between(item['low'], item['high'])}",
                item["expected"],
                item["verdict"],
            )
            for item in behind.to_dict("records")
        ]
        left_out = [(LEFT_OUT.get(what, what), verdict) for what, verdict in row["left_out"].items()]
        judges = list(row["by_judge"].items())
        found.append(Finding(row["claim"], row["statement"], row["rule"], row["verdict"], numbers, left_out, judges))
    return found


def sentences(tables: Tables, *, toy: bool) -> list[str]:
    """Returns the summary, a sentence or two an entry."""
    return [*_scale(tables, toy=toy), *_frontier(tables), *_persistence(tables), *_audits(tables), *_agreement(tables)]


def _scale(tables: Tables, *, toy: bool) -> Iterator[str]:
    (sizes,) = tables["sizes"].to_dict("records")
    toy_note = "This is a toy world: it shows that the graph works, and says nothing of real agents. " if toy else ""
    yield (
        f"{toy_note}{_many(sizes['agents'], 'trained agent')} of {_many(sizes['models'], 'source model')} under "
        f"{_many(sizes['seeds'], 'seed')}: {_many(sizes['trajectories'], 'trajectory', 'trajectories')}, "
        f"{_many(sizes['verdicts'], 'verdict')} by {_many(sizes['judges'], 'judge')}, scores from 0 to 3, higher is "
        f"better."
    )


def _frontier(tables: Tables) -> Iterator[str]:
    fits = tables.get("frontier_fits", pd.DataFrame())
    if fits.empty:
        return
    fits = fits[fits["judge"].isna() & (fits["point_set"] != "through_origin")]
    for judging, group in fits.groupby("judging", sort=False):
        (main,) = group[group["point_set"] == "model_recipe"].to_dict("records")
        others = group[group["point_set"] != "model_recipe"]
        text = (
            f"{_judged(judging)}, the line through {main['n']:.0f} points has R² {number(main['r2'])}"
            f"{between(main['r2_low'], main['r2_high'])} and slope {number(main['slope'])}"
            f"{between(main['slope_low'], main['slope_high'])}"
        )
        if not missing(main["r2_disattenuated"]):
            bounds = between(main["r2_disattenuated_low"], main["r2_disattenuated_high"])
            text += f" (without the points' errors of measurement R² {number(main['r2_disattenuated'])}{bounds})"
        if len(others):
            ordered = others.sort_values("r2").to_dict("records")
            least, most = ordered[0], ordered[-1]
            text += (
                f"; through other points R² is from {number(least['r2'])} ({_set(least)}) to {number(most['r2'])} "
                f"({_set(most)})"
            )
        yield f"{text}."


def _persistence(tables: Tables) -> Iterator[str]:
    table = tables.get("persistence", pd.DataFrame())
    if table.empty:
        return
    table = table[table["judge"].notna() & table["model"].isna()]
    for (judging, judge), group in table.groupby(["judging", "judge"], sort=False):
        parts = []
        for row in group.to_dict("records"):
            word = {"safe": "safety", "help": "helpfulness"}[row["metric"]]
            gain = f"{number(row['gain'])}{between(row['gain_low'], row['gain_high'])}"
            if row["gain_verdict"] == GAIN:
                share = f"{number(row['share'])}{between(row['share_low'], row['share_high'])}"
                parts.append(f"{share} of a gain of {gain} in {word} at β {beta_name(row['beta'])}")
            elif not missing(row["gain"]):
                parts.append(f"no gain in {word} to keep at β {beta_name(row['beta'])} ({gain})")
        if parts:
            yield f"{_judged(judging)}, by {judge}, the other training left {'; '.join(parts)}."


def _audits(tables: Tables) -> Iterator[str]:
    audits = tables.get("audits", pd.DataFrame())
    if audits.empty:
        return
    yield from _failed(audits)
    trained = audits[audits["recipe"].notna()]
    n = trained["trajectories"]
    if not n.sum():
        return

    def share(name: str) -> str:
        return f"{100 * float((trained[name].astype(float) * n).sum() / n.sum()):.0f}%"

    yield (
        f"Of the trained agents' trajectories on held-out cases {share('runaway')} ran on until a limit ended them, "
        f"{share('self_observed')} hold results that the agent wrote itself, {share('without_tool_call')} call no "
        f"tool, and {share('best_of_both')} are safe and helpful at once (2 or more in each)."
    )


def _failed(audits: pd.DataFrame) -> Iterator[str]:
    """Yield how many trajectories say nothing about their agent, if any do."""
    if "failed" not in audits:  # a database of an earlier version
        return
    n = audits["trajectories"]
    failed = round(float((audits["failed"].astype(float) * n).sum()))
    if failed:
        yield (
            f"{_many(failed, 'trajectory', 'trajectories')} of {n.sum():,.0f} say nothing about the agent: a failure "
            "outside it ended them, or it wrote nothing. The audits count them for every agent."
        )


def _agreement(tables: Tables) -> Iterator[str]:
    for row in tables.get("judge_agreement", pd.DataFrame()).to_dict("records"):
        if not row["n"]:
            continue
        yield (
            f"{row['judge_a']} and {row['judge_b']} agree on {row['metric']} with a weighted kappa of "
            f"{number(row['weighted_kappa'])} and exactly in {100 * row['exact']:.0f}% of {row['n']:,} trajectories "
            f"({WHOSE[row['whose']]})."
        )


def _set(row: Mapping[Any, Any]) -> str:
    return str(row["point_set"]).replace("_", " ")


def _judged(judging: Any) -> str:
    title = JUDGING_TITLES.get(str(judging), str(judging))
    return title[0].upper() + title[1:]


def _many(count: float, thing: str, things: str = "") -> str:
    return f"{int(count):,} {thing if count == 1 else things or f'{thing}s'}"
