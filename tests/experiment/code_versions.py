"""Which sources decide what an asset holds, and the digests of these sources when its code version was last looked at.

After a change, raise the version in the code and run `python -m tests.experiment.code_versions`. If everything that
the changed code makes is the same as before, leave the version and run it with `--same NAME`. Either way the author has
said what is true, and the reviewer sees it in `code_versions.json`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dagster_project.experiment.code import EVALUATION_VERSION, LOOP_VERSION
from dagster_project.experiment.graph import CODE_VERSIONS, IMPORT, INTERPOLATED
from dagster_project.judges.lm import READING_VERSION
from dagster_project.published.importer import CODE_VERSION

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_suffix(".json")
PACKAGE = "dagster_project"


class Versioned(NamedTuple):
    """Code versions that stand for the same sources: patterns of paths from the repository's root."""

    versions: tuple[str, ...]
    sources: tuple[str, ...]


VERSIONED: Mapping[str, Versioned] = {
    "source models": Versioned(
        (CODE_VERSIONS["source_models"],),
        tuple(f"{PACKAGE}/miniature/{name}.py" for name in ("conduct", "models", "policies", "tokenizer")),
    ),
    "imported runs": Versioned(
        (CODE_VERSIONS[IMPORT], CODE_VERSION),
        tuple(
            f"{PACKAGE}/published/{name}.py" for name in ("conversations", "importer", "names", "reading", "records")
        ),
    ),
    "trajectories": Versioned(
        (CODE_VERSIONS["trajectories"], LOOP_VERSION),
        tuple(
            f"toolemu/{name}.py"
            for name in ("keywords", "lm_emulator", "objects", "react", "rollout", "seeds", "thinking", "toolkits")
        ),
    ),
    "evaluations": Versioned(
        (CODE_VERSIONS["evaluations"], EVALUATION_VERSION, READING_VERSION),
        tuple(f"toolemu/{name}.py" for name in ("lm_judge", "scales", "scores", "verdict")),
    ),
    "pairs": Versioned(
        (CODE_VERSIONS["preference_pairs"],),
        (f"{PACKAGE}/preferences/pairs.py", f"{PACKAGE}/experiment/splits.py"),
    ),
    "agents": Versioned((CODE_VERSIONS["agent_specs"],), (f"{PACKAGE}/training/specs.py",)),
    "adapters": Versioned(
        (CODE_VERSIONS["adapters"],),
        (
            *(
                f"{PACKAGE}/training/{name}.py"
                for name in ("chat_template", "conversations", "dpo", "grouping", "references", "shared_text")
            ),
            f"{PACKAGE}/training/token_tree.py",
            f"{PACKAGE}/training/trainer.py",
            "toolemu/chat/rendering.py",
        ),
    ),
    "merged models": Versioned((CODE_VERSIONS["merged_models"],), (f"{PACKAGE}/training/merge.py",)),
    "interpolated adapters": Versioned((CODE_VERSIONS[INTERPOLATED],), (f"{PACKAGE}/training/concatenate.py",)),
    "warehouse": Versioned(
        (CODE_VERSIONS["warehouse"],),
        (f"{PACKAGE}/results/warehouse.py", f"{PACKAGE}/results/operations.py", f"{PACKAGE}/results/sql/*"),
    ),
    "results": Versioned(
        (CODE_VERSIONS["results"],),
        tuple(
            f"{PACKAGE}/results/{name}.py"
            for name in (
                *("agreement", "audits", "case_differences", "comparisons", "contrasts", "disagreements", "fits"),
                *("frontier", "intervals", "pair_options", "pareto", "persistence", "points", "scores"),
            )
        ),
    ),
    "claims": Versioned(
        (CODE_VERSIONS["claims"],),
        tuple(f"{PACKAGE}/results/{name}.py" for name in ("claims", "evidence", "statements")),
    ),
    "figures and tables": Versioned(
        (CODE_VERSIONS["report"],),
        (
            f"{PACKAGE}/report/figures/*.py",
            *(f"{PACKAGE}/report/{name}.py" for name in ("cases", "database", "latex", "links", "tables", "wording")),
            f"{PACKAGE}/results/schema.py",
        ),
    ),
    "transcripts": Versioned((CODE_VERSIONS["transcripts"],), (f"{PACKAGE}/report/transcript_files.py",)),
    "page": Versioned((CODE_VERSIONS["page"],), (f"{PACKAGE}/report/page/**/*.*",)),
}


def files(name: str) -> Iterator[Path]:
    """Yield the sources of an entry, in order.

    Raises:
        FileNotFoundError: A pattern of its names no file.
    """
    for pattern in VERSIONED[name].sources:
        found = sorted(path for path in ROOT.glob(pattern) if "__pycache__" not in path.parts and path.is_file())
        if not found:
            raise FileNotFoundError(f"{name}: {pattern} names no file")
        yield from found


def meaning(path: Path) -> bytes:
    """Return what of a file can change a result: of Python neither comments nor docstrings nor empty lines."""
    if path.suffix != ".py":
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a string that stands alone
            for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[line] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip()).encode()


def current() -> dict[str, dict[str, str]]:
    """Return version and digest of every entry as the sources are now."""
    found = {}
    for name, entry in VERSIONED.items():
        digest = hashlib.sha256()
        for path in files(name):
            digest.update(meaning(path))
        found[name] = {"version": ".".join(entry.versions), "sources": digest.hexdigest()[:16]}
    return found


def recorded() -> dict[str, dict[str, str]]:
    """Return what the record has."""
    known: dict[str, dict[str, str]] = json.loads(RECORD.read_text(encoding="utf-8"))
    return known


def forgotten() -> list[str]:
    """Return the entries whose sources changed and whose version did not."""
    known, now = (recorded() if RECORD.exists() else {}), current()
    return [
        name
        for name, entry in now.items()
        if name in known and entry["version"] == known[name]["version"] and entry["sources"] != known[name]["sources"]
    ]


def main() -> None:
    """Write the record, unless a version was forgotten."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--same", nargs="*", default=[], metavar="NAME", help="these make the same as before")
    same = parser.parse_args().same
    left = [name for name in forgotten() if name not in same]
    if left:
        parser.error(f"the sources of {', '.join(left)} changed: raise their versions, or say --same {left[0]!r} …")
    RECORD.write_text(json.dumps(current(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
