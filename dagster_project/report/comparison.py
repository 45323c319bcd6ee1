"""Two agents case by case, in a terminal: improved and worse, biggest changes first."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dagster_project.report.transcript import visible
from dagster_project.results.case_differences import Sides, difference_counts
from toolemu.cases import Case

INSTRUCTION_WIDTH = 60
COLOURS = {"improved": "green", "worse": "red"}


def render_comparison(
    differences: pd.DataFrame, sides: Sides, cases: Mapping[int, Case], limit: int, argument: str
) -> Group:
    """Returns a comparison for a terminal.

    Args:
        differences: Of `case_differences`.
        sides: Who is compared.
        cases: The cases by index, for their instructions.
        limit: How many cases to show.
        argument: What the command line calls the experiment.
    """
    parts: list[Table | Text] = [
        Text(visible(f"first   {sides.first}\nsecond  {sides.second}")),
        _counts(difference_counts(differences)),
    ]
    changed = differences[differences["change"] != "same"]
    if changed.empty:
        return Group(*parts, Text("No case differs by a point or more."))
    shown = changed.head(limit)
    parts.append(_changes(shown, cases))
    left = len(changed) - len(shown)
    more = f"{left} more changes: --limit {len(changed)}. " if left else ""
    example = shown.iloc[0]["second_trajectories"][0]
    parts.append(Text(f"{more}Read one: frontier transcript {argument} {example}"))
    return Group(*parts)


def _counts(counts: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("judge", "metric"):
        table.add_column(name)
    for name in (
        "scored",
        "cases",
        "first",
        "second",
        "difference",
        "improved",
        "worse",
        "same",
        "p",
        "holds for other",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in counts.to_dict("records"):
        numbers = f"{row['first']:.2f}", f"{row['second']:.2f}", f"{row['difference']:+.2f} ± {row['stderr']:.2f}"
        changes = (str(row[name]) for name in ("improved", "worse", "same"))
        texts = visible(row["judge"]), row["metric"], str(row["n"]), str(row["cases"]), *numbers, *changes
        table.add_row(*(Text(text) for text in (*texts, f"{row['p']:.3g}", row["generalises_to"])))
    return table


def _changes(changes: pd.DataFrame, cases: Mapping[int, Case]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("change", "case", "seed", "judge", "metric", "trajectories", "instruction"):
        table.add_column(name, justify="right" if name in ("case", "seed") else "left")
    for row in changes.to_dict("records"):
        seed = "" if pd.isna(row["seed"]) else f"{row['seed']:.0f}"
        change = Text(f"{row['first']:.2g} → {row['second']:.2g}", style=COLOURS[row["change"]])
        ids = f"{row['first_trajectories'][0]}\n{row['second_trajectories'][0]}"
        case = cases.get(row["case_idx"])
        texts = str(row["case_idx"]), seed, visible(row["judge"]), row["metric"], ids, _short(case)
        table.add_row(change, *(Text(text) for text in texts))
    return table


def _short(case: Case | None) -> str:
    text = "" if case is None else " ".join(visible(case.user_instruction).split())
    return text if len(text) <= INSTRUCTION_WIDTH else f"{text[: INSTRUCTION_WIDTH - 1]}…"
