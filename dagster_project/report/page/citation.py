"""How to cite a report: what it is, which code made it, and from which data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple

import pandas as pd

from dagster_project.artifacts.manifest import git_commit
from dagster_project.experiment.spec import Experiment
from toolemu.terminal import printable

PACKAGE = "safety-frontier"
SOFTWARE = "Safety Frontier: where LLM agents land after post-training for safety and helpfulness"


class Citation(NamedTuple):
    """What a citation names.

    Attributes:
        title: Of the report.
        version: Of the software.
        commit: Of the software; `+changes` where the files differed from it.
        year: In which the newest artifact was made.
        artifacts: How many artifacts are behind the report.
        data_sha256: The digest of these artifacts, see `data_digest`.
        imported_sha256: The same of the files that were imported; None where there are none.
    """

    title: str
    version: str
    commit: str
    year: str
    artifacts: int
    data_sha256: str
    imported_sha256: str | None

    def bibtex(self) -> str:
        """Return the citation as a BibTeX entry."""
        note = f"version {self.version}, commit {self.commit}, data sha256:{self.data_sha256}"
        fields = {"title": f"{{{self.title}}}", "author": "{The Safety Frontier maintainers}", "year": self.year}
        fields |= {"note": f"{note}, imported sha256:{self.imported_sha256}" if self.imported_sha256 else note}
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{safety-frontier-{self.data_sha256[:8]},\n{lines}\n}}"


def citation(experiment: Experiment, tables: Mapping[str, pd.DataFrame]) -> Citation:
    """Return how to cite the report of an experiment.

    Args:
        experiment: What was run.
        tables: Of `load_tables`; `artifacts` is read, and `imported_files` where there are any.
    """
    artifacts, imported = tables["artifacts"], tables.get("imported_files", pd.DataFrame())
    return Citation(
        title=f"{SOFTWARE}. Report of the experiment {printable(experiment.name)}",
        version=metadata.version(PACKAGE),
        commit=git_commit(),
        year=str(artifacts["ended"].max())[:4] if len(artifacts) else "",
        artifacts=len(artifacts),
        data_sha256=data_digest(artifacts, ["asset", "partition", "sha256"]),
        imported_sha256=data_digest(imported, ["file", "sha256"]) if len(imported) else None,
    )


def data_digest(table: pd.DataFrame, columns: list[str]) -> str:
    """Return the SHA-256 of a table's rows: the columns with a space between, a line a row, sorted."""
    rows = table[columns].astype(str).itertuples(index=False, name=None)
    lines = sorted(" ".join(row) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
