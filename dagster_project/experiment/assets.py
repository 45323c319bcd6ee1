"""From a node of the graph to a Dagster asset: partitions, dependencies, store, data version, checks.

A room's `assets.py` gives the computation; this module gives everything that is the same for all of them.
"""

# No `from __future__ import annotations` here: Dagster looks at the type of `context` itself.

import functools
import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project.artifacts import Artifact, ArtifactStore, Draft, InputEntry, Manifest, Ref
from dagster_project.artifacts.failures import Failure, note_failure
from dagster_project.artifacts.processes import die_with_parent
from dagster_project.experiment.causes import PASSING, Cause, cause_of
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.nodes import Input, Kind, Node
from dagster_project.experiment.pods import TAG, pod_config
from dagster_project.experiment.pools import GPU
from dagster_project.experiment.retention import release
from dagster_project.experiment.spec import Experiment
from toolemu.errors import FrontierError
from toolemu.evaluation import Metric
from toolemu.redaction import redact_error

Progress = Callable[[int, int], None]
reported_later: ContextVar[bool] = ContextVar("reported_later", default=False)
"""Set where somebody else tells Dagster of partitions that a run makes beside its own."""
progress_sink: ContextVar[Callable[[str, int, int], None] | None] = ContextVar("progress_sink", default=None)
attended: ContextVar[bool] = ContextVar("attended", default=False)
"""Set where `frontier run` makes it and a person waits: what may pass is told at once and not waited for, and only the
GPU has a pool, since its workers share endpoints among themselves."""
LOG_EVERY_S = 10.0
PRIORITY_TAG = "dagster/priority"


def told(error: BaseException) -> str:
    """Return an error's words, and its code if it has one of its own."""
    code = error.code if isinstance(error, FrontierError) and error.code != type(error).default_code else ""
    return f"{error or type(error).__name__}{f' [{code}]' if code else ''}"


class CheckFailed(dg.Failure):
    """A blocking check failed: what depends on the asset must not be made from it."""


@dataclass(frozen=True)
class Check:
    """The result of one check of one partition."""

    name: str
    passed: bool
    description: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class AssetRun:
    """One partition of one asset being made, as a room's computation is given it.

    Attributes:
        graph: The experiment's graph.
        ref: The partition.
        draft: Where its files, counts and metrics go.
        inputs: What it reads; every one goes into the manifest.
        log: Writes a line into Dagster's log.
        log_event: Gives Dagster an event.
        start: Runs a command, with more variables in its environment, that reports to Dagster by Pipes; waits for it.
        metadata: Shown in Dagster's UI.
        checks: The results of the asset's checks.
        rows: How many rows its file has, or the most important of its tables; shown in Dagster's catalogue.
        columns: The columns of that table, likewise.
    """

    graph: Graph
    ref: Ref
    store: ArtifactStore
    draft: Draft
    inputs: Mapping[Ref, Artifact]
    log: Callable[[str], None]
    log_event: Callable[[dg.AssetMaterialization], None]
    start: Callable[[Sequence[str], Mapping[str, str]], None]
    metadata: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    rows: int | None = None
    columns: dg.TableSchema | None = None
    _logged: float = field(default_factory=time.monotonic)

    @property
    def experiment(self) -> Experiment:
        """The experiment."""
        return self.graph.experiment

    @property
    def node(self) -> Node:
        """The asset's node."""
        return self.graph.node(self.ref)

    def all(self, part: Input, metric: Metric | None = None) -> list[Artifact]:
        """Return the inputs that play a part, in the graph's order.

        Args:
            part: Their part in making the partition.
            metric: Only verdicts on this metric.
        """
        refs = (ref for ref in self.node.inputs(self.ref).get(part, ()) if ref in self.inputs)
        return [self.inputs[ref] for ref in refs if metric in (None, self.graph.node(ref).metric)]

    def one(self, part: Input) -> Artifact:
        """Return the only input that plays a part.

        Raises:
            KeyError: None does, or several do.
        """
        found = self.all(part)
        if len(found) != 1:
            raise KeyError(f"{self.ref.label} reads {len(found)} partitions as {part}, not one")
        return found[0]

    def place(self, path: Path) -> str:
        """Returns where a file of the draft will lie, for everyone."""
        return self.store.place(self.ref, self.draft.path.name, path.relative_to(self.draft.path).as_posix())

    def progress(self, done: int, total: int) -> None:
        """Tells whoever watches how far this partition is; without a watcher, Dagster's log every ten seconds."""
        sink = progress_sink.get()
        if sink is not None:
            sink(self.ref.label, done, total)
        elif time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            self.log(f"{self.ref.label}: {done} of {total}")

    def report(self, artifact: Artifact) -> None:
        """Tells Dagster of a partition of another asset that this run has made."""
        if not reported_later.get():
            self.log_event(materialisation(self.store, artifact.manifest))


