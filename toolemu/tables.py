"""Read a table that a person filled in with a spreadsheet, and write cells that a spreadsheet takes for text.

Programs write tables in the way of their locale: separated by commas, semicolons or tabs, with a byte-order mark, in
UTF-16, with padded cells, and with blank rows and columns at the end. All of that is read. A quotation mark that nobody
closed is an error, since it would make one cell of all the rows that follow.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from toolemu.errors import InputError
from toolemu.textfile import read_text

SEPARATORS = (",", ";", "\t", "|")
_FORMULA = re.compile(r"[\s\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBERS = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?%?(?: \[[-+]?[0-9.]+, [-+]?[0-9.]+\])?")
"""A number, or a number with its interval: `+0.25 [-0.10, +0.60]`. No spreadsheet takes these for more."""


class Row(NamedTuple):
    """One row of a table: the line on which it begins, and its cells by the lower-case name of their column."""

    line: int
    cells: dict[str, str]


def plain_cell(text: str) -> str:
    """Return a cell's text as no spreadsheet runs it: what begins like a formula gets an apostrophe in front.

    Source: OWASP, "CSV Injection".
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBERS.fullmatch(text) else text


def read_table(path: Path, needed: Sequence[str], words: Set[str]) -> Iterator[Row]:
    """Yield the rows of a table with a header, without blank rows and blank cells. Cells are stripped of blanks.

    Args:
        path: The file.
        needed: Names of columns that the header must have.
        words: The words of which one stands in every row. A cell of several lines in which one stands between
            separators is taken for the sign of an open quotation mark.

    Raises:
        InputError: The header lacks a column or has one twice, a quotation mark is open, or a row has more cells than
            the header; names the line.
    """
    text = read_text(path)
    lines = text.splitlines()
    first = 1 if lines and re.fullmatch(r"sep=.", lines[0], re.IGNORECASE) else 0  # how Excel is told the separator
    separator, names = _header(path, lines[first] if len(lines) > first else "", first + 1, needed)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    began = 1
    try:
        for cells in reader:
            line, began = began, reader.line_num + 1
            if line > first + 1 and any(cell.strip() for cell in cells):
                _check_quotes(path, line, cells, separator, words)
                yield Row(line, _named(path, line, cells, names))
    except csv.Error as error:
        raise _open_quote(path, began, str(error)) from error


def _header(path: Path, header: str, line: int, needed: Sequence[str]) -> tuple[str, list[str]]:
    """Return the separator with which a header has the needed columns, and the names of all columns."""
    found: list[str] = []
    for separator in SEPARATORS:
        try:
            cells = next(csv.reader([header], delimiter=separator, strict=True), [])
        except csv.Error:
            continue
        names = [cell.strip().lower() for cell in cells]
        if set(needed) <= set(names):
            twice = [name for name in names if name and names.count(name) > 1]
            if twice:
                problem = f"the column {twice[0]!r} is there twice."
                raise InputError(path, f"line {line}", problem, "Delete one.", code="table.header")
            return separator, names
        found = max(found, names, key=len)
    missing = next(name for name in needed if name not in found)
    problem = f"there is no column {missing!r}. Found: {', '.join(filter(None, found)) or 'nothing'}."
    remedy = f"The first line names the columns, separated by commas: {', '.join(needed)}."
    raise InputError(path, f"line {line}", problem, remedy, code="table.header")


def _named(path: Path, line: int, cells: list[str], names: list[str]) -> dict[str, str]:
    nameless = [cell for place, cell in enumerate(cells) if cell.strip() and (place >= len(names) or not names[place])]
    if nameless:
        problem = f"the cell {nameless[0].strip()[:40]!r} is in no column that has a name."
        remedy = "Put a text that holds the separator in quotation marks, or delete the cell."
        raise InputError(path, f"line {line}", problem, remedy, code="table.extra-cell")
    named = zip(names, cells, strict=False)
    return {name: cell.strip() for name, cell in named if name and cell.strip()}


def _check_quotes(path: Path, line: int, cells: list[str], separator: str, words: Set[str]) -> None:
    """Raise an error if a cell of several lines holds what looks like a part of another row."""
    for inner in (inner for cell in cells if len(cell.splitlines()) > 1 for inner in cell.splitlines()):
        parts = [part.strip(' "').lower() for part in inner.split(separator)]
        if len(parts) > 1 and not words.isdisjoint(parts):
            raise _open_quote(path, line, f"a cell holds what looks like another row: {inner.strip()[:60]!r}")


def _open_quote(path: Path, line: int, why: str) -> InputError:
    return InputError(
        path,
        f"line {line}",
        f"a quotation mark in this row is not closed ({why}).",
        'Close it, or write each quotation mark inside a cell twice: "he said ""no""".',
        code="table.open-quote",
    )
