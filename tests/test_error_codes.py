"""Every error code in the packages has an entry in docs/errors.md, and the page has no other entries."""

import ast
import re
from pathlib import Path

from toolemu.errors import FrontierError, InputError

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "errors.md"


def _codes(tree: ast.AST) -> set[str]:
    """Return the codes that a module raises (`SomeError(..., code="...")`) or sets as a class's default."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.endswith("Error"):
                found |= {keyword.value.value for keyword in node.keywords if _is_code(keyword.arg, keyword.value)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if "default_code" in names and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    return found


def _is_code(name: str | None, value: ast.expr) -> bool:
    return name == "code" and isinstance(value, ast.Constant) and bool(value.value)


def test_every_code_is_documented_and_every_entry_has_a_code():
    modules = [path for package in ("toolemu", "dagster_project") for path in (ROOT / package).rglob("*.py")]
    raised = set().union(*(_codes(ast.parse(path.read_text("utf-8"))) for path in modules))
    assert raised, "no code was found"
    entries = re.findall(r"^### (.+)$", PAGE.read_text("utf-8"), re.M)
    assert sorted(raised) == sorted(entries)


def test_an_error_has_the_code_it_was_raised_with_or_its_class_default():
    code = "archive.too-large"
    assert FrontierError("x", code=code).code == code
    assert FrontierError("x").code == "general"
    assert InputError("a.yaml", "line 1", "is wrong.").code == "input"
    assert InputError("a.yaml", "line 1", "is wrong.", code=code).code == code
