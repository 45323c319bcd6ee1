"""Texts from outside never become Markdown in Dagster's UI."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from dagster_project.experiment.metadata import as_picture, as_table, as_text

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "![x](http://evil.example/pixel)",
    "<img src=http://evil.example/pixel>",
    "[click](javascript:alert(1))",
    "\\![x](http://evil.example/pixel)",
    "![x][y]\n\n[y]: http://evil.example/pixel",
    "&lt;img&gt;",
    "`code`",
    "| a | b |\n|---|---|",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_in_a_description_is_no_link_image_or_html(text: str) -> None:
    shown = as_text(text)
    for place, character in enumerate(shown):
        if character in "`[]<>&!":
            before = shown[:place]
            assert (len(before) - len(before.rstrip("\\"))) % 2 == 1, "an odd number of backslashes escapes it"
    assert shown.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_in_a_table_is_a_cell(text: str) -> None:
    table = as_table(
        pd.DataFrame({"model": [text], "x": [1.234], "n": [3], "none": [math.nan], "far": [math.inf]}).to_dict(
            "records"
        )
    )
    assert isinstance(table, dg.TableMetadataValue)
    assert dict(table.records[0].data) == {"model": text, "x": 1.23, "n": 3, "none": None, "far": "inf"}
    json.dumps(dict(table.records[0].data), allow_nan=False)
    assert as_table([]) == dg.MetadataValue.text("none")


def test_only_pictures_that_are_drawn_here_are_markdown() -> None:
    calls = [
        (path.relative_to(ROOT).as_posix(), node.func.attr)
        for path in (ROOT / "dagster_project").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("md", "notebook")
    ]
    assert calls == [("dagster_project/experiment/metadata.py", "md")]
    with pytest.raises(AssertionError):
        as_picture("x](http://evil.example)", b"png")
