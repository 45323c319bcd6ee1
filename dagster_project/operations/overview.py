"""What `check`, `plan`, `status` and `lineage` print."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.lineage import LineageRow
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.nodes import Kind, Side
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.preflight import preflight
from dagster_project.operations.state import Expected, Plan, State, expected_costs, failed_refs, states
from toolemu.errors import FrontierError

MOST_NAMED = 10


def describe(experiment: Experiment, graph: Graph, store: ArtifactStore) -> Iterator[str]:
    """Yields what an experiment consists of; whatever is wrong with it is an error on the way.

    Raises:
        FrontierError: What it needs is not there: see `preflight`.
    """
    seeds = len(experiment.grid.seeds)
    mixed = [agent for agent in experiment.agents() if agent.parts]
    trained = len(experiment.agents()) - len(mixed)
    partitions = sum(len(node.refs()) for node in graph.nodes.values())
    yield f"{experiment.name}: {experiment.description}" if experiment.description else experiment.name
    yield f"  {experiment.world.cases} cases, {len(experiment.models)} source models"
    recipes = ", ".join(recipe.value for recipe in experiment.grid.recipes)
    yield f"  {trained * seeds} trained agents: {recipes}" if recipes else "  no agent is trained"
    if mixed:
        yield f"  {len(mixed) * seeds} mixtures of them: {', '.join(dict.fromkeys(agent.recipe for agent in mixed))}"
    yield f"  judges: {', '.join(experiment.judges)}; metrics: {', '.join(experiment.metrics)}"
    yield f"  {len(graph.nodes)} assets, {partitions} partitions, in {store.place()}"
    store.check()
    yield from (f"  {line}" for line in preflight(graph, store))
    yield "  in order"


def status_table(graph: Graph, store: ArtifactStore) -> Table:
    """Returns a row for every asset: its partitions by state, and those of which the last attempt failed."""
    current = states(graph, store)
    failed = failed_refs(store, current)
    table = Table(title=graph.experiment.name)
    for column in ("asset", "partitions", *(state.value for state in State), "failed"):
        table.add_column(column, justify="left" if column == "asset" else "right")
    for name, node in graph.nodes.items():
        refs = node.refs()
        counts = Counter(current[ref].state for ref in refs)
        lost = sum(ref in failed for ref in refs)
        table.add_row(name, str(len(refs)), *(str(counts[state] or "") for state in State), str(lost or ""))
    return table


def plan_table(plan: Plan, graph: Graph, store: ArtifactStore) -> Table:
    """Returns a row for every asset to be made, or stale: how many partitions, and what one took before.

    Below it: what all that is to be made would take, and what redoing what is stale and expensive would.
    """
    past = expected_costs(store, graph)
    planned = Counter(ref.asset for unit in plan.units for ref in unit.refs)
    left = Counter(ref.asset for ref in plan.left)
    rows = []
    for name in graph.nodes:
        if planned[name] or left[name]:
            took = past.get(name)
            numbers = ("", "", "") if took is None else (f"{took.seconds:.1f}", *_used(took))
            rows.append((name, str(planned[name] or ""), str(left[name] or ""), *numbers))
    columns = ("asset", "to make", "stale, left alone", "seconds each, before", "GPU-hours each", "tokens each")
    title = f"{graph.experiment.name}: {sum(planned.values())} partitions in {len(plan.units)} runs"
    table = _table(title, columns, rows)
    totals = [f"to make: {_total(planned, past)}"] if planned else []
    totals += [f"to redo what is stale (--update): {_total(left, past)}"] if left else []
    table.caption = "; ".join(totals) or None
    return table


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Table:
    """Returns a table without the columns in which nothing stands; `texts` at its left are words, the rest numbers."""
    shown = [place for place in range(len(columns)) if place < texts or any(row[place] for row in rows)]
    table = Table(title=title, min_width=len(title))
    for place in shown:
        left = place < texts
        table.add_column(columns[place], justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    return table


def _used(took: Expected) -> tuple[str, str]:
    """Returns GPU-hours and tokens, empty where none were used."""
    return f"{took.gpu_hours:.2f}" if took.gpu_hours else "", f"{took.tokens:,.0f}" if took.tokens else ""


def _total(counts: Mapping[str, int], past: Mapping[str, Expected]) -> str:
    """Returns what so many partitions of each asset would take, by what they took before."""
    known = [(count, past[name]) for name, count in counts.items() if name in past]
    unknown = sum(count for name, count in counts.items() if name not in past)
    hours, gpu, tokens = (
        sum(count * number for count, number in numbers)
        for numbers in (
            [(count, took.seconds / 3600) for count, took in known],
            [(count, took.gpu_hours) for count, took in known],
            [(count, took.tokens) for count, took in known],
        )
    )
    parts = [f"{hours:.1f} hours of work, {gpu:.1f} GPU-hours, {tokens:,.0f} tokens"] if known else []
    parts += [f"{unknown} partitions that were never made before"] if unknown else []
    return " and ".join(parts)


def estimate_table(plan: Plan, graph: Graph, store: ArtifactStore) -> Table | None:
    """Returns a row for every model behind an endpoint that the plan needs; None if it needs none."""
    from dagster_project.collect.estimate import estimate

    experiment = graph.experiment
    if not graph.roles:
        return None
    pilot = ArtifactStore(store.location, f"{experiment.name}-pilot")
    found = estimate(graph, (ref for unit in plan.units for ref in unit.refs), (store, pilot))
    if not found:
        return None
    priced = [role.cost for role in found if role.cost is not None]
    total = f"about {sum(priced):.2f} {experiment.currency}" if priced else "no price is given"
    title = f"models: {total}{', without those that have no price' if 0 < len(priced) < len(found) else ''}"
    rows = [
        (
            role.place,
            role.model,
            "records so far" if role.measured else "assumption",
            *(f"{number:,}" for number in (role.records, role.calls, role.prompt_tokens, role.completion_tokens)),
            "" if role.cost is None else f"{role.cost:.2f}",
        )
        for role in found
    ]
    columns = ("role", "model", "by", "records", "calls", "prompt tokens", "generated", "cost")
    return _table(title, columns, rows, texts=3)


def forecast_table(plan: Plan, graph: Graph, store: ArtifactStore) -> Group | None:
    """Returns a row for every asset that needs cards or much disk, and below it what was assumed; None without any.

    Raises:
        FrontierError: The experiment file's assumptions make no sense.
    """
    from dagster_project.operations.forecast import forecast, total_disk, total_hours

    experiment = graph.experiment
    pilot = ArtifactStore(store.location, f"{experiment.name}-pilot")
    found = forecast(graph, (ref for unit in plan.units for ref in unit.refs), (store, pilot))
    if found is None or not found.works:
        return None
    rows = [
        (
            work.asset,
            "measured" if work.measured else "assumption",
            str(work.partitions),
            "?" if work.gpu_hours is None else _hours(work.gpu_hours),
            "?" if work.disk is None else _size(work.disk),
        )
        for work in found.works
    ]
    hours = f"{'at least ' if found.unsized else 'about '}{total_hours(found.works):,.0f} GPU-hours"
    title = f"cards and disk: {hours} ({experiment.planning.card}), {_size(total_disk(found.works))}"
    folder = next(path for path in (store.root, *store.root.parents) if path.exists())
    notes = [f"free on this disk: {_size(shutil.disk_usage(folder).free)}"]
    if found.fetched:
        notes.append(f"besides, {_size(found.fetched)} of weights come from the hub, into its own folder (HF_HOME)")
    if found.checkpoints:
        notes.append(f"besides, while it trains: {_size(found.checkpoints)} of checkpoints at most, on every card")
    if found.unsized:
        notes.append(f"of unknown size, to be said in planning.billions: {', '.join(found.unsized)}")
    lines = [*notes, "assumed (`planning` in the experiment file):", *(f"  {line}" for line in found.assumptions)]
    table = _table(title, ("asset", "by", "partitions", "GPU-hours", "disk"), rows, texts=2)
    return Group(table, *(Padding(Text(line), (0, 0, 0, 2)) for line in lines))


def _hours(hours: float) -> str:
    return "" if not hours else f"{hours:,.1f}" if hours >= 0.05 else "<0.1"


def _size(size: float) -> str:
    """Returns a number of bytes for people."""
    unit, name = next(
        (unit, name) for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= unit or unit == 1e6
    )
    return f"{size / unit:,.1f} {name}"


def point_refs(graph: Graph, point: str) -> list[Ref]:
    """Returns what lies directly under a frontier point: its agents' evaluations, and its source model's, all judges.

    Args:
        graph: The experiment's graph.
        point: An agent's key, or ``MODEL:RECIPE[:JUDGE[:BETA]]``; a part left out, or empty, stands for all.

    Raises:
        FrontierError: No agent is meant by it.
    """
    fields, experiment = point.split(":"), graph.experiment
    agents = [
        agent
        for agent in experiment.agents()
        if point == agent.key
        or all(
            asked in ("", own)
            for asked, own in zip(
                fields, (agent.model, agent.recipe.value, agent.pairs_judge, agent.beta_label), strict=False
            )
        )
    ]
    if not agents or len(fields) > 4:
        keys = [agent.key for agent in experiment.agents()]
        known = ", ".join(keys[:MOST_NAMED]) + (" …" if len(keys) > MOST_NAMED else "")
        raise FrontierError(
            f"{point}: no trained agent of {experiment.name} is meant by it. "
            + (f"Agents: {known}" if keys else "It trains none; a frontier's points are trained agents.")
        )
    meant, models = {agent.key for agent in agents}, {agent.model for agent in agents}
    trained = [
        ref
        for node in graph.find(Kind.evaluations, side=Side.agent)
        for ref in node.refs()
        if ref.key("agent") in meant
    ]
    source = [
        ref
        for node in graph.find(Kind.evaluations, side=Side.source)
        for ref in node.refs()
        if ref.key("model") in models
    ]
    return trained + source


def lineage_table(rows: Sequence[LineageRow]) -> Table:
    """Returns a row for every artifact behind a point, those nearest to it first."""
    table = Table(title="from the point back to its sources")
    for column in ("step", "artifact", "run", "sha256", "files", "status"):
        table.add_column(column, overflow="fold")
    for row in rows:
        entry = row.entry
        table.add_row(
            str(row.depth), Text(entry.ref.label), entry.run_id[:8], entry.sha256[:12], str(row.files), Text(row.status)
        )
    return table
