"""The summary in words: every sentence is made from numbers of the result tables, a judge at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from dagster_project.report.runs import METRICS
from dagster_project.report.values import (
    MAIN_SET,
    WHOSE,
    beta_name,
    estimate,
    kept_share,
    missing,
    p_value,
    scored,
    scorings,
)
from dagster_project.report.wording import scoring_title
from dagster_project.results.persistence import GAIN
from dagster_project.results.statements import MARGIN

Tables = Mapping[str, pd.DataFrame]
AFTER = {"safe": ("safety training", "helpfulness training"), "help": ("helpfulness training", "safety training")}


def sentences(tables: Tables, *, toy: bool) -> list[str]:
    """Return the summary, a sentence or two an entry."""
    return [
        *_scale(tables, toy=toy),
        *_frontier(tables),
        *_persistence(tables),
        *_disagreement(tables),
        *_audits(tables),
        *_agreement(tables),
    ]


def _scale(tables: Tables, *, toy: bool) -> Iterator[str]:
    (sizes,) = tables["sizes"].to_dict("records")
    toy_note = "This is a toy world: it shows that the graph works, and says nothing of real agents. " if toy else ""
    mixed = f", and {_many(sizes['mixed'], 'mixture')} of trained adapters" if sizes["mixed"] else ""
    untouched = sizes["models"] - sizes["trained_models"]
    only = f" ({_many(untouched, 'source model')} more made training pairs alone)" if untouched else ""
    yield (
        f"{toy_note}{_many(sizes['trainings'], 'training')}: {_many(sizes['agents'], 'agent')} (a source model, "
        f"recipe, β and judge of the pairs), over {_many(sizes['seeds'], 'seed')}, from "
        f"{_many(sizes['trained_models'], 'source model')}{only}{mixed}. "
        f"{_many(sizes['trajectories'], 'trajectory', 'trajectories')}, {_many(sizes['verdicts'], 'verdict')} by "
        f"{_many(sizes['judges'], 'judge')}; scores go from 0 to 3, higher is better."
    )
    ways = scorings(tables["frontier_points"]) if len(tables.get("frontier_points", ())) else []
    if len(ways) > 1 and {judging for judging, _ in ways} == {"match"}:
        yield (
            "Each judge scored only the agents that were trained on its own verdicts, so where two judges differ, "
            "their agents may differ and not the judges. All numbers below are of one judge at a time."
        )


def _frontier(tables: Tables) -> Iterator[str]:
    fits = tables.get("frontier_fits", pd.DataFrame())
    if fits.empty:
        return
    fits = fits[fits["point_set"] == MAIN_SET]
    for judging, judge in scorings(fits):
        for row in scored(fits, judging, judge).to_dict("records"):
            if missing(row["slope"]):
                continue
            yield (
                f"Frontier by {scoring_title(judging, judge)}: through {row['n']:.0f} points, a point of helpfulness "
                f"goes with {_interval(row, 'slope')} points of safety (slope); where helpfulness is as in the source "
                f"model, safety differs by {_interval(row, 'intercept', (0, MARGIN), sign=True)} (intercept); points "
                f"scatter around the line with a standard deviation of {_interval(row, 'scatter', (MARGIN,))}; "
                f"R² {_interval(row, 'r2', ())}."
            )


def _persistence(tables: Tables) -> Iterator[str]:
    table = tables.get("persistence", pd.DataFrame())
    if table.empty:
        return
    table = table[table["model"].isna()]
    for judging, judge in scorings(table):
        found = [_kept(row) for row in scored(table, judging, judge).to_dict("records") if not missing(row["gain"])]
        if found:
            yield f"Persistence by {scoring_title(judging, judge)}, over source models: {' '.join(found)}"


def _kept(row: Mapping[Any, Any]) -> str:
    """Return a sentence on one metric at one β."""
    word, (one, other) = METRICS[row["metric"]], AFTER[row["metric"]]
    gain, at = _interval(row, "gain", sign=True), f"at β {beta_name(row['beta'])}"
    if row["gain_verdict"] != GAIN:
        return f"{one.capitalize()} brought no clear gain in {word} {at} ({gain}), so there is nothing to keep."
    left = kept_share(row)
    share = left if left == "none left" else f"{left} of the gain"
    kept = _interval(row, "kept", sign=True)
    return f"{one.capitalize()} brought {gain} in {word} {at}; {other} after it left {kept}, {share}."


def _disagreement(tables: Tables) -> Iterator[str]:
    claims = tables.get("claims", pd.DataFrame())
    if claims.empty:
        return
    main = claims[claims["main"]]
    differ = main[main["judges_differ"].fillna(False).astype(bool)]
    tested = main["judges_differ_p"].notna().sum()
    if tested:
        named = "; ".join(
            f"“{row['statement'].rstrip('.')}” ({p_value(row['judges_differ_p'])})" for row in differ.to_dict("records")
        )
        yield (
            f"Judges differ, beyond chance (p below 0.05 after Holm), in numbers behind {len(differ)} of the {tested} "
            f"claims that two judges' numbers decide{f': {named}' if named else ''}."
        )


def _audits(tables: Tables) -> Iterator[str]:
    audits = tables.get("audits", pd.DataFrame())
    if audits.empty:
        return
    yield from _failed(tables["sizes"])
    trained = audits[audits["recipe"].notna()]
    if not trained["trajectories"].sum():
        return

    def share(name: str, of: str = "trajectories") -> str:
        known = trained[trained[name].notna() & (trained[of] > 0)]
        if known.empty:
            return "an unknown share"
        return f"{100 * float((known[name].astype(float) * known[of]).sum() / known[of].sum()):.0f}%"

    yield (
        f"Of the trained agents' {int(trained['trajectories'].sum()):,} trajectories on held-out cases "
        f"{share('runaway')} ran on until a limit ended them, {share('self_observed')} hold results that the agent "
        f"wrote itself, and in {share('without_tool_call')} no tool was ever answered. Of the "
        f"{int(trained['scored'].sum()):,} that were scored on both, {share('best_of_both', 'scored')} are safe and "
        f"helpful at once (2 or more in each)."
    )


def _failed(sizes: pd.DataFrame) -> Iterator[str]:
    """Yield how many trajectories say nothing about their agent, if any do."""
    found = sizes.to_dict("records")[0]
    failed, n = int(found.get("failed", 0)), int(found["trajectories"])
    scored = int(found.get("failed_scored", 0))
    if failed:
        have = f"{scored:,} of them are scored all the same, as judge_failed asks" if scored else "They have no scores"
        yield (
            f"{_many(failed, 'trajectory', 'trajectories')} of {n:,} say nothing about the agent: a failure outside it "
            f"ended them, or it wrote nothing. {have}. The audits count them for every agent."
        )


def _agreement(tables: Tables) -> Iterator[str]:
    table = tables.get("judge_agreement", pd.DataFrame())
    if table.empty:
        return
    for (judge_a, judge_b), rows in table.groupby(["judge_a", "judge_b"], sort=False):
        found = {(row["whose"], row["metric"]): row for row in rows.to_dict("records") if row["n"]}
        for whose in ("trained", "source_held_out", "source"):
            parts = [
                f"{METRICS[metric]} exactly in {100 * row['exact']:.0f}% of {row['n']:,} trajectories of "
                f"{row['cases']:,} cases, weighted kappa {_interval(row, 'weighted_kappa', ())}"
                for metric in METRICS
                if (row := found.get((whose, metric))) is not None
            ]
            if parts:
                yield f"{judge_a} and {judge_b} agree, on trajectories {WHOSE[whose]}, on {' and on '.join(parts)}."
                break
        if not any(whose == "trained" for whose, _ in found):
            yield f"No trajectory of a trained agent has verdicts of both {judge_a} and {judge_b}."


def _interval(row: Mapping[Any, Any], name: str, thresholds: tuple[float, ...] = (0,), *, sign: bool = False) -> str:
    return estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], thresholds, sign=sign)


def _many(count: float, thing: str, things: str = "") -> str:
    return f"{int(count):,} {thing if count == 1 else things or f'{thing}s'}"
