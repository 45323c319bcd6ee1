"""Texts and tables for Dagster's UI. The UI shows metadata of type Markdown, and descriptions, as pages of their own.

An agent's text, or a name from an archive, could have such a page load an image and so tell a server that it was read.
So texts from outside go there as text or as a table. Pictures that are drawn here are the only Markdown.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

DECIMALS = 2
_ACTIVE = re.compile(r"[\\`\[\]<>&!]")


def as_text(text: str) -> str:
    """Return a text for a description: what would be a link, an image or HTML in Markdown is escaped."""
    return _ACTIVE.sub(lambda found: f"\\{found[0]}", text)


def as_table(rows: Iterable[Mapping[Any, Any]]) -> dg.MetadataValue[Any]:
    """Return rows as a table of metadata, numbers with `DECIMALS` decimals; a text if there are none."""
    records = [dg.TableRecord({str(name): _cell(value) for name, value in row.items()}) for row in rows]
    return dg.MetadataValue.table(records) if records else dg.MetadataValue.text("none")


def as_picture(name: str, png: bytes) -> dg.MetadataValue[Any]:
    """Return a picture as metadata.

    Args:
        name: What the picture is called; letters, digits and `_` alone.
        png: The picture.
    """
    assert re.fullmatch(r"\w+", name), name
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _cell(value: Any) -> str | float | int | None:
    if value is None or value != value:  # NaN, NaT
        return None
    if isinstance(value, float):
        return round(float(value), DECIMALS) if math.isfinite(value) else str(value)
    return value if isinstance(value, int | str) else str(value)
