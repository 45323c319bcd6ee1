"""`frontier run`: plan, run, show progress, end with the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.spec import Experiment, data_root
from dagster_project.operations.runner import Outcome, Worker, run_plan
from dagster_project.operations.state import Plan, RunUnit, expected_seconds, make_plan, states
from dagster_project.report.figures import JUDGING_TITLES
from dagster_project.report.tables import result_rows
from toolemu.errors import FrontierError

TYPICAL_SECONDS = {"collect": 30.0, "train": 12.0, "measure": 5.0, "results": 5.0}
"""Relative lengths of runs, measured on the miniature on two cores; they only serve a first guess of the time left."""


def run_experiment(
    experiment: Experiment,
    out: Console,
    *,
    select: Collection[str] = (),
    seeds: Collection[int] = (),
    update: bool = False,
    fresh: bool = False,
) -> bool:
    """Makes what is missing of an experiment and shows the result; returns whether everything succeeded.

    Raises:
        FrontierError: Another run of the experiment is under way, or an option names what is not there.
    """
    graph, store = build_graph(experiment), ArtifactStore(data_root(), experiment.name)
    store.base.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store.root / f".{experiment.name}.run.lock", timeout=3):
            if fresh and any(store.base.iterdir()):
                out.print(f"--fresh: deleting {store.base}", markup=False)
                shutil.rmtree(store.base)
            return _run(graph, store, out, select, seeds, update)
    except Timeout:
        raise FrontierError(f"Another `frontier run {experiment.name}` is under way on {store.base}.") from None


def _run(
    graph: Graph, store: ArtifactStore, out: Console, select: Collection[str], seeds: Collection[int], update: bool
) -> bool:
    current = states(graph, store)
    plan = make_plan(graph, current, select=select, seeds=seeds, update=update)
    name = graph.experiment.name
    outcome = Outcome()
    if plan.units:
        from dagster_project.operations.instance import fail_orphaned_runs, open_instance

        orphans = fail_orphaned_runs(open_instance())
        if orphans:
            out.print(f"{orphans} runs of an earlier process that died are marked as failed; resuming.")
        partitions = sum(len(unit.refs) for unit in plan.units)
        out.print(f"{name}: {partitions} of {len(current)} partitions to make, in {len(plan.units)} runs.")
        started = time.monotonic()
        with ProgressView(graph, store, plan, out) as view:
            outcome = run_plan(graph.experiment, plan, view.show)
        out.print(f"{len(outcome.done)} runs in {_minutes(time.monotonic() - started)}.")
    else:
        out.print(f"{name}: nothing to do, all {len(current)} partitions are there.")
    for unit, reason in outcome.failed.items():
        out.print(Text(f"failed: {unit.label}: {reason}", style="red"))
    if outcome.skipped:
        out.print(Text(f"not started, since what they need failed: {', '.join(u.label for u in outcome.skipped)}"))
    if plan.left:
        seconds = expected_seconds(store, graph)
        cost = _minutes(sum(seconds.get(ref.asset, 0.0) for ref in plan.left))
        first = current[plan.left[0]]
        out.print(
            Text(
                f"{len(plan.left)} partitions are stale and expensive, and left as they are (about {cost} of compute); "
                f"for instance {plan.left[0].label}: {first.reason}. Redo them: frontier run {name} --update",
                style="yellow",
            )
        )
    show_result(graph, store, out)
    return not outcome.failed


def show_result(graph: Graph, store: ArtifactStore, out: Console) -> None:
    """Prints the result table, and where figure and database lie."""
    frontier, tables, figures = (store.manifest(Ref(name)) for name in ("frontier", "tables", "figures"))
    if frontier is None or tables is None or figures is None:
        return
    points = pd.read_parquet(store.get(Ref("frontier")).path / "frontier_points.parquet")
    if points.empty:
        return
    rows = result_rows(points)
    rows = rows[rows["judging"] == rows["judging"].iloc[0]]
    judging = JUDGING_TITLES[rows["judging"].iloc[0]]
    confidence = graph.experiment.statistics.confidence
    title = (
        f"{graph.experiment.name}: held-out cases, 0 to 3, {judging}; Δ to the source model, {confidence:.0%} interval"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    rows = rows.drop(columns="judging")
    for column in rows.columns:
        table.add_column(str(column), no_wrap=True)
    for row in rows.itertuples(index=False):
        table.add_row(*map(str, row))
    out.print(table)
    if graph.experiment.toy:
        out.print("A toy world: it shows that the graph works, and says nothing of real agents.")
    out.print(f"figure    {_shown(store.get(Ref('figures')).path / 'frontier.svg')}", markup=False, highlight=False)
    results = store.get(Ref("tables")).path / "results.md"
    out.print(f"table     {_shown(results)} (other ways of judging, too)", markup=False, highlight=False)
    database = store.get(Ref("tables")).path / f"{graph.experiment.name}.duckdb"
    out.print(f"database  {_shown(database)}", markup=False, highlight=False)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"


class ProgressView:
    """What runs, how many of how many, time left: a live table on a terminal, a line a run elsewhere."""

    def __init__(self, graph: Graph, store: ArtifactStore, plan: Plan, out: Console) -> None:
        self._plan, self._out = plan, out
        past = expected_seconds(store, graph)
        self._expected = {
            unit: sum(past[ref.asset] for ref in unit.refs)
            for unit in plan.units
            if all(ref.asset in past for ref in unit.refs)
        }
        self._live = Live(console=out, refresh_per_second=4, transient=True) if out.is_terminal else None
        self._told: set[RunUnit] = set()

    def __enter__(self) -> ProgressView:
        """Starts the live view."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        if self._live:
            self._live.stop()

    def show(self, outcome: Outcome, workers: list[Worker]) -> None:
        """Shows how far the runs are."""
        left = self._left(outcome, workers)
        ended = len(outcome.done) + len(outcome.failed) + len(outcome.skipped)
        head = f"{ended} of {len(self._plan.units)} runs"
        head += f", about {_minutes(left)} left" if left is not None else ""
        if self._live:
            table = Table.grid(padding=(0, 2))
            table.add_row(head)
            for worker in workers:
                if worker.unit:
                    progress = worker.progress
                    detail = f"{progress.label}: {progress.done} of {progress.total}" if progress else "starting"
                    table.add_row(f"  {worker.unit.label}", detail, _minutes(time.monotonic() - worker.since))
            self._live.update(table)
            return
        for unit in [*outcome.done, *outcome.failed]:
            if unit not in self._told:
                self._told.add(unit)
                took = f"{outcome.done[unit]:.1f} s" if unit in outcome.done else "failed"
                self._out.print(f"{head}: {unit.label} ({took})", markup=False, highlight=False)

    def _left(self, outcome: Outcome, workers: list[Worker]) -> float | None:
        """Returns the seconds left: past runs of the same assets, else `TYPICAL_SECONDS` at the speed seen so far."""
        ended = {**outcome.done, **dict.fromkeys(outcome.failed, 0.0), **dict.fromkeys(outcome.skipped, 0.0)}
        typical = sum(_typical(unit) for unit in outcome.done)
        speed = sum(outcome.done.values()) / typical if typical else None
        total = 0.0
        for unit in self._plan.units:
            if unit not in ended:
                seconds = self._expected.get(unit)
                if seconds is None:
                    if speed is None:
                        return None
                    seconds = _typical(unit) * speed
                total += seconds
        spent = sum(time.monotonic() - worker.since for worker in workers if worker.unit)
        return max(0.0, total - spent) / max(1, len(workers))


def _typical(unit: RunUnit) -> float:
    return TYPICAL_SECONDS.get(unit.kind.split("_")[0], 1.0)
