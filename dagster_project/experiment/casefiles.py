"""Cases and toolkits from files, and a hash of both."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

from dagster_project.shipped import shipped
from toolemu.cases import Case, load_cases
from toolemu.jsonl import encode
from toolemu.toolkits import Toolkit, load_toolkits

SHIPPED_CASES = shipped("assets_data", "cases")
SHIPPED_TOOLKITS = shipped("assets_data", "toolkits")


class CaseFiles(NamedTuple):
    """What the files hold; `sha256` is over the content, whatever the files are called and wherever they lie."""

    cases: list[Case]
    toolkits: dict[str, Toolkit]
    sha256: str


@functools.lru_cache(maxsize=4)
def read_case_files(case_files: Path, toolkit_files: Path) -> CaseFiles:
    """Reads cases and the toolkits they use; see `load_cases` and `load_toolkits`.

    Raises:
        InputError: A file cannot be read, or holds something else.
    """
    toolkits = load_toolkits(toolkit_files)
    cases = load_cases(case_files, toolkits)
    digest = hashlib.sha256()
    for record in (*cases, *toolkits.values()):
        digest.update(encode(record))
    return CaseFiles(cases, toolkits, digest.hexdigest())
