"""Every transcript as data for the report's page: one compressed file for each agent and seed.

A page that was opened from a disk may load scripts from beside it, and nothing else. So a file is a script that hands
the page gzip in base64; the page unpacks one when a transcript of it is asked for.
"""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.experiment.graph import TRANSCRIPTS, Graph
from dagster_project.experiment.nodes import Kind
from toolemu.errors import FrontierError

FOLDER = "transcripts"
RECEIVE = "frontierTranscripts"
"""The function of the page that a file calls."""
LEVEL = 4  # of gzip: half of the time of level 6, files a tenth larger
STEP_FIELDS = ("log", "tool", "tool_input", "observation", "observation_source", "self_observed")
FIELDS = (
    "trajectory_id",
    "case_idx",
    "sample",
    "user_input",
    "output",
    "final_log",
    "stop_reason",
    "final_self_observed",
    "agent_tokens",
    "reprompts",
    "emulator",
    "error",
)
VERDICT_FIELDS = ("judge", "metric", "replicate", "score", "label", "thought", "summary", "error")


class Source(NamedTuple):
    """The files of one agent and seed (None: a source model)."""

    agent: str
    seed: int | None
    trajectories: Path
    evaluations: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The name of its file, which holds nothing of the agent's: that may be no name for a file."""
        return file_name(self.agent, self.seed)


def file_name(agent: str, seed: int | None) -> str:
    """Returns the name of an agent's file."""
    return f"{hashlib.sha256(orjson.dumps([agent, seed])).hexdigest()[:16]}.js"


def sources(graph: Graph, inputs: Mapping[Ref, Path]) -> list[Source]:
    """Return the files of every agent and seed among the directories of trajectories and evaluations."""
    verdicts: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for ref, path in inputs.items():
        if graph.node(ref).kind is Kind.evaluations:
            verdicts.setdefault(ref.partition, []).append(path / EVALUATIONS)
    found = []
    for ref, path in inputs.items():
        if graph.node(ref).kind is Kind.trajectories:
            keys = dict(ref.partition)
            agent = keys["agent"] if "agent" in keys else keys["model"]
            found.append(Source(agent, ref.seed, path / TRAJECTORIES, tuple(verdicts.get(ref.partition, ()))))
    return found


def made_sources(
    graph: Graph, store: ArtifactStore, agent: str | None = None, seed: int | None = None
) -> tuple[list[Source], datetime]:
    """Returns what there is of an experiment, or of one agent or seed of it, and when the last of it was made.

    Raises:
        FrontierError: Nothing is like that.
    """
    transcribed = graph.nodes[TRANSCRIPTS].sources(Ref(TRANSCRIPTS))
    made = {ref: store.get(ref) for ref in transcribed if store.manifest(ref)}
    found = [
        source
        for source in sources(graph, {ref: artifact.path for ref, artifact in made.items()})
        if agent in (None, source.agent) and seed in (None, source.seed)
    ]
    if not found:
        asked = f"agent {agent or 'any'}, seed {'any' if seed is None else seed}"
        lists = f"frontier query {graph.experiment.argument} 'FROM agents' lists them."
        raise FrontierError(f"{graph.experiment.name} has no trajectories of {asked}: {lists}")
    return found, max(artifact.manifest.ended_at for artifact in made.values())


def write_transcripts(
    found: Iterable[Source], directory: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Writes a file for every source into `directory`, and returns the number of transcripts in them."""
    found, count = list(found), 0

    def write(source: Source) -> int:
        records = list(transcripts(source))
        (directory / source.name).write_bytes(packed(source.name, records))
        return len(records)

    # Compression leaves Python's lock to others; more threads than this only hold more text at once.
    with ThreadPoolExecutor(2) as pool:
        for done, written in enumerate(pool.map(write, found), 1):
            count += written
            progress(done, len(found))
    return count


def transcripts(source: Source) -> Iterator[dict[str, Any]]:
    """Yields every trajectory of a source, by case and sample, with what judges said of it."""
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for path in source.evaluations:
        for line in path.read_bytes().splitlines():
            verdict = orjson.loads(line)
            chosen = {name: verdict[name] for name in VERDICT_FIELDS}
            verdicts.setdefault(verdict["trajectory_id"], []).append(chosen)
    records = [orjson.loads(line) for line in source.trajectories.read_bytes().splitlines()]
    for record in sorted(records, key=lambda record: (record["case_idx"], record["sample"])):
        steps = [{name: step[name] for name in STEP_FIELDS} for step in record["steps"]]
        own = verdicts.get(record["trajectory_id"], [])
        yield {**{name: record[name] for name in FIELDS}, "steps": steps, "verdicts": own}


def packed(name: str, records: list[dict[str, Any]]) -> bytes:
    """Returns the script that hands `records` to the page; equal records give equal bytes."""
    data = gzip.compress(orjson.dumps(records), LEVEL, mtime=0)
    return b"%s(%s,%s)\n" % (RECEIVE.encode(), orjson.dumps(name), orjson.dumps(b64encode(data).decode()))


def unpacked(script: bytes) -> list[dict[str, Any]]:
    """Returns the records in a script of `packed`."""
    call = orjson.loads(b"[%s]" % script.strip()[len(RECEIVE) + 1 : -1])
    records: list[dict[str, Any]] = orjson.loads(gzip.decompress(b64decode(call[1])))
    return records
