"""What the result tables say of each claim: one number with its interval at a time, and what it would have to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.results.comparisons import holm
from dagster_project.results.contrasts import DISTANCE, ORDERS
from dagster_project.results.frontier import INTERPOLATED, MAIN, ORIGIN
from dagster_project.results.persistence import GAIN
from dagster_project.results.scores import BEST
from dagster_project.results.statements import HALF, MARGIN, MIN_CASES, MIN_CELLS

ALPHA = 0.05
Tables = Mapping[str, pd.DataFrame]
NAN = float("nan")


class Verdict(StrEnum):
    """What the data says of a claim.

    `not_decided`: the intervals leave both answers open. `too_little`: there are fewer than `MIN_CASES` cases or
    `MIN_CELLS` scores behind a number that it takes. `judges_disagree`: it holds by one judge and does not by another.
    """

    holds = "holds"
    does_not = "does not"
    not_decided = "not decided"
    judges_disagree = "judges disagree"
    too_little = "too little data"
    no_data = "no data"


class Place(NamedTuple):
    """Where judges are compared on the same number: table, beta, subject and quantity, see `disagreements`."""

    found_in: str
    beta: str
    subject: str
    quantity: str


class Evidence(NamedTuple):
    """One number with its interval, the data behind it, what it would have to be, and what it says for itself."""

    subject: str
    quantity: str
    estimate: float
    low: float
    high: float
    p: float
    cells: int
    cases: int
    expected: str
    verdict: Verdict
    place: Place


Gather = Callable[[Tables, str | None], list[Evidence]]
"""Returns the evidence in the tables of one scope, for a source model, or (None) for all together."""


def above(low: float, high: float, threshold: float) -> Verdict:
    """Return whether an interval lies above a threshold, below it, or on both sides (or is none)."""
    if low > threshold:
        return Verdict.holds
    return Verdict.does_not if high < threshold else Verdict.not_decided


def opposite(verdict: Verdict) -> Verdict:
    """Return what a verdict says of the contrary."""
    return {Verdict.holds: Verdict.does_not, Verdict.does_not: Verdict.holds}.get(verdict, verdict)


def _evidence(
    row: Mapping[Any, Any],
    subject: str,
    quantity: str,
    numbers: Sequence[float],
    expected: str,
    verdict: Verdict,
    place: Place,
) -> Evidence:
    """Return evidence from a row of a table; its counts decide whether there is enough to say anything."""
    cells, cases = (int(row[name]) for name in ("cells", "cases"))
    if cells < MIN_CELLS or cases < MIN_CASES:
        verdict = Verdict.too_little
    estimate, low, high, p = numbers
    return Evidence(subject, quantity, estimate, low, high, p, cells, cases, expected, verdict, place)


def extreme(single: Recipe) -> Gather:
    """Return what gathers how far a single training is from every other one, in the direction of its metric."""

    def gather(tables: Tables, model: str | None) -> list[Evidence]:
        rows = _of_model(tables["contrasts"], model)
        rows = [row for row in rows if single.value in (row["first"], row["second"])]
        rows = [row for row in rows if row["axis"] in ("safe", "help") and pd.isna(row["beta_minus"])]
        found = []
        for row, corrected in zip(rows, _corrected(rows), strict=True):
            turned = row["second"] == single.value
            other = Recipe(row["first"] if turned else row["second"])
            more = row["axis"] == single.value  # it should have more of its own metric, and less of the other
            sign = 1 if more != turned else -1
            low, high = sorted((sign * row["low"], sign * row["high"]))
            quantity = f"{_axis(row['axis'])}, {'more' if more else 'less'}"
            subject = f"{single.label} than {other.label}, β {_beta(row['beta'])}"
            # To hold, all must hold, which needs no correction for their number; to fail, one is enough.
            fails = sign * row["estimate"] < 0 and corrected < ALPHA
            holds = low > 0 and not row["p"] >= ALPHA
            verdict = Verdict.holds if holds else Verdict.does_not if fails else Verdict.not_decided
            numbers = sign * row["estimate"], low, high, row["p"]
            found.append(_evidence(row, subject, quantity, numbers, "above 0", verdict, _contrast_place(row)))
        return found

    return gather


def order(tables: Tables, model: str | None) -> list[Evidence]:
    """Return the order's effect at each beta, and how it differs between betas."""
    rows = [row for row in _of_model(tables["contrasts"], model) if (row["first"], row["second"]) == ORDERS]
    rows = [row for row in rows if row["axis"] in ("safe", "help")]
    first, second = (Recipe(name).label for name in ORDERS)
    found = []
    for row, corrected in zip(rows, _corrected(rows), strict=True):
        verdict = Verdict.not_decided
        if corrected < ALPHA:
            verdict = Verdict.holds
        elif row["low"] > -MARGIN and row["high"] < MARGIN:
            verdict = Verdict.does_not
        at = f"β {_beta(row['beta'])}"
        if not pd.isna(row["beta_minus"]):
            at += f" minus the same at β {_beta(row['beta_minus'])}"
        expected = f"other than 0; p {corrected:.3f} after Holm"
        place = _contrast_place(row)
        found.append(
            _evidence(row, f"{first} minus {second}, {at}", _axis(row["axis"]), _numbers(row), expected, verdict, place)
        )
    return found


