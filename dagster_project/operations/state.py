"""What of an experiment is done, missing or stale: by the manifests alone, independent of Dagster's event log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import NamedTuple

from dagster_project.artifacts import ArtifactStore, Manifest, Ref
from dagster_project.artifacts.failures import failures
from dagster_project.artifacts.manifest import config_sha256
from dagster_project.experiment.graph import IMPORT, Graph
from dagster_project.experiment.nodes import Node
from dagster_project.results.operations import gpu_hours, seconds, tokens
from toolemu.errors import FrontierError

REPORTED = ".reported"
"""The file that names the last import of which Dagster was told every partition."""


class State(StrEnum):
    """Where a partition stands.

    `stale`: made from other inputs, code or configuration than there are now. `behind`: made from what there is, of
    which something is itself stale or missing.
    """

    done = "done"
    missing = "missing"
    stale = "stale"
    behind = "behind"


class PartitionState(NamedTuple):
    """A partition's state, and why it is not `done`.

    `removed`: files of it were removed to save room; it is made again where something needs it.
    """

    state: State
    reason: str
    removed: bool = False


def states(graph: Graph, store: ArtifactStore) -> dict[Ref, PartitionState]:
    """Returns the state of every partition of the graph, upstream first."""
    made = {manifest.ref: manifest for manifest in store.manifests()}
    manifests: dict[Ref, Manifest | None] = {}
    found: dict[Ref, PartitionState] = {}
    for node in graph.nodes.values():
        for ref in node.refs():
            manifests[ref] = made.get(ref)
            found[ref] = _state(node, ref, manifests, found)._replace(removed=ref in made and bool(made[ref].removed))
    for ref, (state, *_) in list(found.items()):
        maker = graph.node(ref).made_by
        if maker and state is State.missing and found[Ref(maker)].state is State.done:
            found[Ref(maker)] = PartitionState(State.stale, f"{ref.label}, which it made, is not there any more")
    return found


def unreported_import(store: ArtifactStore) -> str | None:
    """Returns the run of the last import if Dagster has not been told of every partition that it made."""
    made, marker = store.manifest(Ref(IMPORT)), store.base / REPORTED
    if made is None or (marker.exists() and marker.read_text(encoding="utf-8") == made.run_id):
        return None
    return made.run_id


def _state(
    node: Node, ref: Ref, manifests: dict[Ref, Manifest | None], found: dict[Ref, PartitionState]
) -> PartitionState:
    manifest = manifests[ref]
    if manifest is None:
        return PartitionState(State.missing, "never made")
    if node.made_by:
        return _state_beside(ref, manifest, Ref(node.made_by), manifests, found)
    if manifest.code_version != node.code_version:
        return PartitionState(State.stale, f"code version {manifest.code_version} is now {node.code_version}")
    if config_sha256(manifest.config) != config_sha256(node.config(ref)):
        return PartitionState(State.stale, "its configuration changed")
    read = {entry.ref: entry.sha256 for entry in manifest.inputs}
    wanted = node.sources(ref)
    for source in wanted:
        current = manifests[source]
        if node.partial and current is None and source not in read:
            continue
        if source not in read:
            return PartitionState(State.stale, f"{source.label} is new")
        if current is not None and current.sha256 != read[source]:
            return PartitionState(State.stale, f"{source.label} has other content now")
    gone = read.keys() - set(wanted)
    if gone:
        return PartitionState(State.stale, f"{min(gone).label} is no longer an input")
    for source in wanted:
        if found[source].state is not State.done and not (node.partial and source not in read):
            return PartitionState(State.behind, f"{source.label} is {found[source].state.value}")
    return PartitionState(State.done, "")


def _state_beside(
    ref: Ref, manifest: Manifest, maker: Ref, manifests: dict[Ref, Manifest | None], found: dict[Ref, PartitionState]
) -> PartitionState:
    """Returns the state of a partition that another asset's run makes: it is there if that very run made it."""
    made = manifests[maker]
    if made is None or manifest.run_id != made.run_id:
        return PartitionState(State.missing, f"not made by the last run of {maker.label}")
    if found[maker].state is not State.done:
        return PartitionState(State.behind, f"{maker.label} is {found[maker].state.value}")
    return PartitionState(State.done, "")


def failed_refs(store: ArtifactStore, current: Mapping[Ref, PartitionState]) -> set[Ref]:
    """Returns the partitions that are not done and of which the last attempt failed."""
    last = {failure.ref: failure.failed_at for failure in failures(store)}  # in order of time
    found = set()
    for ref, failed_at in last.items():
        if ref in current and current[ref].state is not State.done:
            made = store.manifest(ref)
            if made is None or made.ended_at < failed_at:
                found.add(ref)
    return found


