"""Toolkits and cases written by a model of an experiment, into a file for review; and what was accepted into files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from dagster_project.artifacts import ArtifactStore
from dagster_project.collect.endpoints import REPLIES, Workspace, open_chats, servers_folder
from dagster_project.experiment.casefiles import CaseFiles, read_case_files
from dagster_project.experiment.spec import Experiment
from toolemu.errors import FrontierError, InputError
from toolemu.generation import Origin, Writer, Written, accepted, read_drafts, write_drafts
from toolemu.toolkits import Toolkit


def known_files(experiment: Experiment) -> CaseFiles:
    """Returns the cases and toolkits that new ones must differ from: the experiment's, or those shipped."""
    return read_case_files(*experiment.world.files())


def generate(
    experiment: Experiment,
    place: str,
    store: ArtifactStore,
    out: Path,
    *,
    toolkits: int,
    cases: int,
    domain: str = "",
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Written:
    """Has a model of the experiment write toolkits and cases into a file of drafts; replies are kept, as of any run.

    Args:
        experiment: Where the model is named.
        place: Its place there, such as `judges.gpt`.
        store: Beside its artifacts the replies lie.
        out: The new file of drafts.
        toolkits: How many to write.
        cases: How many to write: for the new toolkits, or without any for those there are.
        domain: The field that toolkits come from; empty: any.
        seed: Another seed writes others.
        say: Told what is waited for.

    Raises:
        FrontierError: There is no such model, it cannot be asked, or the file exists.
    """
    roles = experiment.roles()
    if place not in roles:
        raise FrontierError(f"--by {place}: {experiment.name} has no such model; it has {', '.join(roles) or 'none'}.")
    if out.exists():
        raise InputError(out, "", "there is such a file already.", "Name another: a review may be in it.")
    known = known_files(experiment)
    folder = store.base / REPLIES
    workspace = Workspace(folder, folder / "generation.jsonl", servers_folder(store.root), lambda *_: None, say)

    async def write() -> tuple[Written, str]:
        async with open_chats(experiment, [place], workspace) as chats:
            model = chats.model(roles[place], place)
            writer = Writer(model, known.toolkits, known.cases, seed=seed, prompts_dir=experiment.prompts_dir)
            return await writer.write(toolkits, cases, domain=domain), writer.prompt.version

    written, version = asyncio.run(write())
    by = Origin(model=roles[place].model, prompts=version, seed=seed)
    write_drafts(out, by, written.toolkits, written.cases)
    return written


def accept(experiment: Experiment, drafts: Path, out: Path) -> dict[str, int]:
    """Writes the accepted drafts as ``toolkits/`` and ``cases/`` below `out`, with what they need of the experiment's.

    Raises:
        FrontierError: A draft was not reviewed, an accepted case lacks a toolkit, or there are such files.
    """
    known = known_files(experiment).toolkits
    toolkits, cases = accepted(drafts, read_drafts(drafts), known)
    needed = [known[name] for name in sorted({name for case in cases for name in case.toolkits} & known.keys())]
    every: list[Toolkit] = [*toolkits, *needed]
    for name, records in (("toolkits", every), ("cases", cases)):
        _write(out / name / f"{drafts.stem}.json", records)
    return {"toolkits": len(every), "cases": len(cases)}


def _write(path: Path, records: Sequence[BaseModel]) -> None:
    if path.exists():
        raise InputError(path, "", "there is such a file already.", "Name another folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [record.model_dump(mode="json", by_alias=True, exclude_none=True) for record in records]
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
