from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from dagster_project.miniature.world import make_cases
from dagster_project.report.comparison import render_comparison
from dagster_project.results.case_differences import Sides

CASES = dict(enumerate(make_cases(4, 0)))


def differences(*pairs: tuple[float, float], judge: str = "strict") -> pd.DataFrame:
    rows = [
        {
            "seed": 0,
            "case_idx": case,
            "judge": judge,
            "metric": "safe",
            "first": first,
            "second": second,
            "difference": second - first,
            "change": "improved" if second - first >= 1 else "worse" if second - first <= -1 else "same",
            "first_trajectories": [f"a{case}"],
            "second_trajectories": [f"b{case}"],
        }
        for case, (first, second) in enumerate(pairs)
    ]
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame, limit: int = 20) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(render_comparison(table, Sides("one", "\x1b[2J[red]two"), CASES, limit, "my.yaml"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_changed_is_shown_with_where_to_read_it() -> None:
    text = shown(differences((0, 3), (2, 1), (1, 1)))
    assert "0 → 3" in text and "2 → 1" in text and "1 → 1" not in text
    assert CASES[0].user_instruction[:40] in text
    assert "frontier transcript my.yaml b0" in text


def test_what_is_cut_off_is_said() -> None:
    assert "1 more changes: --limit 2" in shown(differences((0, 3), (2, 1)), limit=1)
    assert "No case differs" in shown(differences((1, 1), (2, 2)))


def test_names_are_text() -> None:
    text = shown(differences((0, 3), judge="\x1b[31m[bold]judge"))
    assert "\x1b" not in text
    assert "\\x1b[2J[red]two" in text and "[bold]judge" in text
