"""What an import found wrong, or noteworthy: one record a finding, never an exception that ends the import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from toolemu.terminal import printable

KINDS = {
    "name": "the name does not follow the grammar",
    "directory": "the file lies in another agent's directory",
    "recipe": "a training sequence that is none of the recipes",
    "unreadable": "the file cannot be read",
    "link": "a link that was not followed, or something that is no file",
    "json": "a line is not JSON",
    "record": "a record is not as its format says",
    "failed": "a run that failed, without a trajectory",
    "range": "a case outside the file's range",
    "order": "cases out of order or twice",
    "count": "fewer or more records than the name says",
    "alignment": "verdicts that do not match the trajectories line by line",
    "no_verdicts": "verdicts of a required metric are missing",
    "no_trajectories": "verdicts without their trajectories",
    "overlap": "two files hold the same cases",
    "case": "two records have different texts of one case",
    "incomplete": "left out as a whole, since cases are missing",
    "copy": "a file twice, counted once",
    "nested": "a directory inside one of the same name",
    "temperature": "verdicts at another temperature, not taken",
    "out_of_memory": "a trajectory rescued from memory exhaustion",
    "unscored": "a verdict without a score",
    "all_cases": "an agent with its training cases too; they are in no test figure",
}
"""Every kind of finding, in words."""


class Problem(BaseModel):
    """One finding; its texts are printable, whatever the names and records are that they quote.

    Attributes:
        kind: One of `KINDS`.
        file: The source's name and the path below it; or what was left out.
        line: The line, from 1.
        text: What was found and what was expected.
        note: Taken nevertheless, by rule; not an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    file: str
    line: int | None
    text: str
    note: bool = False

    def __init__(self, kind: str, file: str, line: int | None, text: str, *, note: bool = False) -> None:
        super().__init__(kind=kind, file=printable(file), line=line, text=printable(text), note=note)

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}: line {self.line}"
        return f"{where}: {self.text}"


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """Returns how many findings of each kind there are, the errors first."""
    counts = Counter((problem.note, problem.kind) for problem in problems)
    return {kind: count for (_, kind), count in sorted(counts.items())}
