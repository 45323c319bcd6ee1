"""What `check`, `plan`, `status` and `lineage` print."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.lineage import LineageRow
from dagster_project.collect.endpoints import RoleReport
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.state import Plan, State, expected_seconds, states
from toolemu.errors import FrontierError

SMALL_DISK = 2 * 1024**3


def describe(experiment: Experiment, graph: Graph, store: ArtifactStore) -> Iterator[str]:
    """Yields what an experiment consists of; whatever is wrong with it is an error on the way.

    Raises:
        FrontierError: The world cannot be opened, the disk is nearly full, or a model cannot be asked.
    """
    trained = len(experiment.agents()) * len(experiment.grid.seeds)
    partitions = sum(len(node.refs()) for node in graph.nodes.values())
    yield f"{experiment.name}: {experiment.description}"
    yield f"  {experiment.world.cases} cases, {len(experiment.models)} source models"
    yield f"  {trained} trained agents: {', '.join(recipe.value for recipe in experiment.grid.recipes)}"
    yield f"  judges: {', '.join(experiment.judges)}; metrics: {', '.join(experiment.metrics)}"
    yield f"  {len(graph.nodes)} assets, {partitions} partitions, in {store.base}"
    store.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store.root).free
    if free < SMALL_DISK:
        raise FrontierError(f"{store.root} has {free / 1024**3:.1f} GiB left; free some, or set FRONTIER_DATA.")
    if experiment.roles():
        from dagster_project.collect.endpoints import check_roles

        yield f"  asking {', '.join(experiment.roles())} …"
        asked = check_roles(experiment)
        yield from (f"    {line}" for line in map(role_line, asked))
        for place in sorted(experiment.roles().keys() - {report.place for report in asked}):
            yield f"    {place}: {experiment.roles()[place].model}, on a vLLM server that is started when it is needed"
    yield "  in order"


def role_line(report: RoleReport) -> str:
    """Returns what a model said of itself when it was asked something simple."""
    settings, reply = report.settings, report.reply
    served = f", served as {reply.model}" if reply.model not in ("", settings.model) else ""
    ignored = f"; its server does not take: {', '.join(reply.ignored)}" if reply.ignored else ""
    return f"{report.place}: {settings.model} at {settings.endpoint} answers{served}{ignored}"


def status_table(graph: Graph, store: ArtifactStore) -> Table:
    """Returns a row for every asset: its partitions by state, failed ones from Dagster's instance."""
    current = states(graph, store)
    failed = _failed(graph)
    table = Table(title=graph.experiment.name)
    for column in ("asset", "partitions", *(state.value for state in State), "failed"):
        table.add_column(column, justify="left" if column == "asset" else "right")
    for name, node in graph.nodes.items():
        refs = node.refs()
        counts = Counter(current[ref].state for ref in refs)
        lost = sum(ref in failed and current[ref].state is not State.done for ref in refs)
        table.add_row(name, str(len(refs)), *(str(counts[state] or "") for state in State), str(lost or ""))
    return table


def _failed(graph: Graph) -> set[Ref]:
    """Returns the partitions whose latest Dagster run failed."""
    from dagster_project.operations.instance import dagster_home

    if not (dagster_home() / "dagster.yaml").exists():
        return set()
    import dagster as dg
    from dagster._core.storage.dagster_run import DagsterRunStatus, RunsFilter

    instance = dg.DagsterInstance.from_config(str(dagster_home()))
    by_key = {(graph.experiment.name, *name.split("/")): node for name, node in graph.nodes.items()}
    latest: dict[Ref, bool] = {}
    for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS]), limit=5000):
        for key in run.asset_selection or ():
            node = by_key.get(tuple(key.path))
            if node:
                keys = run.tags.get("dagster/partition", "").split("|")
                names = sorted(node.dimensions)
                if len(keys) >= len(names):
                    ref = Ref(node.name, tuple(zip(names, keys, strict=False)))
                    latest.setdefault(ref, run.status is DagsterRunStatus.FAILURE)
    return {ref for ref, failed in latest.items() if failed}


