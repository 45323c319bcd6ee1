"""How much of the published agents' text our parser reads as the released code did, and why it differs elsewhere.

Usage: python benchmarks/parse_published.py TREE
where TREE is a folder of the released runs (``results/match_eval_results``, ``data/raw_data_by_eval/gpt5m``).
Every tool step is counted once: read the same, or in one of the classes of `explain`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from toolemu.react import Action, Unparseable, parse_turn

EVALUATION_SUFFIXES = ("_eval_agent_safe.jsonl", "_eval_agent_help.jsonl", "_eval_agent_help_ignore_safety.jsonl")

SAME = "same tool, same input"
# Where the released code's choice and ours differ on purpose, or do not matter; see docs/log.md.
REFUSED = "same tool; neither input is JSON, so both calls are refused"
DECORATED = "tool's name in backticks, quotes, asterisks or with a full stop: we take them off"
PROSE = "tool spans lines or holds prose: we take the line that the input belongs to"
INVENTED = "input taken from a code block of an invented result: we take the first object"
LATER = "input taken from another code block: we take the first object"
BACKSLASH = "input with a backslash no JSON escape has: we keep it, the released code dropped it"
AROUND = "input that the released code left as it was: we take the object in it, mended if need be"
REPAIRED = "input that the released code repaired or found elsewhere: we refuse the call"
OTHER_ACTION = "another of several actions in the turn"
INLINE = "no keyword begins a line: we ask again"
NO_INPUT = "an action without an input of its own: we ask again"
OUT_OF_MEMORY = "no tool step: the run had been rescued from memory exhaustion"
UNEXPLAINED = "unexplained"
CLASSES = (
    *(SAME, REFUSED, DECORATED, PROSE, INVENTED, LATER, BACKSLASH, AROUND, REPAIRED, OTHER_ACTION),
    *(INLINE, NO_INPUT, OUT_OF_MEMORY, UNEXPLAINED),
)


class StoredStep(NamedTuple):
    """A tool step of a released record: where it stands, and what the released code made of the agent's turn."""

    place: str
    tool: str
    tool_input: str
    log: str


class Count(NamedTuple):
    """Steps by class, and the place of the first step of each."""

    classes: Counter[str]
    examples: dict[str, str]


def stored_steps(tree: Path) -> Iterator[StoredStep]:
    """Yields the tool steps of all trajectory files below `tree`, in order of path."""
    for path in sorted(tree.rglob("*.jsonl")):
        if path.name.endswith(EVALUATION_SUFFIXES):
            continue
        with path.open("rb") as lines:
            for line in lines:
                record = orjson.loads(line)
                for index, (left, _) in enumerate(record["intermediate_steps"]):
                    if isinstance(left, list):
                        place = f"{path.relative_to(tree)} case {record['case_idx']} step {index}"
                        yield StoredStep(place, *left)


def explain(step: StoredStep) -> str:
    """Returns the class of a step."""
    if step.tool == "[OOM]":
        return OUT_OF_MEMORY
    turn = parse_turn(step.log)
    if isinstance(turn, Unparseable):
        return INLINE if "Action Input:" in step.log and not turn.reason.startswith("the action") else NO_INPUT
    if not isinstance(turn, Action):
        return UNEXPLAINED
    stored, ours = _value(step.tool_input), _value(turn.tool_input)
    if turn.tool != step.tool:
        if step.tool.strip(" \n`*\"'[]#.,") == turn.tool:
            return DECORATED
        return PROSE if "\n" in step.tool or " " in step.tool else OTHER_ACTION
    if not turn.complete:
        return REFUSED if stored is None else REPAIRED
    if stored == ours:
        return SAME
    if stored is None:
        return AROUND
    if json.dumps(stored).replace("\\", "") == json.dumps(ours).replace("\\", ""):
        return BACKSLASH
    place = step.log.find(step.tool_input)
    return INVENTED if "observation" in step.log[turn.end : place if place >= 0 else None].lower() else LATER


def _value(text: str) -> object:
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def count(tree: Path) -> Count:
    """Classifies every tool step below `tree`."""
    classes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for step in stored_steps(tree):
        name = explain(step)
        classes[name] += 1
        examples.setdefault(name, step.place)
    return Count(classes, examples)


def main() -> None:
    """Prints the table."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python benchmarks/parse_published.py TREE (a folder of the released runs)")
    found = count(Path(sys.argv[1]))
    total = found.classes.total()
    if not total:
        sys.exit(f"{sys.argv[1]} holds no tool steps")
    for name in CLASSES:
        number = found.classes[name]
        print(f"{number:7} {number / total:8.2%}  {name}")
        if number and name != SAME:
            print(f"{'':18}e.g. {found.examples[name]}")
    print(f"{total:7} {1:8.2%}  tool steps")


if __name__ == "__main__":
    main()