def materialisation(store: ArtifactStore, manifest: Manifest) -> dg.AssetMaterialization:
    """Returns what Dagster is told of an artifact that another asset's run made."""
    ref = manifest.ref
    return dg.AssetMaterialization(
        dg.AssetKey([store.experiment, *ref.path]),
        partition=dagster_partition_key(ref),
        metadata={**manifest.counts, "path": dg.MetadataValue.path(store.place(ref, manifest.run_id))},
        tags={"dagster/data_version": manifest.sha256[:16]},
    )


Compute = Callable[[dict[str, AssetRun]], None]


class AssetFactory:
    """Makes Dagster assets from the nodes of one experiment's graph."""

    def __init__(self, graph: Graph, store: ArtifactStore) -> None:
        self.graph = graph
        self.store = store
        self.experiment = graph.experiment

    @staticmethod
    def key_of(experiment: Experiment, name: str) -> dg.AssetKey:
        """Return an asset's key: the experiment's name, then the asset's."""
        return dg.AssetKey([experiment.name, *Ref(name).path])

    def key(self, name: str) -> dg.AssetKey:
        """Returns the key of one of this experiment's assets."""
        return self.key_of(self.experiment, name)

    @staticmethod
    def op_of(experiment: Experiment, name: str) -> str:
        """Returns the name of the op, and so of the step, that makes an asset and those made together with it."""
        return "__".join([experiment.name, *Ref(name).path]).replace("-", "_").replace(".", "_")

    def asset(
        self,
        name: str,
        compute: Callable[[AssetRun], None],
        *,
        checks: Mapping[str, str] | None = None,
        blocking: bool = True,
        kinds: set[str] | None = None,
    ) -> dg.AssetsDefinition:
        """Return the asset `name`.

        Args:
            name: The asset's name.
            compute: Makes one partition.
            checks: Descriptions of the checks that `compute` reports, by their names.
            blocking: Whether a failed check fails the run, before the artifact is committed.
            kinds: Kinds of technology, shown in Dagster's UI.
        """

        @functools.wraps(compute)
        def compute_one(runs: dict[str, AssetRun]) -> None:
            compute(runs[name])

        return self.multi_asset([name], compute_one, checks={name: checks or {}}, blocking=blocking, kinds=kinds)

    def multi_asset(
        self,
        names: Sequence[str],
        compute: Compute,
        *,
        checks: Mapping[str, Mapping[str, str]] | None = None,
        blocking: bool = True,
        kinds: set[str] | None = None,
    ) -> dg.AssetsDefinition:
        """Return assets of equal partitions that one run makes together, any subset of them at a time.

        A failed blocking check is reported to Dagster first, so that it shows as a failed check. Then the run fails,
        and nothing is committed.
        """
        nodes = [self.graph.nodes[name] for name in names]
        by_key = {self.key(node.name): node for node in nodes}
        check_specs = [
            dg.AssetCheckSpec(check, asset=self.key(name), description=description, blocking=blocking)
            for name, described in (checks or {}).items()
            for check, description in described.items()
        ]
        specs = [
            dg.AssetSpec(
                key,
                deps=[self._dependency(node, upstream) for upstream in self.graph.upstream(node.name)],
                group_name=node.group,
                description=node.description,
                code_version=node.code_version,
                kinds=kinds,
                partitions_def=partitions_definition(node),
                freshness_policy=self._freshness(node),
                owners=list(self.experiment.operations.owners),
                metadata={"dagster/code_references": _code_references(compute)},
            )
            for key, node in by_key.items()
        ]

        pool = nodes[0].pool
        pool = pool if pool == GPU or not attended.get() else None
        # A place that becomes free goes to what is furthest along, so that agents are finished one after another.
        order = {PRIORITY_TAG: str(list(self.graph.nodes).index(nodes[0].name))} if pool else {}

        @dg.multi_asset(
            name=self.op_of(self.experiment, nodes[0].name),
            specs=specs,
            can_subset=len(specs) > 1,
            check_specs=check_specs or None,
            partitions_def=partitions_definition(nodes[0]),
            pool=pool,
            op_tags={**order, **self._pod_tags(nodes[0])},
        )
        def made(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
            selected = [node for key, node in by_key.items() if key in context.selected_asset_keys]
            partition = partition_of(nodes[0], context.partition_key if context.has_partition_key else None)
            run_id = context.run.run_id
            die_with_parent()  # a step that outlives its run would be at the same work as the run's next attempt
            with (
                self._noting_failures([Ref(node.name, partition) for node in selected], run_id),
                self._open(selected, partition, run_id, context) as runs,
            ):
                compute(runs)
                failed = [(run, check) for run in runs.values() for check in run.checks if not check.passed]
                if blocking and failed:
                    yield from (self._checked(run, check, blocking) for run in runs.values() for check in run.checks)
                    run, check = failed[0]
                    raise CheckFailed(
                        description=f"{run.ref.label}: {check.description}", metadata={"check": check.name}
                    )
            for node in selected:
                yield self._result(runs[node.name], blocking)
            release(self.graph, self.store, {source for run in runs.values() for source in run.inputs})

        return made

    def _freshness(self, node: Node) -> dg.FreshnessPolicy | None:
        """Returns when the report, which comes last, counts as overdue."""
        hours = self.experiment.operations.fresh_within_h
        return dg.FreshnessPolicy.time_window(timedelta(hours=hours)) if hours and node.kind is Kind.page else None

    @contextmanager
    def _noting_failures(self, refs: Sequence[Ref], run_id: str) -> Iterator[None]:
        """Keeps a record of what fails, and asks Dagster to try again later what may pass."""
        started = datetime.now(UTC)
        try:
            yield
        except Exception as error:
            cleaned = redact_error(error)  # Dagster keeps it, and all that led to it, in its database
            cause = Cause.check if isinstance(error, CheckFailed) else cause_of(error)
            message = getattr(error, "description", None) or told(error)
            for ref in refs:
                note_failure(
                    self.store,
                    Failure(
                        asset=ref.asset,
                        partition=dict(ref.partition),
                        run_id=run_id,
                        cause=cause,
                        message=message,
                        started_at=started,
                        failed_at=datetime.now(UTC),
                    ),
                )
            if cause in PASSING and not attended.get():
                settings = self.experiment.operations
                raise dg.RetryRequested(settings.retries, settings.retry_after_s) from cleaned
            if cleaned is not error:
                raise cleaned from None
            raise

    @contextmanager
    def _open(
        self,
        nodes: Sequence[Node],
        partition: tuple[tuple[str, str], ...],
        run_id: str,
        context: dg.AssetExecutionContext,
    ) -> Iterator[dict[str, AssetRun]]:
        def start(command: Sequence[str], environment: Mapping[str, str]) -> None:
            dg.PipesSubprocessClient().run(command=command, env=environment, context=context)

        with self.store.reading(), ExitStack() as drafts:
            runs = {}
            for node in nodes:
                ref = Ref(node.name, partition)
                inputs = self.store.get_all(node.sources(ref), partial=node.partial, skip=node.unread)
                entries: dict[Ref, InputEntry] = {source: artifact.entry for source, artifact in inputs.items()}
                draft = drafts.enter_context(
                    self.store.write(
                        ref,
                        run_id=run_id,
                        code_version=node.code_version,
                        config=node.config(ref),
                        inputs=entries,
                        kind=node.kind,
                    )
                )
                runs[node.name] = AssetRun(
                    self.graph, ref, self.store, draft, inputs, context.log.info, context.log_event, start
                )
            yield runs

    def _result(self, run: AssetRun, blocking: bool) -> dg.MaterializeResult[Any]:
        artifact = run.draft.committed
        assert artifact is not None, "the draft's block has ended"
        metadata = {
            **run.draft.counts,
            **run.draft.metrics,
            **run.metadata,
            "path": dg.MetadataValue.path(self.store.place(run.ref, artifact.manifest.run_id)),
        }
        catalogue = {"dagster/row_count": run.rows, "dagster/column_schema": run.columns}
        return dg.MaterializeResult(
            asset_key=self.key(run.ref.asset),
            metadata={**metadata, **{name: value for name, value in catalogue.items() if value is not None}},
            data_version=dg.DataVersion(artifact.manifest.sha256[:16]),
            check_results=[self._checked(run, check, blocking) for check in run.checks],
        )

    def _checked(self, run: AssetRun, check: Check, blocking: bool) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            asset_key=self.key(run.ref.asset),
            check_name=check.name,
            passed=check.passed,
            description=check.description,
            metadata=dict(check.metadata),
            severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        )

    def _pod_tags(self, node: Node) -> dict[str, Any]:
        """Returns the tag with a step's pod: of an asset's op, since Dagster ignores a job's in backfills."""
        config = pod_config(self.experiment.kubernetes, node)
        return {TAG: config} if config else {}

    def _dependency(self, node: Node, upstream: str) -> dg.AssetDep:
        return dg.AssetDep(self.key(upstream), partition_mapping=partition_mapping(node, self.graph.nodes[upstream]))


