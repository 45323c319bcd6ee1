"""GPU-hours and disk that planned partitions will take, before anything ran.

From what partitions of the same asset took before in this experiment; where none were made, from sizes of weights,
lengths of prompts and the assumptions in the experiment file (`planning`), which are said beside the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import NamedTuple

from dagster_project.artifacts import ArtifactStore, Manifest, Ref
from dagster_project.collect.estimate import conversation_tokens, estimate
from dagster_project.experiment.agents import Stage, TrainedMetric
from dagster_project.experiment.graph import WEIGHTS, Graph, stage_adapters
from dagster_project.experiment.nodes import Kind, Node, name_of, pairs_path
from dagster_project.experiment.spec import Experiment
from dagster_project.experiment.splits import split_cases
from dagster_project.experiment.training import Training
from dagster_project.results.operations import SECONDS_AN_HOUR, seconds
from dagster_project.serving.settings import Weights
from dagster_project.training.concatenate import weight_shapes
from dagster_project.training.estimate import (
    PEAK_FLOPS,
    REFERENCE_BYTES,
    adapter_parameters,
    base_shape,
    checkpoint_bytes,
)
from dagster_project.training.expected import ExpectedPairs
from toolemu.errors import FrontierError

TYPICAL = 8e9
"""The weights of the model that `planning.generated_per_second` is about."""
LOADING_S = 120
"""Seconds that a training takes before its first step: a base of 8 billion weights is read from a disk."""
RECORD_BYTES = {Kind.trajectories: 20_000, Kind.evaluations: 3_000}
"""Bytes of a record, about what the paper's released ones have."""
REPLY_BYTES = 4
"""Bytes of a generated token in the journal of replies, which is kept."""
ADAPTED = 0.65
"""A rank of an adapter on every linear layer of a model with N weights has about so many times N^(2/3) parameters:
width and depth grow alike. 0.65 for Llama-3.1-8B and Qwen2.5-7B, 0.6 for Phi-4, 0.8 for models of 32 billion."""


class Work(NamedTuple):
    """What the planned partitions of an asset, all judges and metrics together, will take.

    Attributes:
        asset: Its name, without judge and metric.
        partitions: How many.
        gpu_hours: Hours of one card; None where the weights' size is not known, 0 where no card of ours is needed.
        disk: Bytes; None if not known.
        measured: Whether this is from partitions that were made before.
    """

    asset: str
    partitions: int
    gpu_hours: float | None
    disk: float | None
    measured: bool


class Forecast(NamedTuple):
    """What a plan will take, and why it is thought so.

    Attributes:
        works: In order of the graph.
        fetched: Bytes of weights that come from the hub, into its own folder.
        checkpoints: Bytes of the largest training's checkpoints, which go when its adapter is made; a card trains one
            at a time.
        unsized: Weights of which nobody said how large they are.
        assumptions: What was assumed, a sentence each.
    """

    works: list[Work]
    fetched: float
    checkpoints: float
    unsized: list[str]
    assumptions: list[str]


def forecast(graph: Graph, refs: Iterable[Ref], stores: Sequence[ArtifactStore]) -> Forecast | None:
    """Returns what making `refs` will take of cards and disk; None if no weights of any size are involved.

    Args:
        graph: The experiment's graph.
        refs: The partitions to make.
        stores: The experiment's artifacts, then those of its pilot, which tell tokens and speed, but no sizes.

    Raises:
        FrontierError: `planning.card` is no card that is known.
    """
    if not _weights(graph.experiment):
        return None
    return _Forecaster(graph, stores).forecast(refs)


def _weights(experiment: Experiment) -> list[Weights]:
    """Returns the weights that the experiment runs or trains itself, each once."""
    adapters = {f"own_agents.{name}" for name, own in experiment.own_agents.items() if own.on_base}
    found = (weights for place, weights in experiment.weights().items() if place not in adapters)
    return list({weights.source: weights for weights in found}.values())


