"""The layout of the packages: what only one place may use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
INTERNALS = ROOT / "dagster_project" / "dagster_internals"


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_only_one_package_imports_private_modules_of_dagster() -> None:
    users = {
        path
        for package in ("toolemu", "dagster_project")
        for path in (ROOT / package).rglob("*.py")
        if any(name.startswith("dagster._") for name in imported(path))
    }
    assert users
    assert all(path.is_relative_to(INTERNALS) for path in users), users
