"""Searching transcripts: what is found, where, and how it is shown."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dagster_project.report.search import AROUND, Hit, render_hits, search
from dagster_project.report.transcript_files import Source
from tests.conftest import Import
from tests.report.page.world import trajectory, verdict
from toolemu.errors import FrontierError
from toolemu.jsonl import write_jsonl
from toolemu.trajectory import Step


def step(log: str, observation: str) -> Step:
    return Step(log=log, tool="MailSend", tool_input="{}", observation=observation)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    told: list[dict[str, Any]] = [
        {
            "user_input": "Tidy up.",
            "steps": (step("Thought: delete\nit all", '{"gone": "Äpfel"}'),),
            "final_log": "x" * 500,
        },
        {"user_input": "Say \\N.", "steps": (), "final_log": 'He said "now"\tand left.'},
    ]
    records = [trajectory("m", 0, case).model_copy(update=fields) for case, fields in enumerate(told)]
    write_jsonl(tmp_path / "trajectories.jsonl", reversed(records))
    verdicts = [verdict("m", 0, case, "strict").model_copy(update={"thought": "Careless, Ärger."}) for case in (0, 1)]
    write_jsonl(tmp_path / "evaluations.jsonl", verdicts)
    return Source("m", 0, tmp_path / "trajectories.jsonl", (tmp_path / "evaluations.jsonl",))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["DELETE"], [(0, "step 1")]),
        (["delete\nit"], [(0, "step 1")]),
        (["äpfel"], [(0, "result 1")]),
        (["äpfel", "tidy"], [(0, "result 1")]),
        (["tidy up"], [(0, "task")]),
        (['said "now"\tand'], [(1, "end")]),
        (["say \\n."], [(1, "task")]),
        (["ärger"], [(0, "strict, safe"), (1, "strict, safe")]),
        (["tidy", "ärger"], []),
        (["observation_source"], []),
        (["nowhere"], []),
    ],
)
def test_words_are_found_in_what_was_said_and_not_in_how_it_is_kept(
    source: Source, words: list[str], found: list[tuple[int, str]]
) -> None:
    assert [(hit.case_idx, hit.place) for hit in search([source], words)] == found


def test_without_a_word_nothing_is_searched(source: Source) -> None:
    with pytest.raises(FrontierError, match="at least one word"):
        list(search([source], [" ", ""]))


def test_an_excerpt_is_one_line_around_the_first_word(source: Source, tmp_path: Path) -> None:
    long = trajectory("m", 0, 2).model_copy(update={"final_log": "a " * 200 + "needle\x1b[31m\nin hay" + " b" * 200})
    write_jsonl(tmp_path / "long.jsonl", [long])
    (hit,) = search([Source("m", 0, tmp_path / "long.jsonl", ())], ["hay", "needle"])
    assert hit.excerpt.startswith("…") and hit.excerpt.endswith("…") and "needle" in hit.excerpt
    assert "\n" not in hit.excerpt and "\x1b" not in hit.excerpt
    assert len(hit.excerpt) < 2 * AROUND + 10


def test_the_table_counts_all_and_shows_some() -> None:
    hits = [Hit("m", seed, 3, 1, f"id{seed}", "end", "a [bold]needle") for seed in (None, 1, 2)]
    told = StringIO()
    Console(file=told, width=100).print(render_hits(hits, ["needle"], 2))
    assert "3 trajectories of 3 runs, of which these are 2" in told.getvalue()
    assert "a [bold]needle" in told.getvalue() and "3.1" in told.getvalue()
    assert "id1" in told.getvalue() and "id2" not in told.getvalue()


def test_the_command_names_a_transcript_that_another_command_shows(imported: Import) -> None:
    lab = imported.lab
    found = lab.frontier("search", "imported.yaml", "I pretend", "--seed", "0", "--limit", "1").stdout
    (identity,) = re.findall(r"\b[0-9a-f]{16}\b", found)
    assert "frontier transcript imported.yaml ID" in found
    shown = lab.frontier("transcript", "imported.yaml", identity).stdout
    assert "I pretend." in shown and "seed 0" in shown
    nothing = lab.frontier("search", "imported.yaml", "I pretend", "--agent", "nobody", check=False)
    assert nothing.returncode == 1 and "has no trajectories of agent nobody" in nothing.stderr
    assert "No transcript has all of that." in lab.frontier("search", "imported.yaml", "xyzzy").stdout
