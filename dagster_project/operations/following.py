"""Results follow the data: when, and which of them. Cheap ones alone; nothing expensive is ever made by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from dagster_project.artifacts import Ref
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.nodes import Kind, Side
from dagster_project.operations.state import PartitionState, State


class Cursor(BaseModel):
    """What a look found, for the next one.

    Attributes:
        seen: The newest materialisation of the data, by its number in Dagster's event log; 0: none.
        loaded: Hash of the experiment as it was loaded.
        since: When the first change was seen that no results were made for, in seconds since the epoch; None: all are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seen: int = 0
    loaded: str = ""
    since: float | None = None


class Look(NamedTuple):
    """What is seen of the data now.

    Attributes:
        newest: The newest materialisation's number; 0: none.
        newest_at: When it was, in seconds since the epoch.
        busy: Whether something of the experiment is being made or waits for it.
        loaded: Hash of the experiment as it is loaded.
    """

    newest: int
    newest_at: float
    busy: bool
    loaded: str


class Decision(NamedTuple):
    """Whether results are to be made now, why or why not, and what the next look is to know."""

    now: bool
    reason: str
    cursor: Cursor


def decide(cursor: Cursor, look: Look, moment: float, *, settle_s: float, at_least_every_s: float) -> Decision:
    """Decides whether results are made now: once after a burst of changes, and now and then in one that does not end.

    Args:
        cursor: Of the last look.
        look: What is seen now.
        moment: Now, in seconds since the epoch.
        settle_s: A burst is over when nothing has happened for so long and nothing is under way.
        at_least_every_s: So long results may be behind a burst that goes on.
    """
    changed = look.newest != cursor.seen or look.loaded != cursor.loaded
    if not changed and cursor.since is None:
        return Decision(False, "nothing is new", cursor)
    since = moment if cursor.since is None else cursor.since
    waiting = Cursor(seen=look.newest, loaded=look.loaded, since=since)
    quiet = not look.busy and moment - look.newest_at >= settle_s
    if quiet or moment - since >= at_least_every_s:
        reason = "the data has settled" if quiet else "the data keeps changing"
        return Decision(True, reason, waiting.model_copy(update={"since": None}))
    reason = "something is being made" if look.busy else f"the data changed within the last {settle_s:g} s"
    return Decision(False, f"waits: {reason}", waiting)


def results(graph: Graph) -> list[str]:
    """Returns the assets that follow by themselves: without partitions and cheap, the warehouse and all after it."""
    return [
        node.name
        for node in graph.nodes.values()
        if not node.dimensions and not node.expensive and node.kind is not Kind.imported
    ]


def data(graph: Graph) -> list[str]:
    """Returns the assets that results are made from."""
    following = results(graph)
    return [name for name in graph.nodes if name not in following]


def stale_results(graph: Graph, current: Mapping[Ref, PartitionState]) -> list[str]:
    """Returns the results that are not there or not of the newest data, in order; none before there are verdicts."""
    verdicts = (ref for node in graph.find(Kind.evaluations, side=Side.source) for ref in node.refs())
    judged = any(current[ref].state is not State.missing for ref in verdicts)
    wanted: list[str] = []
    for name in results(graph) if judged else []:
        sources = {source.asset for source in graph.nodes[name].sources(Ref(name))}
        if current[Ref(name)].state in (State.missing, State.stale) or sources.intersection(wanted):
            wanted.append(name)
    return wanted
