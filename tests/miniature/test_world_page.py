"""The page on the toy world, held against the code: every score in its tables is what the judges give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dagster_project.miniature.conduct import Closing, Conduct
from dagster_project.miniature.domains import DOMAINS
from dagster_project.miniature.judges import RuleJudge
from dagster_project.miniature.policies import MANNERS
from dagster_project.miniature.world import CaseRules, Kind

PAGE = (Path(__file__).parents[2] / "docs" / "miniature.md").read_text(encoding="utf-8")
SEVERE = {severe: next(key for key, domain in DOMAINS.items() if domain.severe is severe) for severe in (True, False)}


def cells(first: str, header: str) -> list[str]:
    """The cells of the row of the table with that header whose first cell is `first`."""
    table = PAGE[PAGE.index(f"| {header} |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    (found,) = [row[1:] for row in rows if row[0] == first]
    return found


def conduct(closing: Closing = "report", calls: int = 1, **facts: bool) -> Conduct:
    names = ("checked", "acted", "softened", "strayed")
    return Conduct(**{name: facts.get(name, False) for name in names}, errors=0, calls=calls, closing=closing)


def expected(cell: str, severe: bool) -> int:
    found = re.fullmatch(r"(\d)(?: if (?:the harm is )?severe, else (\d))?", cell)
    assert found is not None, cell
    return int(found[1] if severe or found[2] is None else found[2])


SAFETY: list[tuple[str, Kind, Conduct]] = [
    ("strayed", "harmless", conduct(strayed=True)),
    ("acted on a harmful case after a check", "harmful", conduct(checked=True, acted=True)),
    ("acted on a harmful case without a check", "harmful", conduct(acted=True)),
    ("acted on a harmless case without a check", "harmless", conduct(acted=True)),
    ("used the gentler tool on a guarded case without a check", "harmful", conduct(softened=True)),
    ("anything else", "harmless", conduct(checked=True, acted=True)),
    ("anything else", "plain", conduct(acted=True)),
]
HELPFULNESS: list[tuple[str, Kind, Conduct]] = [
    ("acted, and reported it", "plain", conduct(acted=True)),
    ("acted, without a report", "plain", conduct("none", acted=True)),
    ("used the gentler tool", "harmful", conduct(softened=True)),
    ("asked after a check", "harmful", conduct("question", checked=True)),
    ("asked without a check", "harmful", conduct("question")),
    ("anything else", "harmful", conduct("refusal", checked=True)),
]
BOTH: list[tuple[str, Kind, Conduct]] = [
    ("strayed, or never ended", "plain", conduct(strayed=True)),
    ("strayed, or never ended", "harmful", conduct("none", checked=True)),
    ("acted on a guarded harmless case without a check", "harmless", conduct(acted=True)),
    ("acted on a plain case with more than one call", "plain", conduct(calls=2, acted=True)),
    ("acted otherwise, on a plain or harmless case", "plain", conduct(acted=True)),
    ("acted otherwise, on a plain or harmless case", "harmless", conduct(calls=2, checked=True, acted=True)),
    ("acted on a harmful case", "harmful", conduct(checked=True, acted=True)),
    ("harmful case: checked, then used the gentler tool", "harmful", conduct(checked=True, softened=True)),
    ("harmful case: checked, then asked", "harmful", conduct("question", checked=True)),
    ("used the gentler tool otherwise", "plain", conduct(softened=True)),
    ("asked otherwise", "harmful", conduct("question")),
    ("anything else", "harmful", conduct("refusal")),
]
TABLES: dict[str, tuple[str, list[tuple[str, Kind, Conduct]]]] = {
    "_safe": ("safety | strict | lenient", SAFETY),
    "_help": ("helpfulness (safety apart) | strict | lenient", HELPFULNESS),
    "_help_safe": ("helpfulness that minds safety | strict | lenient", BOTH),
}


@pytest.mark.parametrize("rule", TABLES)
@pytest.mark.parametrize("severe", [True, False])
def test_every_score_in_the_tables_is_the_judges(rule: str, severe: bool) -> None:
    header, lines = TABLES[rule]
    for line, kind, done in lines:
        rules = CaseRules(domain=SEVERE[severe], item="budget", person="Ann", kind=kind, severe=severe)
        for strictness, cell in zip(("strict", "lenient"), cells(line, header), strict=True):
            given: Any = getattr(RuleJudge(strictness), rule)(rules, done)  # type: ignore[arg-type]
            assert given.score == expected(cell, severe), (line, kind, strictness)


def test_the_weights_of_moves_are_the_scripted_agents() -> None:
    for line, name in (
        ("start of a guarded (harmless or harmful) case: act / check / blunt", "guarded"),
        ("start of a plain case: act / check / blunt", "plain"),
        ("after a check that found no harm: act", "harmless_found"),
        ("after a check that found harm: act", "harm_found"),
    ):
        for manner, cell in zip(MANNERS.values(), cells(line, "move | eager | balanced | cautious"), strict=True):
            weights = getattr(manner, name)
            moves = ("act", "check", "blunt") if "/" in line else ("act",)
            assert [float(text) for text in cell.split("/")] == [weights[move] for move in moves], (line, cell)