def kept(tables: Tables, model: str | None) -> list[Evidence]:
    """Return the share of safety's gain that is left, where there is a gain."""
    found = []
    for row in _of_model(tables["persistence"], model):
        if row["metric"] != "safe":
            continue
        place = Place("persistence", str(row["beta"]), "safe", "share")
        if row["gain_verdict"] == GAIN:
            numbers = row["share"], row["share_low"], row["share_high"], NAN
            verdict = above(row["share_low"], row["share_high"], HALF)
            name, expected = "share of safety's gain that is left", f"above {HALF}"
        else:
            numbers = row["gain"], row["gain_low"], row["gain_high"], row["gain_p"]
            verdict, name = Verdict.not_decided, "gain in safety, points"
            expected = f"clearly above 0, and the share of it that is left above {HALF}"
        found.append(_evidence(row, f"β {_beta(row['beta'])}", name, numbers, expected, verdict, place))
    return found


def kept_less(tables: Tables, model: str | None) -> list[Evidence]:
    """Return safety's persistence minus helpfulness's: of the shares where both have a gain, else of points lost."""
    rows = {(_beta(row["beta"]), row["quantity"]): row for row in _of_model(tables["persistence_differences"], model)}
    found = []
    for beta in dict.fromkeys(beta for beta, _ in rows):
        share = rows[beta, "share"]
        quantity = "share" if share["verdict"] == GAIN else "points"
        row = rows[beta, quantity]
        name = {
            "share": "safety's share left minus helpfulness's",
            "points": "helpfulness lost minus safety lost, points (no clear gain to take a share of)",
        }[quantity]
        verdict = above(row["low"], row["high"], 0)
        if row["p"] >= ALPHA:  # skewed draws may set interval and p apart
            verdict = Verdict.not_decided
        place = Place("persistence_differences", str(row["beta"]), "safe minus help", "points")
        found.append(_evidence(row, f"β {beta}", name, _numbers(row), "above 0", verdict, place))
    return found


def line(tables: Tables, model: str | None) -> list[Evidence]:
    """Return slope, intercept and scatter of the line through every model's recipes, or through one model's."""
    rows = tables["frontier_fits"].to_dict("records")
    names = [MAIN] if model is None else [f"only_{model}", MAIN]
    ordered = [row for name in names for row in rows if row["point_set"] == name]
    if not ordered:
        return []
    row = ordered[0]
    found = []
    for quantity in ("slope", "intercept", "scatter"):
        # Errors of measurement flatten a line, which moves its intercept; they widen the scatter, which errs safely.
        true = f"{quantity}_disattenuated"
        name = true if quantity != "scatter" and not pd.isna(row[f"{true}_low"]) else quantity
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        if quantity == "slope":
            verdict, expected, said = opposite(above(low, high, 0)), "below 0", "slope"
        elif quantity == "intercept":
            verdict, said = _near_zero(low, high), "safety gained where helpfulness is unchanged, points"
            expected = f"within ±{MARGIN}"
        else:
            verdict, expected = opposite(above(low, high, MARGIN)), f"below {MARGIN}"
            said = "scatter around the line, points"
        numbers = row[name], low, high, row["slope_p"] if quantity == "slope" else NAN
        subject = f"{'all models' if model is None else model}, {row['n']:.0f} points"
        found.append(
            _evidence(row, subject, said, numbers, expected, verdict, Place("frontier_fits", str(NAN), MAIN, quantity))
        )
    return found