def _code_references(compute: Compute) -> dg.CodeReferencesMetadataValue:
    """Return references to the code that makes an asset."""
    function = inspect.unwrap(compute)
    path, line = inspect.getsourcefile(function), function.__code__.co_firstlineno
    with _no_beta_warnings():
        found = [dg.LocalFileCodeReference(file_path=path, line_number=line)] if path else []
        return dg.CodeReferencesMetadataValue(code_references=found)


def partitions_definition(node: Node) -> dg.PartitionsDefinition[Any] | None:
    """Returns Dagster's form of a node's partitions."""
    dimensions = {name: dg.StaticPartitionsDefinition(list(keys)) for name, keys in sorted(node.dimensions.items())}
    if len(dimensions) > 1:
        return dg.MultiPartitionsDefinition(dimensions)
    return next(iter(dimensions.values()), None)


def partition_of(node: Node, key: str | None) -> tuple[tuple[str, str], ...]:
    """Returns our form of a Dagster partition key (its parts are in alphabetical order of the dimensions)."""
    if key is None:
        return ()
    names = sorted(node.dimensions)
    return tuple(zip(names, key.split("|") if len(names) > 1 else [key], strict=True))


def dagster_partition_key(ref: Ref) -> str | None:
    """Returns Dagster's partition key of a reference, or None without partitions."""
    return "|".join(key for _, key in ref.partition) or None


