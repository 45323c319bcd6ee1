"""`frontier run`: plan, run, show progress, end with the result."""

from __future__ import annotations

import csv
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.database import open_database
from dagster_project.artifacts.failures import failures, note_lost
from dagster_project.environments.imported import ImportedWorld
from dagster_project.experiment.graph import IMPORT, Graph, build_graph
from dagster_project.experiment.nodes import Kind
from dagster_project.experiment.pools import GPU
from dagster_project.experiment.spec import Experiment, open_store
from dagster_project.operations.preflight import preflight, webhook_url
from dagster_project.operations.runner import Outcome, Worker, open_workers, prepare_workers, run_plan
from dagster_project.operations.state import (
    PartitionState,
    Plan,
    RunUnit,
    State,
    expected_seconds,
    make_plan,
    states,
    unreported_import,
)
from dagster_project.published.importer import PROBLEMS
from dagster_project.published.opening import check_sources, open_experiment
from dagster_project.published.problems import KINDS
from dagster_project.report.wording import JUDGING_TITLES, PAGE, RESULTS_CSV, ui_url
from toolemu.errors import FrontierError

TYPICAL_SECONDS = {
    Kind.model: 30.0,
    Kind.adapters: 12.0,
    Kind.trajectories: 5.0,
    Kind.result: 2.0,
    Kind.transcripts: 3.0,
    Kind.page: 4.0,
    Kind.figures: 5.0,
}
"""Relative lengths of runs, measured on the miniature on two cores; they only serve a first guess of the time left."""
LINE_EVERY_S = 60.0
"""Without a terminal, what is under way is told so often."""


def run_experiment(
    experiment: Experiment,
    out: Console,
    *,
    sources: Sequence[Path] = (),
    select: Collection[str] = (),
    seeds: Collection[int] = (),
    update: bool = False,
    fresh: bool = False,
) -> bool:
    """Makes what is missing of an experiment and shows the result; returns whether everything succeeded.

    Raises:
        FrontierError: Another run of the experiment is under way, or has taken over; an option names what is not there.
    """
    store = open_store(experiment)
    store.check()
    with store.being_made(lambda line: out.print(line, markup=False, highlight=False)):
        if fresh and store.clear():
            out.print(f"--fresh: deleted {store.place()}", markup=False)
        opened = open_experiment(experiment, store, sources)
        return _run(opened, store, out, Wanted(select, seeds, update))


def _run(experiment: Experiment, store: ArtifactStore, out: Console, wanted: Wanted) -> bool:
    graph = build_graph(experiment)
    current = states(graph, store)
    importing = experiment.imports and current[Ref(IMPORT)].state is not State.done
    if importing:
        check_sources(experiment)
    # What an import brings decides what there is to make after it.
    plan = make_plan(graph, current, select=[IMPORT]) if importing else wanted.plan(graph, current)
    if not plan.units:
        out.print(f"{experiment.name}: nothing to do, all {len(current)} partitions are there.")
        if unreported_import(store):
            _report_left(graph, store, out)
        return _finish(graph, store, out, plan, current, Outcome())
    for line in preflight(graph, store, (ref for unit in plan.units for ref in unit.refs)):
        out.print(line, markup=False, highlight=False)
    count = prepare_workers(experiment, len(plan.units) + importing)
    from dagster_project.operations.instance import fail_orphaned_runs, open_instance
    from dagster_project.operations.pools import places
    from dagster_project.operations.reporting import PartitionReport

    instance = open_instance()
    orphans = fail_orphaned_runs(instance)
    if orphans:
        out.print(f"{orphans} runs of an earlier process that died are marked as failed; resuming.")
    with open_workers(count) as workers:
        if importing:
            outcome = _make(workers, graph, store, out, plan, f"{experiment.name}: importing {_sources(experiment)}.")
            if outcome.failed:
                return _finish(graph, store, out, plan, current, outcome)
            _tell_import(store, out)
            graph = build_graph(open_experiment(experiment, store))
            current = states(graph, store)
            plan = wanted.plan(graph, current)
        report = PartitionReport.start(graph, store, instance) if experiment.imports else None
        partitions = sum(len(unit.refs) for unit in plan.units)
        head = f"{experiment.name}: {partitions} of {len(current)} partitions to make, in {len(plan.units)} runs."
        outcome = _make(workers, graph, store, out, plan, head, places(instance, GPU))
        if report:
            report.wait()
    return _finish(graph, store, out, plan, current, outcome)


