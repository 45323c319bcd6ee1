"""Files that come with the package: experiments, cases, toolkits, and Dagster's settings.

In a checkout they are where people edit them, at the top of the repository. A wheel holds a copy (see setup.py).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_COPY = _PACKAGE / "shipped"
ROOT = _COPY if _COPY.is_dir() else _PACKAGE.parent
"""The folder that the files are in."""


def shipped(*parts: str) -> Path:
    """Return the place of a shipped file or folder, given as in the repository: `shipped("assets_data", "cases")`."""
    return ROOT.joinpath(*parts)
