"""The file in which generated toolkits and cases wait for a person to say yes or no."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from toolemu.cases import Case
from toolemu.errors import FrontierError, InputError, validate_record
from toolemu.jsonl import read_json
from toolemu.toolkits import Toolkit

HOW = 'Set "accept" to true or false in every draft; mend what you like. Then: frontier cases accept FILE --out FOLDER'


class Draft(BaseModel):
    """One toolkit or case; `accept` is None until somebody has looked at it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accept: bool | None = None
    kind: Literal["toolkit", "case"]
    toolkit: Toolkit | None = None
    case: Case | None = None

    @property
    def name(self) -> str:
        """The toolkit's or the case's."""
        return self.toolkit.toolkit if self.toolkit else self.case.name if self.case else ""


class Origin(BaseModel):
    """Who wrote drafts, and how it was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompts: str = Field(description="The prompts' version.")
    seed: int


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    how: str
    by: Origin
    drafts: tuple[Draft, ...]


def write_drafts(path: Path, by: Origin, toolkits: Iterable[Toolkit], cases: Iterable[Case]) -> None:
    """Writes drafts to a new file.

    Raises:
        InputError: There is one.
    """
    drafts = [Draft(kind="toolkit", toolkit=toolkit) for toolkit in toolkits]
    drafts += [Draft(kind="case", case=case) for case in cases]
    if path.exists():
        raise InputError(path, "", "there is such a file already.", "Name another: a review may be in it.")
    value = _File(how=HOW, by=by, drafts=tuple(drafts)).model_dump(mode="json", by_alias=True, exclude_none=True)
    for draft in value["drafts"]:
        draft["accept"] = None
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_drafts(path: Path) -> list[Draft]:
    """Reads drafts, reviewed or not.

    Raises:
        InputError: The file is none, or what was changed in it is wrong.
    """
    return list(validate_record(_File, read_json(path), path, "").drafts)


def accepted(path: Path, drafts: Sequence[Draft], known: Iterable[str]) -> tuple[list[Toolkit], list[Case]]:
    """Returns the toolkits and cases that were accepted.

    Args:
        path: The drafts' file, for errors.
        drafts: Its drafts.
        known: Names of the toolkits that there are besides.

    Raises:
        FrontierError: A draft was not looked at, or an accepted case needs a toolkit that was not.
    """
    unseen = [draft.name for draft in drafts if draft.accept is None]
    if unseen:
        raise FrontierError(
            f"{path}: {len(unseen)} of {len(drafts)} drafts are not reviewed, {unseen[0]} first. {HOW}."
        )
    toolkits = [draft.toolkit for draft in drafts if draft.accept and draft.toolkit]
    cases = [draft.case for draft in drafts if draft.accept and draft.case]
    there = {*known, *(toolkit.toolkit for toolkit in toolkits)}
    for case in cases:
        missing = [name for name in case.toolkits if name not in there]
        if missing:
            raise FrontierError(f"{path}: {case.name} is accepted, but its toolkit {missing[0]} is not.")
    return toolkits, cases