class _Assumed(NamedTuple):
    """What was assumed of a training: tokens of a pair and of its reference pass, and its conversations."""

    pair: float
    reference: float
    conversations: float


class _Forecaster:
    def __init__(self, graph: Graph, stores: Sequence[ArtifactStore]) -> None:
        experiment = self._experiment = graph.experiment
        self._graph = graph
        self._planning = experiment.planning
        self._stores = stores
        made = [list(store.manifests()) for store in stores]
        self._past: dict[str, list[Manifest]] = {}
        for manifest in made[0]:
            self._past.setdefault(manifest.asset, []).append(manifest)
        if self._planning.card not in PEAK_FLOPS:
            raise FrontierError(f"planning.card: {self._planning.card!r} is none of {', '.join(PEAK_FLOPS)}.")
        self._peak = PEAK_FLOPS[self._planning.card]
        measured = [manifest.metrics["mfu"] for found in made for manifest in found if "mfu" in manifest.metrics]
        self._mfu = mean(measured) if measured else self._planning.mfu
        self._unsized: set[str] = set()
        prompt, response = conversation_tokens(experiment)
        self._prompt = min(prompt, experiment.training.max_length - 1)
        self._response = min(response, experiment.training.max_length - self._prompt)
        self._assumed: list[_Assumed] = []

    def forecast(self, refs: Iterable[Ref]) -> Forecast:
        grouped: dict[str, list[Ref]] = {}
        checkpoints = 0.0
        for ref in refs:
            node = self._graph.node(ref)
            if node.kind is Kind.adapters:
                checkpoints = max(checkpoints, self._checkpoints(ref))
            grouped.setdefault(node.family, []).append(ref)
        works = [self._work(group) for group in grouped.values()]
        fetched = sum(2 * (self._size(weights) or 0) for weights in _weights(self._experiment) if not weights.folder)
        kept = [work for work in works if work.gpu_hours != 0 or work.disk]
        return Forecast(kept, fetched, checkpoints, sorted(self._unsized), self._assumptions())

    def _work(self, refs: list[Ref]) -> Work:
        node = self._graph.node(refs[0])
        asset, kind = node.family, node.kind
        past = [self._past.get(ref.asset, []) for ref in refs]
        if all(past):
            hours = sum(mean(seconds(m) if m.gpu else 0 for m in made) for made in past) / SECONDS_AN_HOUR
            return Work(asset, len(refs), hours, sum(mean(m.bytes for m in made) for made in past), True)
        if kind is Kind.adapters:
            return Work(asset, len(refs), _total(map(self._training, refs)), _total(map(self._adapter, refs)), False)
        if kind is Kind.merged:
            return Work(asset, len(refs), 0, self._merged(refs), False)
        if kind is Kind.interpolated:
            return Work(asset, len(refs), 0, _total(map(self._mixture, refs)), False)
        return self._asking(node, refs)

    def _merged(self, refs: list[Ref]) -> float | None:
        """Returns what merged models take; of those that go with the next stage's training, two are there at once."""
        sizes = [self._bytes(self._base(ref)) for ref in refs]
        if self._removed:
            sizes = sorted(sizes, key=lambda size: size or 0)[-2:]
        return _total(sizes)

    @property
    def _removed(self) -> bool:
        """Whether merged models go with the next stage's training: agents in process are tested from theirs, later."""
        e = self._experiment
        return e.trainer.keep_merged == "needed" and all(e.is_served(agent.model) for agent in e.agents())

    def _asking(self, node: Node, refs: list[Ref]) -> Work:
        """Returns what records by models on servers of ours take."""
        leased, hours, tokens = self._experiment.leased(), list[float | None](), 0
        found = estimate(self._graph, refs, self._stores)
        roles = self._graph.roles
        for role in found:
            endpoint = leased.get(roles[role.place].endpoint)
            tokens += role.completion_tokens
            if endpoint is not None:
                size = self._size(endpoint.serve)
                hours.append(
                    None if size is None else self._generating(size, role.prompt_tokens, role.completion_tokens)
                )
        records = max((role.records for role in found), default=0)
        disk = records * RECORD_BYTES.get(node.kind, 0) + REPLY_BYTES * tokens
        return Work(node.family, len(refs), _total(hours), disk, False)

    def _generating(self, size: float, read: int, written: int) -> float:
        reading = 2 * size * read / (self._planning.mfu * self._peak)
        return (reading + written / self._planning.generated_per_second * size / TYPICAL) / SECONDS_AN_HOUR

    def _training(self, ref: Ref) -> float | None:
        size = self._size(self._base(ref))
        if size is None:
            return None
        training, trainer = self._training_of(ref), self._experiment.trainer
        expected, trained = self._expected(ref), self._trained(ref)
        assumed = _Assumed(
            expected.tokens_a_pair(training, trainer),
            expected.reference_tokens(training, trainer, trained),
            expected.conversations,
        )
        self._assumed.append(assumed)
        operations = size * (self._operations * trained * assumed.pair + 2 * assumed.reference)
        return (operations / (self._mfu * self._peak) + LOADING_S) / SECONDS_AN_HOUR

    @property
    def _operations(self) -> int:
        """Operations a weight and token: forwards, back through a frozen base; and what is repeated."""
        return 6 if self._experiment.trainer.gradient_checkpointing == "always" else 4

    def _stage(self, ref: Ref) -> Stage:
        """Returns what an adapter is trained on."""
        stage = self._graph.node(ref).stage
        assert stage is not None, "an adapter is of a stage"
        return self._graph.agent(ref).stages[stage - 1]

    def _training_of(self, ref: Ref) -> Training:
        agent = self._graph.agent(ref)
        return self._experiment.training_of(agent.model, agent.recipe)

    def _expected(self, ref: Ref) -> ExpectedPairs:
        e, this, seed = self._experiment, self._stage(ref), ref.seed
        assert seed is not None, "an adapter is of a seed"
        return ExpectedPairs(
            pairs=self._pairs(this.judge, this.metric, seed),
            cases=len(split_cases(e.world.cases, seed).train),
            trajectories=e.source.samples * len(e.models),
            prompt=self._prompt,
            response=self._response,
        )

    def _trained(self, ref: Ref) -> float:
        """Returns how many pairs a training goes over."""
        training, this = self._training_of(ref), self._stage(ref)
        if training.max_steps:
            return training.max_steps * training.batch_size
        return self._pairs(this.judge, this.metric, ref.seed or 0) * (this.epochs or 1)

    def _pairs(self, judge: str, metric: TrainedMetric, seed: int) -> float:
        for manifest in self._past.get(name_of(pairs_path(judge)), []):
            if manifest.partition == {"metric": metric.value, "seed": str(seed)}:
                return manifest.counts["pairs"]
        e = self._experiment
        share = self._planning.pairs_both if metric is TrainedMetric.both else self._planning.pairs
        each = share * math.comb(e.source.samples * len(e.models), 2)
        metrics = 2 if metric is TrainedMetric.either else 1
        return e.world.cases // 2 * metrics * min(each, e.pairs.per_case or each)

    def _base(self, ref: Ref) -> Weights | None:
        """Returns the weights of the source model that is trained; None if it is made in the run."""
        return self._experiment.models[self._graph.agent(ref).model].weights

    def _adapter(self, ref: Ref) -> float | None:
        parameters = self._parameters(ref)
        return None if parameters is None else 4 * parameters

    def _mixture(self, ref: Ref) -> float | None:
        """Returns the size of adapters one beside the other, a stage that both ends have in common once."""
        ends = (self._graph.agents[key] for key, _ in self._graph.agent(ref).parts)
        adapters = dict.fromkeys(one for end in ends for one in stage_adapters(end, ref.seed or 0))
        return _total(map(self._adapter, adapters))

    def _parameters(self, ref: Ref) -> float | None:
        base, training = self._base(ref), self._training_of(ref)
        if base and base.folder:
            return adapter_parameters(base_shape(base.folder, weight_shapes(base.folder)), training)
        size = self._size(base)
        return None if size is None else training.lora_rank * ADAPTED * size ** (2 / 3)

    def _checkpoints(self, ref: Ref) -> float:
        """Returns what a training's checkpoints take while it goes on; 0 if nobody knows."""
        steps = math.ceil(self._trained(ref) / self._training_of(ref).batch_size)
        return checkpoint_bytes(self._parameters(ref) or 0, self._experiment.trainer, steps)

    def _bytes(self, weights: Weights | None) -> float | None:
        if weights and weights.folder:
            return float(sum(path.stat().st_size for path in weights.folder.glob(WEIGHTS)))
        size = self._size(weights)
        return None if size is None else 2 * size

    def _size(self, weights: Weights | None) -> float | None:
        """Returns how many weights there are: counted if they lie in a folder, else as the experiment file says."""
        if weights is None:
            return None
        if weights.folder:
            return float(sum(math.prod(shape) for shape in weight_shapes(weights.folder).values()))
        if weights.source not in self._planning.billions:
            self._unsized.add(weights.source)
            return None
        return self._planning.billions[weights.source] * 1e9

    def _assumptions(self) -> list[str]:
        planning, e = self._planning, self._experiment
        here = f", in training {self._mfu:.0%} (measured)" if self._mfu != planning.mfu else ""
        said = [f"{planning.card}: {self._peak / 1e12:.0f}·10¹² operations a second, {planning.mfu:.0%} of use{here}"]
        if self._assumed:
            pair, reference, _ = (mean(column) for column in zip(*self._assumed, strict=True))
            once = ", what conversations have in common once" if e.trainer.shared_text else ""
            said += [
                f"training: {self._operations} operations a weight and token, {pair:,.0f} tokens a pair{once}; the "
                f"reference: 2, {reference:,.0f} tokens a training; {LOADING_S / 60:.0f} min to load",
                f"pairs: {planning.pairs:.0%} of all of a case's trajectories, on both {planning.pairs_both:.0%}",
            ]
        said += [
            "reading: 2 operations a weight and token, nothing spared by what prompts have in common",
            f"writing: {planning.generated_per_second:,.0f} tokens a second by 8 billion weights with a card of their "
            "own, fewer by more",
            f"disk: 2 bytes a weight, 4 a parameter of an adapter, {RECORD_BYTES[Kind.trajectories] // 1000} kB a "
            f"trajectory, {RECORD_BYTES[Kind.evaluations] // 1000} kB a verdict, replies once more",
        ]
        if e.grid.interpolate:
            said.append("mixtures: on the disk as large as all adapters that are in them")
        if self._removed:
            said.append("merged models: two for a card that trains, since trainer.keep_merged removes them one by one")
        elif e.trainer.keep_merged == "needed":
            said.append("merged models: all at once, though trainer.keep_merged removes them one by one")
        said.append("not counted: starts of servers, tables, report, model cards" + self._references())
        if any(model.weights and not model.served for model in e.models.values()):
            said.append("nor are, before they ran, models that run in process (backend: local)")
        return said

    def _references(self) -> str:
        """Says what stored reference log-probabilities take, which is next to nothing."""
        if not self._assumed:
            return ""
        size = REFERENCE_BYTES * mean(assumed.conversations for assumed in self._assumed)
        return f", reference log-probabilities ({size / 1e3:,.0f} kB a training)"


def total_hours(works: Iterable[Work]) -> float:
    """Returns the GPU-hours of all works that are known."""
    return sum(work.gpu_hours or 0 for work in works)


def total_disk(works: Iterable[Work]) -> float:
    """Returns the bytes of all works that are known."""
    return sum(work.disk or 0 for work in works)


def _total(numbers: Iterable[float | None]) -> float | None:
    found = list(numbers)
    return None if None in found else sum(number for number in found if number is not None)