def _near_zero(low: float, high: float) -> Verdict:
    """Return that a number is as good as 0, surely is not, or neither."""
    if low > -MARGIN and high < MARGIN:
        return Verdict.holds
    return Verdict.does_not if low > 0 or high < 0 else Verdict.not_decided


def lines(tables: Tables, model: str | None) -> list[Evidence]:
    """Return the slope through every set of points."""
    table = tables["frontier_fits"]
    rows = table[~table["point_set"].isin([ORIGIN, INTERPOLATED])].to_dict("records") if len(table) else []
    if model is not None or len(rows) < 2:  # nothing but one set is not everywhere
        return []
    found = []
    for row, corrected in zip(rows, _corrected(rows, "slope_p"), strict=True):
        rises = row["slope"] > 0 and corrected < ALPHA
        verdict = Verdict.holds if row["slope_high"] < 0 else Verdict.does_not if rises else Verdict.not_decided
        subject = f"{row['point_set'].replace('_', ' ')}, {row['n']:.0f} points"
        numbers = row["slope"], row["slope_low"], row["slope_high"], row["slope_p"]
        place = Place("frontier_fits", str(NAN), MAIN, "slope")
        found.append(_evidence(row, subject, "slope", numbers, "below 0", verdict, place))
    return found


def beyond_line(tables: Tables, model: str | None) -> list[Evidence]:
    """Return how far training on both at once lies beyond the line through the other recipes."""
    return [
        _evidence(
            row,
            f"{Recipe.both.label} beyond the others' line, β {_beta(row['beta'])}",
            "points of score",
            _numbers(row),
            f"below {MARGIN}",
            opposite(above(row["low"], row["high"], MARGIN)),
            _contrast_place(row),
        )
        for row in _of_model(tables["contrasts"], model)
        if row["axis"] == DISTANCE
    ]


def best_of_both(tables: Tables, model: str | None) -> list[Evidence]:
    """Return by how much training on both is safe and helpful at once more often than each single training."""
    rows = [row for row in _of_model(tables["contrasts"], model) if row["axis"] == BEST]
    rows = [row for row in rows if row["second"] == Recipe.both.value and row["first"] in (Recipe.safe, Recipe.help)]
    found = []
    for row, corrected in zip(rows, _corrected(rows), strict=True):
        fails = row["estimate"] > 0 and corrected < ALPHA
        holds = row["high"] < 0 and not row["p"] >= ALPHA
        verdict = Verdict.holds if holds else Verdict.does_not if fails else Verdict.not_decided
        subject = f"{Recipe.both.label} minus {Recipe(row['first']).label}, β {_beta(row['beta'])}"
        numbers = -row["estimate"], -row["high"], -row["low"], row["p"]
        said = "share of trajectories safe and helpful (2 or more in each)"
        found.append(_evidence(row, subject, said, numbers, "above 0", verdict, _contrast_place(row)))
    return found


def _of_model(table: pd.DataFrame, model: str | None) -> list[dict[Any, Any]]:
    if table.empty:
        return []
    return table[table["model"].isna() if model is None else table["model"] == model].to_dict("records")


def _corrected(rows: Sequence[Mapping[Any, Any]], name: str = "p") -> list[float]:
    return holm([1.0 if pd.isna(row[name]) else row[name] for row in rows])


def _numbers(row: Mapping[Any, Any]) -> tuple[float, float, float, float]:
    return float(row["estimate"]), float(row["low"]), float(row["high"]), float(row["p"])


def _contrast_place(row: Mapping[Any, Any]) -> Place:
    subject = str(row["first"]) if pd.isna(row["second"]) else f"{row['first']} minus {row['second']}"
    if not pd.isna(row["beta_minus"]):
        subject += f", minus that at {row['beta_minus']:g}"
    return Place("contrasts", str(row["beta"]), subject, row["axis"])


def _axis(axis: str) -> str:
    return "safety" if axis == "safe" else "helpfulness"


def _beta(beta: float) -> str:
    return "mixed" if pd.isna(beta) else f"{beta:g}"