class RunUnit(NamedTuple):
    """One Dagster run: assets of one partition that are made together, in order."""

    kind: str
    refs: tuple[Ref, ...]

    @property
    def label(self) -> str:
        """What the run makes, for people."""
        keys = ", ".join(key for _, key in self.refs[0].partition)
        return f"{self.kind} [{keys}]" if keys else self.kind


class Plan(NamedTuple):
    """The runs to make, each after those it needs; and what is stale but expensive, hence left alone."""

    units: list[RunUnit]
    needs: dict[RunUnit, set[RunUnit]]
    left: list[Ref]


def make_plan(
    graph: Graph,
    current: dict[Ref, PartitionState],
    *,
    select: Collection[str] = (),
    seeds: Collection[int] = (),
    update: bool = False,
) -> Plan:
    """Plans what is missing, and what is stale and cheap; with `update` also what is stale and expensive.

    Args:
        graph: The experiment's graph.
        current: `states(...)`.
        select: Only these assets (names or beginnings of names up to a slash), with what they still need.
        seeds: Only these seeds' partitions, and those without a seed.
        update: Redo what is stale and expensive, too.

    Raises:
        FrontierError: `select` or `seeds` names something that is not there.
    """
    _validate(graph, select, seeds)
    asked = _asked(graph, current, select, seeds)
    wanted: set[Ref] = set()
    left: list[Ref] = []
    for ref, (state, *_) in current.items():
        node = graph.node(ref)
        if ref not in asked:
            continue
        renewed = any(source in wanted for source in node.sources(ref))
        if node.made_by:
            if state is State.missing:
                wanted.add(Ref(node.made_by))
        elif (
            state is State.missing
            or (state is not State.done and update)
            or (not node.expensive and (state is State.stale or renewed))
        ):
            wanted.add(ref)
        elif node.expensive and state is not State.done:
            left.append(ref)
    for ref in reversed(list(current)):  # downstream first, so that needs of needs are found
        node = graph.node(ref)
        if ref in wanted and not node.partial:
            wanted |= {
                source
                for source in node.sources(ref)
                if current[source].state is State.missing or current[source].removed
            }
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Ref]] = {}
    for ref in current:
        if ref in wanted:
            groups.setdefault((graph.node(ref).run, ref.partition), []).append(ref)
    units = [RunUnit(kind, tuple(refs)) for (kind, _), refs in groups.items()]
    unit_of = {ref: unit for unit in units for ref in unit.refs}
    needs = {
        unit: {unit_of[source] for ref in unit.refs for source in graph.node(ref).sources(ref) if source in unit_of}
        - {unit}
        for unit in units
    }
    return Plan(units, needs, left)


def _asked(
    graph: Graph, current: dict[Ref, PartitionState], select: Collection[str], seeds: Collection[int]
) -> set[Ref]:
    """Returns the partitions that a plan may be of: those selected, and what they read that is stale and cheap."""
    asked = {
        ref
        for ref in current
        if (not select or any(map(graph.node(ref).is_meant_by, select)))
        and (not seeds or ref.seed is None or ref.seed in seeds)
    }
    for ref in reversed(list(current)):
        if ref in asked:
            for source in graph.node(ref).sources(ref):
                if current[source].state in (State.stale, State.behind) and not graph.node(source).expensive:
                    asked.add(source)
    return asked


def _validate(graph: Graph, select: Collection[str], seeds: Collection[int]) -> None:
    for name in select:
        if not any(node.is_meant_by(name) for node in graph.nodes.values()):
            known = ", ".join(graph.nodes)
            raise FrontierError(f"--select {name}: there is no such asset in {graph.experiment.name}. Assets: {known}.")
    known_seeds = graph.experiment.grid.seeds
    for seed in seeds:
        if seed not in known_seeds:
            there = f"the seeds {', '.join(map(str, known_seeds))}" if known_seeds else "no seeds"
            raise FrontierError(
                f"--seed {seed}: {graph.experiment.name} has {there}. Add it under grid.seeds in the experiment file."
            )


class Expected(NamedTuple):
    """What making a partition of an asset took on average: seconds, GPU-hours, and tokens of models behind endpoints.

    0 where none was used.
    """

    seconds: float
    gpu_hours: float
    tokens: float


def expected_costs(store: ArtifactStore, graph: Graph) -> dict[str, Expected]:
    """Returns what a partition of each asset took in the past."""
    past: dict[str, list[Expected]] = {}
    for manifest in store.manifests():
        if manifest.asset in graph.nodes:
            used = gpu_hours(graph, manifest) or 0.0
            past.setdefault(manifest.asset, []).append(Expected(seconds(manifest), used, tokens(manifest) or 0))
    return {
        asset: Expected(*(sum(column) / len(column) for column in zip(*took, strict=True)))
        for asset, took in past.items()
    }


def expected_seconds(store: ArtifactStore, graph: Graph) -> dict[str, float]:
    """Returns the mean duration of each asset's past runs, in seconds."""
    return {asset: expected.seconds for asset, expected in expected_costs(store, graph).items()}