def partition_mapping(node: Node, upstream: Node) -> dg.PartitionMapping | None:
    """Returns the Dagster mapping that says what `Node.inputs` says, derived from it.

    Two dimensions with the seed in common are mapped key by key; one dimension onto the same one by identity. A
    model's partitions onto an agent's are mapped to all, which is what training reads anyway.
    """
    with _no_beta_warnings():
        return _mapping(node, upstream)


@contextmanager
def _no_beta_warnings() -> Iterator[None]:
    """Silence what Dagster says of its newer classes: every process would say it, for every asset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield


def _mapping(node: Node, upstream: Node) -> dg.PartitionMapping | None:
    if not upstream.dimensions or not node.dimensions:
        return None
    if set(node.dimensions) == set(upstream.dimensions) and dict(node.dimensions) == dict(upstream.dimensions):
        return dg.IdentityPartitionMapping()
    if "seed" not in upstream.dimensions or "seed" not in node.dimensions:
        return dg.AllPartitionMapping()
    if set(upstream.dimensions) == {"seed"}:
        return dg.MultiToSingleDimensionPartitionMapping("seed")
    (ours,) = set(node.dimensions) - {"seed"}
    (theirs,) = set(upstream.dimensions) - {"seed"}
    seed = node.dimensions["seed"][0]
    edges: dict[str, list[str]] = {}
    for key in node.dimensions[ours]:
        for source in node.sources(node.ref(**{ours: key, "seed": seed})):
            if source.asset == upstream.name:
                edges.setdefault(source.key(theirs), []).append(key)
    return dg.MultiPartitionMapping(
        {
            theirs: dg.DimensionPartitionMapping(ours, dg.StaticPartitionMapping(edges)),
            "seed": dg.DimensionPartitionMapping("seed", dg.IdentityPartitionMapping()),
        }
    )