def _report_left(graph: Graph, store: ArtifactStore, out: Console) -> None:
    """Tells Dagster of an import's partitions, of which a run that died did not."""
    from dagster_project.operations.instance import open_instance
    from dagster_project.operations.reporting import PartitionReport

    out.print("telling Dagster of the imported partitions, which an earlier run did not come to.")
    report = PartitionReport.start(graph, store, open_instance())
    if report:
        report.wait()


class Wanted(NamedTuple):
    """What the command line asks to be made."""

    select: Collection[str]
    seeds: Collection[int]
    update: bool

    def plan(self, graph: Graph, current: dict[Ref, PartitionState]) -> Plan:
        """Returns the plan for it."""
        return make_plan(graph, current, select=self.select, seeds=self.seeds, update=self.update)


def _make(
    workers: list[Worker],
    graph: Graph,
    store: ArtifactStore,
    out: Console,
    plan: Plan,
    head: str,
    gpus: int | None = None,
) -> Outcome:
    out.print(head, markup=False, highlight=False)
    started = time.monotonic()
    with ProgressView(graph, store, plan, out) as view:

        def watch(outcome: Outcome, workers: list[Worker]) -> None:
            store.check_held()
            view.show(outcome, workers)

        outcome = run_plan(workers, graph, plan, watch, gpus)
    for unit, since in outcome.lost.items():
        began = datetime.now(UTC) - timedelta(seconds=time.monotonic() - since)
        note_lost(store, unit.refs, "", outcome.failed[unit], began)
    out.print(f"{len(outcome.done)} runs in {_minutes(time.monotonic() - started)}.")
    return outcome


def _sources(experiment: Experiment) -> str:
    assert isinstance(experiment.world, ImportedWorld)
    return ", ".join(str(path) for path in experiment.world.paths)


def _tell_import(store: ArtifactStore, out: Console) -> None:
    """Says what an import brought and what it did not."""
    artifact = store.get(Ref(IMPORT))
    counts = artifact.manifest.counts
    out.print(
        f"imported {counts['trajectories']:,} trajectories and {counts['evaluations']:,} verdicts "
        f"from {counts['files']:,} files ({counts['megabytes']:,} MB), {counts['partitions']} partitions."
    )
    kinds = {kind: counts.get(f"problem_{kind}", 0) for kind in KINDS}
    for kind, count in kinds.items():
        if count:
            out.print(Text(f"  {count:>6}  {KINDS[kind]}"))
    if counts["errors"]:
        path = _shown(artifact.path / PROBLEMS)
        out.print(Text(f"{counts['errors']} findings kept something out; every one, with file and line: {path}", "red"))


def _finish(
    graph: Graph,
    store: ArtifactStore,
    out: Console,
    plan: Plan,
    current: dict[Ref, PartitionState],
    outcome: Outcome,
) -> bool:
    for unit, reason in outcome.failed.items():
        out.print(Text(f"failed: {unit.label}: {reason}", style="red"))
    if outcome.failed:
        _tell_failures(graph.experiment, store, out, outcome)
    if outcome.skipped:
        out.print(Text(f"not started, since what they need failed: {', '.join(u.label for u in outcome.skipped)}"))
    if plan.left:
        seconds = expected_seconds(store, graph)
        cost = _minutes(sum(seconds.get(ref.asset, 0.0) for ref in plan.left))
        first = current[plan.left[0]]
        out.print(
            Text(
                f"{len(plan.left)} partitions are stale and expensive, and left as they are (about {cost} of compute); "
                f"for instance {plan.left[0].label}: {first.reason}. "
                f"Redo them: frontier run {graph.experiment.argument} --update",
                style="yellow",
            )
        )
    show_result(graph, store, out)
    return not outcome.failed


def _tell_failures(experiment: Experiment, store: ArtifactStore, out: Console, outcome: Outcome) -> None:
    """Posts the failures to where the experiment file says, if it says so."""
    from dagster_project.operations.alerts import alert_of, post

    url = webhook_url(experiment)
    if not url:
        return
    refs = {ref for unit in outcome.failed for ref in unit.refs}
    noted = {failure.ref: failure for failure in failures(store) if failure.ref in refs}
    run_id = next((failure.run_id for failure in noted.values() if failure.run_id), "")
    try:
        post(url, alert_of(experiment.name, run_id, list(noted.values()), "", ui_url()))
    except FrontierError as problem:  # what failed is told here in any case
        out.print(Text(str(problem), style="red"))