def plan_table(plan: Plan, graph: Graph, store: ArtifactStore) -> Table:
    """Returns a row for every asset to be made: how many partitions, and how long they took before."""
    past = expected_seconds(store, graph)
    planned = Counter(ref.asset for unit in plan.units for ref in unit.refs)
    table = Table(title=f"{graph.experiment.name}: {sum(planned.values())} partitions in {len(plan.units)} runs")
    table.add_column("asset")
    table.add_column("to make", justify="right")
    table.add_column("stale, left alone", justify="right")
    table.add_column("seconds each, before", justify="right")
    left = Counter(ref.asset for ref in plan.left)
    for name in graph.nodes:
        if planned[name] or left[name]:
            seconds = f"{past[name]:.1f}" if name in past else "?"
            table.add_row(name, str(planned[name] or ""), str(left[name] or ""), seconds)
    return table


def estimate_table(plan: Plan, graph: Graph, store: ArtifactStore) -> Table | None:
    """Returns a row for every model behind an endpoint that the plan needs; None if it needs none."""
    from dagster_project.collect.estimate import estimate

    experiment = graph.experiment
    if not experiment.roles():
        return None
    pilot = ArtifactStore(store.root, f"{experiment.name}-pilot")
    found = estimate(experiment, (ref for unit in plan.units for ref in unit.refs), (store, pilot))
    if not found:
        return None
    total = sum(role.cost for role in found if role.cost is not None)
    unpriced = any(role.cost is None for role in found)
    title = f"models: about {total:.2f} {experiment.currency}{', without those that have no price' if unpriced else ''}"
    table = Table(title=title)
    for column in ("role", "model", "records", "calls", "prompt tokens", "generated", "cost", "by"):
        table.add_column(column, justify="left" if column in ("role", "model", "by") else "right")
    for role in found:
        cost = "?" if role.cost is None else f"{role.cost:.2f}"
        numbers = (role.records, role.calls, role.prompt_tokens, role.completion_tokens)
        by = "records so far" if role.measured else "assumption"
        table.add_row(role.place, role.model, *(f"{number:,}" for number in numbers), cost, by)
    return table


def point_refs(graph: Graph, point: str) -> list[Ref]:
    """Returns what lies directly under a frontier point: its agents' evaluations, and its source model's, all judges.

    Args:
        graph: The experiment's graph.
        point: ``MODEL:RECIPE[:JUDGE[:BETA]]``; a part left out, or empty, stands for all.

    Raises:
        FrontierError: No agent is meant by it.
    """
    fields = point.split(":")
    experiment = graph.experiment
    agents = [
        agent
        for agent in experiment.agents()
        if all(
            not asked or asked == str(own)
            for asked, own in zip(
                fields,
                (agent.model, agent.recipe.value, agent.pairs_judge, agent.key.rpartition(":")[2]),
                strict=False,
            )
        )
    ]
    if not agents or len(fields) > 4:
        known = ", ".join(agent.key for agent in experiment.agents()[:10])
        raise FrontierError(f"{point}: no trained agent of {experiment.name} is meant by it. Agents: {known} …")
    verdicts = [f"{judge}/{metric.value}" for judge in experiment.judges for metric in experiment.metrics]
    trained = [
        Ref.of(f"agent_evaluations/{verdict}", agent=agent.key, seed=str(seed))
        for agent in agents
        for seed in experiment.grid.seeds
        for verdict in verdicts
    ]
    models = dict.fromkeys(agent.model for agent in agents)
    source = [Ref.of(f"source_evaluations/{verdict}", model=model) for model in models for verdict in verdicts]
    there = {ref for node in graph.nodes.values() for ref in node.refs()}
    return [ref for ref in trained + source if ref in there]


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
