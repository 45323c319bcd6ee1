"""LaTeX in booktabs style: cells, escaped, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from dagster_project.report.values import missing

ESCAPES = {character: f"\\{character}" for character in "&_%$#{}"}
ESCAPES |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ESCAPES |= {
    "→": r"$\to$",
    "∪": r"$\cup$",
    "Δ": r"$\Delta$",
    "β": r"$\beta$",
    "α": r"$\alpha$",
    "κ": r"$\kappa$",
    "²": r"$^2$",
}
ESCAPES |= {"−": r"$-$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "…": r"\ldots{}"}
# In TeX's old font encoding these are other characters.
ESCAPES |= {"<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''"}
TABLE = str.maketrans(ESCAPES)
NONE = "N/A"
Cells = Sequence[str]


def escape(value: object) -> str:
    """Returns a text in which nothing is a command; control characters, which TeX refuses, are spaces."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value)).translate(TABLE)
    # After the end of a row, `[` would begin that end's option and `*` be part of it.
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def to_latex(rows: pd.DataFrame) -> str:
    """Returns a table of texts in booktabs style."""
    body = [[escape(value) for value in row] for row in rows.itertuples(index=False)]
    return tabular([escape(name) for name in rows.columns], body, "l" * len(rows.columns))


def tabular(header: Cells, body: Iterable[Cells], columns: str, rules: Iterable[int] = ()) -> str:
    """Returns a `tabular` of cells that are LaTeX already.

    Args:
        header: The heads.
        body: The rows.
        columns: A letter for the alignment of every column.
        rules: Rows after which there is a rule, counted from 0; the last row's is the table's own.

    Raises:
        ValueError: A row has other than `len(columns)` cells.
    """
    body, after = list(body), set(rules)
    for row in (header, *body):
        if len(row) != len(columns):
            raise ValueError(f"a table of {len(columns)} columns has a row of {len(row)}: {' & '.join(row)}")
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule"]
    for place, row in enumerate(body):
        lines.append(" & ".join(row) + r" \\")
        if place in after and place < len(body) - 1:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """Returns a number in LaTeX with a true minus sign, on request with a plus sign, too."""
    if missing(value):
        return NONE
    rounded = round(float(value), digits) + 0.0  # there is no minus zero
    text = f"{rounded:{'+' if sign else ''}.{digits}f}"
    return f"${text}$" if text[0] in "+-" else text
