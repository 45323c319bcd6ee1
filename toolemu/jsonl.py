"""Records as JSON lines: read with the line number in every error, written whole or not at all."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel

from toolemu.errors import InputError, shorten, validate_record
from toolemu.textfile import read_text

Record = TypeVar("Record", bound=BaseModel)
MAX_LEVELS = 40
"""How deep lists and objects may lie in each other in a file that a user gave."""


def encode(record: BaseModel) -> bytes:
    """Returns `record` as one line of UTF-8 JSON, newline included; keys in the order of the model's fields."""
    return record.model_dump_json(by_alias=True).encode() + b"\n"


def encodable(text: str) -> str:
    """Returns `text` without lone surrogates, which models write now and then and no file can hold."""
    return text.encode("utf-8", "replace").decode()


def is_deeper(value: object, levels: int = MAX_LEVELS) -> bool:
    """Say whether lists and objects lie in each other more than `levels` deep; copying those exhausts the stack."""
    row = [value]
    for _ in range(levels):
        row = [
            child
            for parent in row
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not row:
            return False
    return any(isinstance(child, dict | list) for child in row)


def read_json(path: Path) -> object:
    """Return the JSON value in `path`; a byte-order mark and UTF-16 are read, too.

    Raises:
        InputError: The file cannot be read, or is not JSON; names line and column.
    """
    text = read_text(path)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(path, place, f"not valid JSON: {error.msg}.", "Correct it.", code="json.invalid") from error
    if is_deeper(value):
        problem = f"values lie more than {MAX_LEVELS} levels deep."
        raise InputError(path, "", problem, "Check that this is the right file.", code="json.too-deep")
    return value


def iter_json_lists(path: Path, what: str) -> Iterator[tuple[Path, int, object]]:
    """Yields (file, position, value) for every entry of the JSON list in `path`, or in each ``*.json`` of a folder.

    Args:
        path: One file, or a folder whose files are read in order of name.
        what: What the entries are, for messages.

    Raises:
        InputError: A folder without such files, or a file that is not a JSON list.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(path, "", "holds no *.json file.", f"Give a file of {what} or a folder of such files.")
    for file in files:
        values = read_json(file)
        if not isinstance(values, list):
            raise InputError(file, "", f"expected a JSON list of {what}, found {type(values).__name__}.")
        yield from ((file, position, value) for position, value in enumerate(values))


def iter_jsonl(path: Path, model: type[Record]) -> Iterator[Record]:
    """Yields the records of `path` in order; a bad line raises `InputError` with its number."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(path, f"line {number}", f"not valid JSON: {error.msg}, in {shorten(line)}.") from error
            yield validate_record(model, value, path, f"line {number}")


def read_jsonl(path: Path, model: type[Record]) -> list[Record]:
    """Returns all records of `path`; see `iter_jsonl`."""
    return list(iter_jsonl(path, model))


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Writes `records` to `path` atomically (a reader sees the old file or the new one) and returns their number."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    count = 0
    with partial.open("wb") as out:
        for record in records:
            out.write(encode(record))
            count += 1
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)
    return count