def show_result(graph: Graph, store: ArtifactStore, out: Console) -> None:
    """Prints the result table, if agents were trained, and where report, figure and database lie."""
    if store.manifest(Ref("tables")) is None:
        return
    tables = store.get(Ref("tables")).path
    with (tables / RESULTS_CSV).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows:
        out.print(_result_table(graph.experiment, rows))
    if graph.experiment.toy:
        out.print("A toy world: it shows that the graph works, and says nothing of real agents.")
    if store.manifest(Ref("report")) is not None:
        page = store.get(Ref("report")).path / PAGE
        out.print(f"report    {_shown(page)}", markup=False, highlight=False)
    if rows and store.manifest(Ref("figures")) is not None:
        path = store.get(Ref("figures")).path / "frontier.svg"
        out.print(f"figure    {_shown(path)}", markup=False, highlight=False)
    if rows:
        out.print(
            f"table     {_shown(tables / 'results.md')} (other ways of judging, too)", markup=False, highlight=False
        )
    database = tables / f"{graph.experiment.name}.duckdb"
    out.print(f"database  {_shown(database)}", markup=False, highlight=False)
    for line in _remarks(graph.experiment, database):
        out.print(Text(line, style="yellow"))


def _remarks(experiment: Experiment, database: Path) -> Iterator[str]:
    """Yield what the judges have to say after a run."""
    with open_database(database) as opened:
        there = {identity for (identity,) in opened.execute("SELECT trajectory_id FROM trajectories").fetchall()}
    for name, judge in experiment.judges.items():
        yield from judge.remarks(name, there)


def _result_table(experiment: Experiment, rows: list[dict[str, str]]) -> Table:
    rows = [row for row in rows if row["judging"] == rows[0]["judging"]]
    judging = JUDGING_TITLES[rows[0]["judging"]]
    confidence = experiment.statistics.confidence
    title = f"{experiment.name}: held-out cases, 0 to 3, {judging}; Δ to the source model, {confidence:.0%} interval"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in list(rows[0])[1:]:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*list(row.values())[1:])
    return table


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
        self._graph, self._plan, self._out = graph, plan, out
        past = expected_seconds(store, graph)
        self._expected = {
            unit: sum(past[ref.asset] for ref in unit.refs)
            for unit in plan.units
            if all(ref.asset in past for ref in unit.refs)
        }
        self._live = Live(console=out, refresh_per_second=4, transient=True) if out.is_terminal else None
        self._told: set[RunUnit] = set()
        self._lined = time.monotonic()

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
                    table.add_row(f"  {worker.unit.label}", _detail(worker), _minutes(time.monotonic() - worker.since))
            self._live.update(table)
            return
        if time.monotonic() - self._lined > LINE_EVERY_S:
            self._lined = time.monotonic()
            for worker in workers:
                if worker.unit:
                    self._out.print(f"{head}: {_detail(worker)}", markup=False, highlight=False)
        for unit in [*outcome.done, *outcome.failed]:
            if unit not in self._told:
                self._told.add(unit)
                took = f"{outcome.done[unit]:.1f} s" if unit in outcome.done else "failed"
                self._out.print(f"{head}: {unit.label} ({took})", markup=False, highlight=False)

    def _left(self, outcome: Outcome, workers: list[Worker]) -> float | None:
        """Returns the seconds left: past runs of the same assets, else `TYPICAL_SECONDS` at the speed seen so far."""
        ended = {**outcome.done, **dict.fromkeys(outcome.failed, 0.0), **dict.fromkeys(outcome.skipped, 0.0)}
        typical = sum(_typical(self._graph, unit) for unit in outcome.done)
        speed = sum(outcome.done.values()) / typical if typical else None
        total = 0.0
        for unit in self._plan.units:
            if unit not in ended:
                seconds = self._expected.get(unit)
                if seconds is None:
                    if speed is None:
                        return None
                    seconds = _typical(self._graph, unit) * speed
                total += seconds
        spent = sum(time.monotonic() - worker.since for worker in workers if worker.unit)
        return max(0.0, total - spent) / max(1, len(workers))


def _detail(worker: Worker) -> str:
    """Returns how far a worker's current asset is, how fast it goes and how long it will take."""
    progress, speed = worker.progress, worker.speed()
    if progress is None:
        return "starting"
    text = f"{progress.label}: {progress.done} of {progress.total}"
    if speed is None:
        return text
    return f"{text}, {speed:.3g} a second, {_minutes((progress.total - progress.done) / speed)} left"


def _typical(graph: Graph, unit: RunUnit) -> float:
    return TYPICAL_SECONDS.get(graph.node(unit.refs[0]).kind, 1.0)
