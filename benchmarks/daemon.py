"""Dagster's daemon for tests and benchmarks: the real one, with everything it starts, and what its event log shows."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any, NamedTuple

import dagster as dg
import psutil
import yaml
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, PartitionBackfill
from dagster._core.storage.tags import BACKFILL_ID_TAG

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.assets import AssetFactory, dagster_partition_key
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.pools import GPU
from dagster_project.experiment.spec import load_experiment
from dagster_project.operations.schedules import SEEDS
from dagster_project.operations.state import State, states

ROOT = Path(__file__).parents[1]
LOCATION = "load_from:\n  - python_module: {{module_name: {module}, attribute: experiment, location_name: {name}}}\n"
DAEMON = (
    "import dagster._daemon.controller as controller; controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2;"
    "from dagster._daemon.cli import main; main()"
)
"""Looks at backfills every two seconds and not every thirty, or most of the time would be waiting."""
IMPATIENT = {"max_concurrent_runs": 4, "poll_interval_seconds": 2, "free_slots_after_run_end_seconds": 2}
"""Settings of dagster.yaml with which an outage is noticed at once, and runs are beside each other."""
LOOK_EVERY_S = 2.0
"""Looking for a training reads much of the event log."""
PHASES = {
    "queued": (dg.DagsterEventType.RUN_ENQUEUED, dg.DagsterEventType.RUN_STARTING),
    "its process starts": (dg.DagsterEventType.RUN_STARTING, dg.DagsterEventType.RUN_START),
    "its first step starts": (dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_START),
    "works": (dg.DagsterEventType.STEP_START, dg.DagsterEventType.RUN_SUCCESS),
}
"""What a run does between which of its events."""
ENDS = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)


def wait_for(happened: Callable[[], bool], seconds: float, what: str, every: float = 0.5) -> None:
    """Returns when something has happened, looking every so many seconds.

    Raises:
        TimeoutError: It did not, for so long.
    """
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(every)


class Place(NamedTuple):
    """A folder with a `workspace.yaml`, a Dagster home, and the environment of what runs there."""

    directory: Path
    environment: Mapping[str, str]

    def prepare(self, workspace: str, **settings: int) -> None:
        """Writes the workspace, and a Dagster home in which some settings of dagster.yaml have other numbers."""
        (self.directory / "workspace.yaml").write_text(workspace)
        self.run("-c", "from dagster_project.operations.instance import open_instance; open_instance()")
        path = Path(self.environment["DAGSTER_HOME"]) / "dagster.yaml"
        lines = path.read_text().splitlines()
        for name, value in settings.items():
            (place,) = (index for index, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
            lines[place] = f"{lines[place].partition(':')[0]}: {value}"
        path.write_text("\n".join(lines))

    def run(self, *arguments: str) -> None:
        """Runs Python here."""
        subprocess.run(
            [sys.executable, *arguments], cwd=self.directory, env=self.environment, check=True, capture_output=True
        )

    def dagster(self, *arguments: str) -> None:
        """Runs Dagster's command line here."""
        self.run("-m", "dagster", *arguments, "-w", "workspace.yaml")


def make_place(
    folder: Path, experiment: Mapping[str, Any], module: str = "dagster_project.definitions", **settings: int
) -> tuple[Place, Graph]:
    """Returns a place with an experiment, and the experiment's graph.

    Args:
        folder: Where; made.
        experiment: The content of its file.
        module: Whose attribute `experiment` is the code location.
        settings: Numbers in dagster.yaml, as `Place.prepare` takes them.
    """
    name = experiment["name"]
    file = folder / f"{name}.yaml"
    folder.mkdir(parents=True)
    file.write_text(yaml.safe_dump(dict(experiment)))
    own = {
        "FRONTIER_DATA": str(folder / "data"),
        "DAGSTER_HOME": str(folder / "home"),
        "FRONTIER_EXPERIMENT": str(file),
        "PYTHONPATH": str(ROOT),
    }
    place = Place(folder, {**os.environ, **own})
    place.prepare(LOCATION.format(module=module, name=name), **settings)
    return place, build_graph(load_experiment(str(file)))


