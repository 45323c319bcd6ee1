"""Words in every transcript: what agents were asked, wrote and were told, and what judges thought of it.

There is no index to keep right: going through the 330 MB of the paper's released runs takes two seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.table import Table
from rich.text import Text

from dagster_project.report.transcript import visible
from dagster_project.report.transcript_files import Source
from toolemu.errors import FrontierError

AROUND = 60
"""Characters shown on either side of a word that was found."""
IDENTITY = ("agent", "seed", "case_idx", "sample", "trajectory_id")
Parts = list[tuple[str, str]]
"""Texts, each with its place in a transcript."""


class Hit(NamedTuple):
    """A trajectory in which all words are, or one of whose verdicts has them all.

    Attributes:
        agent, seed, case_idx, sample, trajectory_id: Which one.
        place: The part in which most of the words are.
        excerpt: The text around the first of them there.
    """

    agent: str
    seed: int | None
    case_idx: int
    sample: int
    trajectory_id: str
    place: str
    excerpt: str


def search(found: Iterable[Source], words: Sequence[str]) -> Iterator[Hit]:
    """Yields the trajectories in which all words are, or in one verdict on them; of each source by case and sample.

    Args:
        found: Whose transcripts, from `transcript_files`.
        words: Words, parts of words or phrases; upper and lower case are alike.

    Raises:
        FrontierError: There are none.
    """
    wanted = [word.lower() for word in words if word.strip()]
    if not wanted:
        raise FrontierError("Give at least one word to search for.")
    for source in found:
        hits: dict[str, Hit] = {}
        for hit in _hits(source.trajectories, wanted, _of_trajectory):
            hits[hit.trajectory_id] = hit
        for path in source.evaluations:
            for hit in _hits(path, wanted, _of_verdict):
                hits.setdefault(hit.trajectory_id, hit)
        yield from sorted(hits.values(), key=lambda hit: (hit.case_idx, hit.sample))


def _hits(path: Path, wanted: Sequence[str], parts_of: Callable[[dict[str, Any]], Parts]) -> Iterator[Hit]:
    """Yields the records of a file in which all words are; only lines that hold them are parsed."""
    escaped = [orjson.dumps(word).decode()[1:-1] for word in wanted]
    text = path.read_text(encoding="utf-8")
    if not all(word in text.lower() for word in escaped):
        return
    for line in text.split("\n"):
        lower = line.lower()
        if not all(word in lower for word in escaped):
            continue
        record = orjson.loads(line)
        parts = parts_of(record)
        counts = [sum(word in part.lower() for word in wanted) for _, part in parts]
        if all(any(word in part.lower() for _, part in parts) for word in wanted):  # and not in a field's name
            place, part = parts[counts.index(max(counts))]
            identity = {name: record[name] for name in IDENTITY}
            yield Hit(**identity, place=place, excerpt=excerpt(part, wanted))


def _of_trajectory(record: dict[str, Any]) -> Parts:
    parts = []
    for number, step in enumerate(record["steps"], 1):
        parts += [(f"step {number}", step["log"]), (f"result {number}", step["observation"])]
    return [*parts, ("end", record["final_log"]), ("task", record["user_input"])]  # the task is alike for all agents


def _of_verdict(record: dict[str, Any]) -> Parts:
    told = "\n".join(record[name] or "" for name in ("label", "thought", "summary"))
    return [(f"{record['judge']}, {record['metric']}", told)]


def excerpt(text: str, wanted: Sequence[str]) -> str:
    """Returns what stands around the first place at which one of the words is, in one line."""
    places = [found.start() for word in wanted if (found := re.search(re.escape(word), text, re.IGNORECASE))]
    start = max(0, min(places, default=0) - AROUND)
    end = start + 2 * AROUND
    shown = " ".join(visible(text[start:end]).split())
    return f"{'…' if start else ''}{shown}{'…' if end < len(text) else ''}"


def render_hits(hits: Sequence[Hit], words: Sequence[str], limit: int) -> Table:
    """Returns a row for each of the first hits, the words marked in it; its title counts them all."""
    runs = len({(hit.agent, hit.seed) for hit in hits})
    more = f", of which these are {limit}" if len(hits) > limit else ""
    table = Table(title=f"{len(hits):,} trajectories of {runs:,} runs{more}", show_lines=False)
    for column in ("agent", "seed", "case", "id", "where", "what"):
        table.add_column(column, overflow="fold", no_wrap=column in ("seed", "case", "id", "where"))
    for hit in hits[:limit]:
        what = Text(hit.excerpt)
        what.highlight_words([word for word in words if word.strip()], "bold yellow", case_sensitive=False)
        seed = "" if hit.seed is None else str(hit.seed)
        case = f"{hit.case_idx}.{hit.sample}"
        table.add_row(Text(visible(hit.agent)), seed, case, Text(hit.trajectory_id), Text(visible(hit.place)), what)
    return table
