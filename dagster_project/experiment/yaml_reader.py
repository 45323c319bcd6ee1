"""Read YAML that somebody else may have written: the YAML 1.2 core schema, strictly, with bounded time and memory.

PyYAML reads YAML 1.1, in which `1e-5` is a text, `012` is ten, `no` is false and `1:30` is ninety. This reader takes
numbers, booleans and nulls as YAML 1.2 does. It refuses numbers that the two versions read differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from toolemu.errors import InputError
from toolemu.textfile import read_text

MAX_BYTES = 2**18
MAX_DEPTH = 40
MAX_NODES = 20_000
"""The most values in a file, with every alias counted as what it stands for."""
MAX_DIGITS = 30
_CORE = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TWO_MEANINGS = re.compile(r"[-+]?0[0-9]+|[-+]?0b[01_]+")
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class _RefusedError(yaml.YAMLError):
    """A value that this reader does not take, and the code of the error."""

    def __init__(self, mark: yaml.Mark | None, problem: str, *, code: str) -> None:
        self.problem_mark, self.problem, self.code = mark, problem, code
        super().__init__(problem)


class _Loader(yaml.SafeLoader):
    """A loader that knows the core schema alone: no tags of YAML 1.1 or Python, no dates."""

    depth = 0
    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; raise `_RefusedError` if it lies too deep, or is one too many."""
        self.depth += 1
        self.composed += 1
        if self.depth > MAX_DEPTH or self.composed > MAX_NODES:
            problem = f"the file holds more than {MAX_NODES:,} values, or values more than {MAX_DEPTH} levels deep"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _RefusedError(mark, problem, code="yaml.too-large")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping; raise `_RefusedError` if a key stands in it twice."""
        own = [key for key, _ in node.value if key.tag != f"{_CORE}merge"]
        seen: set[Hashable] = set()
        for key in own:
            value = self.construct_object(key, deep=True)
            if not isinstance(value, Hashable):
                raise _RefusedError(key.start_mark, "a key is a list or a mapping; expected text", code="yaml.invalid")
            if value in seen or str(value) in seen:
                problem = f"there is a second {value!r} in the same section; the first would be lost. Rename one"
                raise _RefusedError(key.start_mark, problem, code="yaml.duplicate-key")
            seen |= {value, str(value)}
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {}


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(node.value)
    if unwanted := _UNWANTED.search(text):
        problem = f"the text holds the control character U+{ord(unwanted[0]):04X}; delete it"
        raise _RefusedError(node.start_mark, problem, code="yaml.control-character")
    return text


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    if _TWO_MEANINGS.fullmatch(text):
        problem = f"{text[:MAX_DIGITS]} means different numbers in different versions of YAML. "
        problem += "Write the number without the leading 0, or put a text in quotes"
        raise _RefusedError(node.start_mark, problem, code="yaml.ambiguous-number")
    if len(text) > MAX_DIGITS or not _INTEGER.fullmatch(text):
        raise _RefusedError(
            node.start_mark, f"expected a whole number of at most {MAX_DIGITS} digits", code="yaml.number"
        )
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(node.value)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if not (_FLOAT.fullmatch(text) or _INTEGER.fullmatch(text)) or not math.isfinite(float(text)):
        problem = f"{text[:MAX_DIGITS]!r} is too large for a number. Put a text in quotes"
        raise _RefusedError(node.start_mark, problem, code="yaml.number")
    return float(text)


def _boolean(loader: _Loader, node: yaml.ScalarNode) -> bool:
    if node.value.lower() not in ("true", "false"):
        raise _RefusedError(node.start_mark, "expected true or false", code="yaml.invalid")
    return bool(node.value.lower() == "true")


def _tag(loader: _Loader, node: yaml.Node) -> Any:
    problem = f"the tag {str(node.tag)[:60]!r} is not known here. Delete the tag"
    raise _RefusedError(node.start_mark, problem, code="yaml.invalid")


for _name, _pattern in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)")),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)")),
    ("int", re.compile(f"(?:{_INTEGER.pattern}|{_TWO_MEANINGS.pattern})")),
    ("float", re.compile(f"(?:{_FLOAT.pattern}|{_NOT_FINITE.pattern})")),
    ("merge", re.compile("(?:<<)")),
):
    # The resolver calls `match`, which does not look at the end of the text.
    _Loader.add_implicit_resolver(f"{_CORE}{_name}", re.compile(f"(?:{_pattern.pattern})\\Z"), None)
for _name, _constructor in (
    ("null", lambda loader, node: None),
    ("bool", _boolean),
    ("int", _integer),
    ("float", _float),
    ("str", _text),
    ("merge", _text),
    ("seq", yaml.SafeLoader.construct_yaml_seq),
    ("map", yaml.SafeLoader.construct_yaml_map),
):
    _Loader.add_constructor(f"{_CORE}{_name}", _constructor)
_Loader.add_constructor(None, _tag)


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Return how many values a node stands for, every alias counted as what it names.

    Args:
        node: The node.
        known: Counts of nodes that were visited, by identity.
        above: The nodes that this one lies in.

    Raises:
        _RefusedError: There are too many, or a value contains itself.
    """
    if id(node) in above:
        raise _RefusedError(node.start_mark, "a value contains itself through an alias", code="yaml.too-large")
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        inside = above | {id(node)} if children else above
        known[id(node)] = 1 + sum(_count(child, known, inside) for child in children)
    if known[id(node)] > MAX_NODES:
        problem = f"stands for more than {MAX_NODES:,} values, aliases included"
        raise _RefusedError(node.start_mark, problem, code="yaml.too-large")
    return known[id(node)]


def parse_yaml(text: str, path: Path) -> Any:
    """Return the value in a YAML text.

    Args:
        text: The text.
        path: Where the text is from, for errors.

    Raises:
        InputError: The text is not YAML, has a key twice, holds a value that can be read in two ways, or stands for
            more than `MAX_NODES` values; names line and column.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, set())
        return loader.construct_document(node)
    except _RefusedError as error:
        raise _problem(path, error, error.problem, error.code) from None
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        raise _problem(path, error, f"not valid YAML: {problem}", "yaml.invalid") from None
    except (ValueError, OverflowError) as error:  # of an escape such as "\UFFFFFFFF"
        raise InputError(path, "", "not valid YAML: a character that does not exist.", code="yaml.invalid") from error
    finally:
        if loader is not None:
            loader.dispose()


def _problem(path: Path, error: yaml.YAMLError, problem: str, code: str) -> InputError:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return InputError(path, place, f"{problem}.", "Correct the file.", code=code)


def read_yaml(path: Path) -> Any:
    """Return the value in a YAML file; see `parse_yaml`. UTF-16 and byte-order marks are read, too.

    Raises:
        InputError: The file cannot be read, or see `parse_yaml`.
    """
    return parse_yaml(read_text(path, MAX_BYTES), path)