class Daemon:
    """The daemon of a place with its code server and all its runs, while its block lasts."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __enter__(self) -> Daemon:
        self._log = (self._place.directory / "daemon.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, "run", "-w", "workspace.yaml"],
            cwd=self._place.directory,
            env=self._place.environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._log.close()

    def cpu_s(self) -> float:
        """Returns the processor's seconds that it and what it started have used, as far as they are there or ended."""
        try:
            process = psutil.Process(self._process.pid)
            there = [process, *process.children(recursive=True)]
            return sum(sum(found.cpu_times()[:4]) for found in there)  # of the ended children, too
        except psutil.NoSuchProcess:
            return 0.0

    def kill(self) -> None:
        """Kills everything at once, as an outage does."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(url: str) -> bool:
    """Says whether a server answers at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def webserver(place: Place, port: int) -> Iterator[str]:
    """Serves Dagster's UI of a place without its daemon; gives its address."""
    with _served(place, port, "-m", "dagster_webserver", "-w", "workspace.yaml", "-p", str(port)) as (url, _):
        yield url


@contextlib.contextmanager
def user_interface(place: Place, experiment: str, port: int) -> Iterator[tuple[str, float]]:
    """Runs `frontier ui` in a place; gives its address, and the seconds until it answers."""
    with _served(place, port, "-m", "dagster_project.cli", "ui", experiment, "--port", str(port)) as served:
        yield served


@contextlib.contextmanager
def _served(place: Place, port: int, *arguments: str) -> Iterator[tuple[str, float]]:
    started = time.perf_counter()
    with (place.directory / "ui.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=place.directory,
            env=place.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/server_info"), 120, "the web server", 0.05)
            yield f"http://127.0.0.1:{port}", time.perf_counter() - started
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def in_training(instance: dg.DagsterInstance) -> list[str]:
    """Returns the runs in which an adapter is being trained."""
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return [
        run.run_id
        for run in started
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
        if "adapters" in (entry.step_key or "")
    ]


class Held(NamedTuple):
    """A step had a place in a pool, from and to these seconds since the epoch."""

    begin: float
    end: float
    run_id: str


class Outage(NamedTuple):
    """Everything was killed at once, so many seconds after the start, while a run was training.

    `cpu_s` are the processor's seconds that everything took, before and after.
    """

    run_id: str
    after_s: float
    cpu_s: float


def make_through_an_outage(place: Place, instance: dg.DagsterInstance, timeout_s: float) -> Outage:
    """Has the daemon make what the schedule finds, with a `kill -9` of everything in the first training.

    Returns when the backfill has ended and the schedule has looked once more.

    Raises:
        TimeoutError: A part of it took longer than `timeout_s`.
    """
    place.dagster("schedule", "start", SEEDS)
    started = time.monotonic()
    with Daemon(place) as daemon:
        wait_for(lambda: bool(in_training(instance)), timeout_s, "a training", LOOK_EVERY_S)
        outage = Outage(in_training(instance)[0], time.monotonic() - started, daemon.cpu_s())
        daemon.kill()
    with Daemon(place) as daemon:
        wait_for(lambda: has_ended(instance), timeout_s, "the backfill's end", LOOK_EVERY_S)
        before = len(looks(instance))
        wait_for(lambda: len(looks(instance)) > before, timeout_s, "a look at the seeds after the end", LOOK_EVERY_S)
        return outage._replace(cpu_s=outage.cpu_s + daemon.cpu_s())


def has_ended(instance: dg.DagsterInstance) -> bool:
    """Says whether there was a backfill and none is under way."""
    found: Sequence[PartitionBackfill] = instance.get_backfills()
    return bool(found) and all(backfill.status in BULK_ACTION_TERMINAL_STATUSES for backfill in found)


def looks(instance: dg.DagsterInstance) -> list[str]:
    """Returns what looking at the seeds came to, the latest first."""
    return [
        str(event.step_output_data.metadata["reason"].value)
        for run in instance.get_runs(dg.RunsFilter(job_name=SEEDS, statuses=[dg.DagsterRunStatus.SUCCESS]))
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)
        if (event := entry.dagster_event) is not None
    ]


def ticks(instance: dg.DagsterInstance, name: str) -> Counter[str]:
    """Returns how many ticks of a schedule or sensor ended how."""
    return Counter(
        tick.status.value
        for state in instance.all_instigator_state()
        if state.instigator_name == name
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
    )


def unlike(instance: dg.DagsterInstance, graph: Graph) -> list[str]:
    """Returns the partitions that were materialised more than once, with different content."""
    versions = defaultdict(set)
    for name in graph.nodes:
        for record in instance.fetch_materializations(AssetFactory.key_of(graph.experiment, name), limit=5000).records:
            made = record.asset_materialization
            assert made is not None and made.tags is not None
            versions[f"{name} {made.partition or ''}".strip()].add(made.tags["dagster/data_version"])
    return [place for place, found in versions.items() if len(found) > 1]


def too_early(instance: dg.DagsterInstance, graph: Graph) -> list[tuple[Ref, Ref]]:
    """Returns what was first materialised before something that it reads, with that, or although that never was."""
    first: dict[tuple[str, str | None], int] = {}
    for name in graph.nodes:
        key = AssetFactory.key_of(graph.experiment, name)
        for record in instance.fetch_materializations(key, limit=5000, ascending=True).records:
            first.setdefault((name, record.partition_key), record.storage_id)

    def moment(ref: Ref) -> int | None:
        return first.get((ref.asset, dagster_partition_key(ref)))

    return [
        (ref, source)
        for node in graph.nodes.values()
        for ref in node.refs()
        for source in node.sources(ref)
        if (made := moment(ref)) is not None and ((before := moment(source)) is None or before > made)
    ]


def gpu_steps(graph: Graph) -> set[str]:
    """Returns the names of the steps that take a place in the pool `gpu`."""
    return {AssetFactory.op_of(graph.experiment, node.name) for node in graph.nodes.values() if node.pool == GPU}


def overlaps(spans: Sequence[Held]) -> int:
    """Returns how many began before the one before them ended; `spans` are in order."""
    return sum(earlier.end > later.begin for earlier, later in itertools.pairwise(spans))


def held(instance: dg.DagsterInstance, backfill_id: str, steps: Collection[str]) -> list[Held]:
    """Returns when these steps of a backfill were under way, in order; a killed one only has a beginning."""
    return sorted(_held(instance, backfill_id, steps))


def _held(instance: dg.DagsterInstance, backfill_id: str, steps: Collection[str]) -> Iterator[Held]:
    for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id})):
        begun: dict[str, float] = {}
        for entry in instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_START, *ENDS}):
            event, step = entry.dagster_event, entry.step_key
            if event is None or step not in steps:
                continue
            if event.is_step_start:
                begun[step] = entry.timestamp
            else:
                yield Held(begun.pop(step), entry.timestamp, run.run_id)
        yield from (Held(begin, begin, run.run_id) for begin in begun.values())


def most_at_once(instance: dg.DagsterInstance) -> int:
    """Returns how many runs were under way at the same time, at most."""
    spans = [
        (record.start_time, record.end_time)
        for record in instance.get_run_records(limit=5000)
        if record.start_time and record.end_time
    ]
    return max((sum(begin <= moment < end for begin, end in spans) for moment, _ in spans), default=0)


def phases(instance: dg.DagsterInstance) -> dict[str, float]:
    """Returns the mean seconds that a run spent in each of its phases."""
    spent: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
        first: dict[str, float] = {}
        for entry in instance.all_logs(run.run_id):
            if entry.dagster_event is not None:
                first.setdefault(entry.dagster_event.event_type_value, entry.timestamp)
        for phase, (begin, end) in PHASES.items():
            if begin.value in first and end.value in first:
                spent[phase].append(first[end.value] - first[begin.value])
    return {phase: mean(seconds) for phase, seconds in spent.items() if seconds}


def tell(place: Place, graph: Graph, instance: dg.DagsterInstance, outage: Outage) -> None:
    """Prints what came of a seed that the daemon made, and what was asked for."""
    store = ArtifactStore(Path(place.environment["FRONTIER_DATA"]), graph.experiment.name)
    found = Counter(state.state for state in states(graph, store).values())
    runs = Counter(record.dagster_run.status.value for record in instance.get_run_records())
    (backfill,) = instance.get_backfills()
    assert backfill.backfill_end_timestamp is not None
    took = backfill.backfill_end_timestamp - backfill.backfill_timestamp
    spans = held(instance, backfill.backfill_id, gpu_steps(graph))
    spent = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in phases(instance).items())
    print(f"everything was killed after {outage.after_s:.0f} s, with a training under way")
    print(f"{backfill.backfill_id}: {backfill.status.value} {took:.0f} s after its launch, the outage included;")
    print(f"{outage.cpu_s:.0f} s of the processor")
    print(f"{found[State.done]} of {found.total()} partitions; {runs.total()} runs, {dict(runs)}")
    print(f"at most {most_at_once(instance)} runs at once; a run, on average: {spent}")
    print(f"{len(spans)} steps had the GPU, {overlaps(spans)} of them beside another (asked: 0)")
    print(f"made twice with different content: {unlike(instance, graph) or 'none'} (asked: none)")
    print(f"made before what it reads: {too_early(instance, graph) or 'nothing'} (asked: nothing)")
    print(f"ticks of the schedule: {dict(ticks(instance, SEEDS))}; they found: {looks(instance)[::-1]}", flush=True)
