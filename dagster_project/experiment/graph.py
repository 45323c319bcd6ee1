"""The graph: every asset of an experiment, its partitions, what each partition reads, and what decides its result.

Plain data, the single source of truth for it: Dagster's assets take their partitions, dependencies and code versions
from here, `frontier run`, `status` and `lineage` plan with it, and the warehouse collects by it. The graph gives the
node of an asset's name and the agent of a partition; no code takes names or keys apart.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_project.artifacts import Manifest, Ref
from dagster_project.environments.imported import ImportedWorld
from dagster_project.experiment.agents import PAPER_METRICS, Agent, TrainedMetric
from dagster_project.experiment.code import evaluation_code, trajectory_code
from dagster_project.experiment.nodes import (
    Dimensions,
    Input,
    Inputs,
    Kind,
    Node,
    Side,
    adapters_path,
    calibration_path,
    evaluations_path,
    merged_path,
    name_of,
    pairs_path,
    trajectories_path,
)
from dagster_project.experiment.pods import check_rules
from dagster_project.experiment.pools import pool_of
from dagster_project.experiment.spec import Experiment
from toolemu.chat.settings import OpenAIModelSettings
from toolemu.evaluation import Metric

IMPORT, INTERPOLATED = "imported_runs", "interpolated_adapters"
SOURCE_MODELS, OWN_AGENTS, SPECS = "source_models", "own_agents", "agent_specs"
CODE_VERSIONS = {
    "source_models": "1",
    IMPORT: "3",
    "trajectories": "1",
    "evaluations": "1",
    "judge_calibration": "2",
    "preference_pairs": "3",
    "agent_specs": "1",
    "adapters": "4",
    "merged_models": "2",
    INTERPOLATED: "2",
    "warehouse": "8",
    "results": "8",
    "claims": "4",
    "report": "9",
    "transcripts": "1",
    "page": "8",
}
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Graph:
    """All assets of an experiment, in an order in which every asset comes after what it reads.

    Attributes:
        experiment: What the graph is of.
        nodes: The assets by name.
        agents: Every agent by its key, those that exist only as a first stage or to be mixed included.
    """

    experiment: Experiment
    nodes: dict[str, Node]
    agents: Mapping[str, Agent]

    @functools.cached_property
    def refs(self) -> frozenset[Ref]:
        """Every partition of every asset."""
        return frozenset(ref for node in self.nodes.values() for ref in node.refs())

    @functools.cached_property
    def roles(self) -> Mapping[str, OpenAIModelSettings]:
        """Every model behind an endpoint, by its place in the experiment file."""
        return self.experiment.roles()

    def node(self, ref: Ref) -> Node:
        """Return the node of a partition's asset."""
        return self.nodes[ref.asset]

    def find(
        self,
        *kinds: Kind,
        side: Side | None = None,
        judge: str | None = None,
        metric: Metric | None = None,
        stage: int | None = None,
    ) -> list[Node]:
        """Return the nodes of some kinds, in order; each field that is given must match."""
        given = {"side": side, "judge": judge, "metric": metric, "stage": stage}
        wanted = {name: value for name, value in given.items() if value is not None}
        return [
            node
            for node in self.nodes.values()
            if node.kind in kinds and all(getattr(node, name) == value for name, value in wanted.items())
        ]

    def agent(self, ref: Ref) -> Agent:
        """Return the agent that a partition is of."""
        return self.agents[ref.key("agent")]

    def kind_of(self, manifest: Manifest) -> Kind | None:
        """Return what an artifact holds; None if the experiment has no such asset any more and its manifest is old."""
        node = self.nodes.get(manifest.asset)
        return node.kind if node else Kind(manifest.kind) if manifest.kind else None

    def upstream(self, name: str) -> list[str]:
        """Return the names of the assets that `name` reads, over all its partitions."""
        node = self.nodes[name]
        return list(dict.fromkeys(source.asset for ref in node.refs() for source in node.sources(ref)))


class _Builder:
    """Collects nodes."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.nodes: list[Node] = []
        self.agents = agents_by_key(experiment)
        self.seeds = tuple(str(seed) for seed in experiment.grid.seeds)

    def add(
        self,
        path: Sequence[str],
        kind: Kind,
        group: str,
        run: str,
        version: str,
        description: str,
        *,
        dimensions: Dimensions | None = None,
        inputs: Callable[[Ref], Inputs] = lambda ref: {},
        config: Callable[[Ref], dict[str, Any]] = lambda ref: {},
        expensive: bool = False,
        side: Side | None = None,
        judge: str | None = None,
        metric: Metric | None = None,
        stage: int | None = None,
        partial: bool = False,
        made_by: str | None = None,
        present: Iterable[tuple[str, ...]] | None = None,
        unread: tuple[str, ...] = (),
    ) -> None:
        """Add a node; see `Node` for the fields. The pool follows from the others."""
        self.nodes.append(
            Node(
                path=tuple(path),
                kind=kind,
                group=group,
                run=run,
                code_version=version,
                description=description,
                dimensions=dimensions or {},
                inputs=inputs,
                config=config,
                expensive=expensive,
                side=side,
                judge=judge,
                metric=metric,
                stage=stage,
                pool=pool_of(self.experiment, kind, side, judge),
                partial=partial,
                made_by=made_by,
                present=None if present is None else frozenset(present),
                unread=unread,
            )
        )

    def refs(self, *kinds: Kind, side: Side | None = None) -> list[Ref]:
        """Return every partition of the assets of some kinds that were added."""
        return [ref for node in self.nodes if node.kind in kinds and side in (None, node.side) for ref in node.refs()]


def build_graph(experiment: Experiment) -> Graph:
    """Return the graph of an experiment; of an imported one that was not imported yet, without its partitions.

    Raises:
        FrontierError: The experiment says something of an asset that there is not.
    """
    builder = _Builder(experiment)
    if experiment.imports:
        _add_imported(builder)
    else:
        _add_collected(builder)
        if experiment.agents():
            _add_trained(builder)
            _add_measured(builder)
    _add_results(builder)
    if not experiment.imports:
        check_rules(experiment.kubernetes, builder.nodes)
    return Graph(experiment, {node.name: node for node in builder.nodes}, builder.agents)


def _add_imported(builder: _Builder) -> None:
    """Add the import, the partitions it makes, and pairs of what it brings."""
    e, inventory = builder.experiment, builder.experiment.inventory
    world = e.world
    assert isinstance(world, ImportedWorld)
    builder.add(
        [IMPORT],
        Kind.imported,
        "published",
        "import",
        CODE_VERSIONS[IMPORT],
        "Released runs, read and checked; its run makes every partition of trajectories and evaluations.",
        config=lambda ref: world.model_dump(),
    )
    if inventory is None:
        return
    for part in inventory.assets:
        whose = "the source models'" if part.side is Side.source else "the trained agents'"
        judged = part.judge is not None and part.metric is not None
        described = f"Verdicts of {part.judge}/{part.metric} on {whose}" if judged else f"Trajectories of {whose}"
        names = ("model",) if part.side is Side.source else ("agent", "seed")
        builder.add(
            part.path,
            Kind.evaluations if judged else Kind.trajectories,
            "published",
            IMPORT,
            CODE_VERSIONS["evaluations" if judged else "trajectories"],
            f"{described}, imported.",
            dimensions={name: tuple(dict.fromkeys(key[at] for key in part.keys)) for at, name in enumerate(names)},
            inputs=_judged(part.side) if judged else lambda ref: {},
            side=part.side,
            judge=part.judge,
            metric=part.metric,
            made_by=IMPORT,
            present=part.keys,
        )
    trained = {agent.model for agent in inventory.agents}
    if set(inventory.source_models) - trained:  # the released code's pairs come from more models than it trained
        _add_pairs(builder, inventory.source_models, tuple(str(seed) for seed in inventory.seeds or world.seeds))


def _judged(side: Side) -> Callable[[Ref], Inputs]:
    """Return what a partition of evaluations reads: the trajectories of the same model, or agent and seed."""
    trajectories = name_of(trajectories_path(side))
    return lambda ref: {Input.trajectories: (Ref(trajectories, ref.partition),)}


def _add_collected(builder: _Builder) -> None:
    """Add source models, their trajectories, the judges' verdicts on those, and pairs."""
    e, models = builder.experiment, tuple(builder.experiment.models)
    builder.add(
        [SOURCE_MODELS],
        Kind.model,
        "collect",
        "collect",
        CODE_VERSIONS["source_models"],
        "Weights of the source models, resolved and pinned; a miniature model is trained on the spot.",
        dimensions={"model": models},
        config=lambda ref: e.identity_of(ref.key("model")),
        expensive=True,
        side=Side.source,
    )
    builder.add(
        trajectories_path(Side.source),
        Kind.trajectories,
        "collect",
        "collect",
        trajectory_code(e),
        "Every source model on every case.",
        dimensions={"model": models},
        inputs=lambda ref: {Input.base: (Ref(SOURCE_MODELS, ref.partition),)},
        config=lambda ref: {**_sampling(e, Side.source), **e.running_of(ref.key("model"))},
        expensive=True,
        side=Side.source,
    )
    _add_evaluations(builder, Side.source, "collect", {"model": models}, "the source models'")
    _add_pairs(builder, models, builder.seeds)


def _sampling(e: Experiment, side: Side) -> dict[str, Any]:
    section = e.source if side is Side.source else e.test
    return {"world": e.world.model_dump(), "agent": e.agent.model_dump(), **section.model_dump()}


def calibrated(experiment: Experiment) -> list[str]:
    """Return the judges that may drift between two seeds, and are asked for the same verdicts again for every seed."""
    lasting = experiment.limits.calibration and experiment.agents()
    return [name for name, judge in experiment.judges.items() if lasting and judge.drifts]


def _add_calibrations(builder: _Builder) -> None:
    """Add, for every seed, the judges' second verdicts on a few trajectories."""
    e = builder.experiment

    def reads(judge: str) -> Callable[[Ref], Inputs]:
        def of_models(path: tuple[str, ...]) -> tuple[Ref, ...]:
            return tuple(Ref.of(name_of(path), model=model) for model in e.models)

        verdicts = [of_models(evaluations_path(Side.source, judge, metric)) for metric in e.metrics]
        found = {
            Input.trajectories: of_models(trajectories_path(Side.source)),
            Input.verdicts: tuple(itertools.chain.from_iterable(verdicts)),
        }
        return lambda ref: found

    def config_of(judge: str) -> Callable[[Ref], dict[str, Any]]:
        again = {"trajectories": e.limits.calibration, **_judged_besides(e)}
        return lambda ref: {"judge": e.judges[judge].model_dump(), **again}

    for judge in calibrated(e):
        builder.add(
            calibration_path(judge),
            Kind.calibration,
            "measure",
            "calibrate",
            CODE_VERSIONS["judge_calibration"],
            f"Verdicts of {judge} on a few source trajectories, again for every seed: has it drifted?",
            dimensions={"seed": builder.seeds},
            inputs=reads(judge),
            config=config_of(judge),
            expensive=True,
            judge=judge,
        )


def _judged_besides(e: Experiment) -> dict[str, Any]:
    """Return what the experiment has judged besides trajectories that say something about the agent."""
    return {"judge_failed": True} if e.judge_failed else {}


def _add_evaluations(builder: _Builder, side: Side, room: str, dimensions: Dimensions, described: str) -> None:
    e, judged = builder.experiment, _judged(side)
    calibrations = calibrated(e) if side is Side.agent else []

    def inputs_of(judge: str) -> Callable[[Ref], Inputs]:
        if judge not in calibrations:
            return judged
        name = name_of(calibration_path(judge))
        return lambda ref: {**judged(ref), Input.calibration: (Ref.of(name, seed=ref.key("seed")),)}

    def config_of(judge: str) -> Callable[[Ref], dict[str, Any]]:
        return lambda ref: {**e.judges[judge].model_dump(), **_judged_besides(e)}

    for judge, metric in itertools.product(e.judges, e.metrics):
        builder.add(
            evaluations_path(side, judge, metric),
            Kind.evaluations,
            room,
            room,
            evaluation_code(e, judge, metric),
            f"Verdicts of {judge} on {metric.value} for {described} trajectories.",
            dimensions=dimensions,
            inputs=inputs_of(judge),
            config=config_of(judge),
            expensive=e.judges[judge].expensive,
            side=side,
            judge=judge,
            metric=metric,
        )


def _add_pairs(builder: _Builder, models: tuple[str, ...], seeds: tuple[str, ...]) -> None:
    e = builder.experiment
    trained = tuple(dict.fromkeys(stage.metric.value for agent in e.trainees() for stage in agent.stages))
    there = set(builder.refs(Kind.evaluations, Kind.trajectories, side=Side.source))

    def of_models(path: tuple[str, ...]) -> tuple[Ref, ...]:
        refs = (Ref.of(name_of(path), model=model) for model in models)
        return tuple(ref for ref in refs if ref in there)

    def inputs_of(judge: str) -> Callable[[Ref], Inputs]:
        trajectories = of_models(trajectories_path(Side.source))
        verdicts = {metric: of_models(evaluations_path(Side.source, judge, metric)) for metric in e.metrics}

        def inputs(ref: Ref) -> Inputs:
            judged = TrainedMetric(ref.key("metric")).judged
            found = tuple(itertools.chain.from_iterable(verdicts.get(metric, ()) for metric in judged))
            return {Input.verdicts: found, Input.trajectories: trajectories}

        return inputs

    for judge in e.grid.pairs_judges:
        builder.add(
            pairs_path(judge),
            Kind.pairs,
            "preferences",
            "pairs",
            CODE_VERSIONS["preference_pairs"],
            f"Pairs of trajectories of one training case, chosen and rejected by {judge}'s scores.",
            dimensions={"metric": trained or PAPER_METRICS, "seed": seeds},
            inputs=inputs_of(judge),
            config=lambda ref: e.pairs.rules(TrainedMetric(ref.key("metric"))),
            judge=judge,
        )


def _add_trained(builder: _Builder) -> None:
    """Add every stage's adapters and merged models."""
    e, agents, seeds = builder.experiment, builder.agents, builder.seeds
    trained = tuple(key for key in agents if key not in e.own_agents)
    if not trained:
        return
    builder.add(
        [SPECS],
        Kind.specs,
        "training",
        "specs",
        CODE_VERSIONS["agent_specs"],
        "Each agent's stages and their parameters; changes exactly when that agent's own recipe does.",
        dimensions={"agent": trained, "seed": seeds},
        config=lambda ref: agent_spec(e, agents[ref.key("agent")]),
    )
    trajectories = tuple(Ref.of(name_of(trajectories_path(Side.source)), model=model) for model in e.models)
    tested = {agent.key for agent in e.agents() if not e.is_served(agent.model)}
    for stage in range(1, e.n_stages + 1):
        keys = tuple(agent.key for agent in e.stage_agents(stage))

        def base_of(ref: Ref, stage: int = stage) -> Ref:
            agent = agents[ref.key("agent")]
            if stage == 1:
                return Ref.of(SOURCE_MODELS, model=agent.model)
            return Ref.of(name_of(merged_path(stage - 1)), agent=agent.prefix(stage - 1), seed=ref.key("seed"))

        def adapter_inputs(ref: Ref, stage: int = stage, base: Callable[[Ref], Ref] = base_of) -> Inputs:
            trained = agents[ref.key("agent")].stages[stage - 1]
            pairs = Ref.of(name_of(pairs_path(trained.judge)), metric=trained.metric.value, seed=ref.key("seed"))
            return {
                Input.spec: (Ref(SPECS, ref.partition),),
                Input.base: (base(ref),),
                Input.pairs: (pairs,),
                Input.trajectories: trajectories,
            }

        builder.add(
            adapters_path(stage),
            Kind.adapters,
            "training",
            f"train_{stage}",
            CODE_VERSIONS["adapters"],
            f"LoRA adapters of training stage {stage}, by DPO.",
            dimensions={"agent": keys, "seed": seeds},
            inputs=adapter_inputs,
            expensive=True,
            stage=stage,
        )

        # A leased server loads adapters, so what nothing is trained from would be merged for nobody.
        # Nor is what is only mixed: a mixture is one adapter over its source model.
        bases = {agent.prefix(stage) for agent in agents.values() if len(agent.stages) > stage}
        merged = tuple(key for key in keys if key in bases or key in tested)
        if not merged:
            continue

        def merge_inputs(ref: Ref, stage: int = stage, base: Callable[[Ref], Ref] = base_of) -> Inputs:
            return {Input.adapters: (Ref(name_of(adapters_path(stage)), ref.partition),), Input.base: (base(ref),)}

        builder.add(
            merged_path(stage),
            Kind.merged,
            "training",
            f"train_{stage}" if merged == keys else f"merge_{stage}",  # one run, one set of partitions
            CODE_VERSIONS["merged_models"],
            f"Stage {stage}'s adapters merged into their bases.",
            dimensions={"agent": merged, "seed": seeds},
            inputs=merge_inputs,
            expensive=True,
            stage=stage,
        )
    _add_interpolated(builder)


def _add_interpolated(builder: _Builder) -> None:
    """Add mixtures of trained agents' adapters."""
    agents = builder.agents
    mixtures = tuple(key for key, agent in agents.items() if agent.parts)
    if not mixtures:
        return

    def inputs(ref: Ref) -> Inputs:
        agent, seed = agents[ref.key("agent")], int(ref.key("seed"))
        ends = dict.fromkeys(key for part, _ in agent.parts for key in stage_adapters(agents[part], seed))
        return {
            Input.spec: (Ref(SPECS, ref.partition),),
            Input.base: (Ref.of(SOURCE_MODELS, model=agent.model),),
            Input.adapters: tuple(ends),
        }

    builder.add(
        [INTERPOLATED],
        Kind.interpolated,
        "training",
        "interpolate",
        CODE_VERSIONS[INTERPOLATED],
        "Adapters that nobody trained: those of two trained agents, each with a weight, as one.",
        dimensions={"agent": mixtures, "seed": builder.seeds},
        inputs=inputs,
    )


def stage_adapters(agent: Agent, seed: int) -> list[Ref]:
    """Return an agent's adapters, one for each stage, in order."""
    stages = range(1, len(agent.stages) + 1)
    return [Ref.of(name_of(adapters_path(stage)), agent=agent.prefix(stage), seed=seed) for stage in stages]


def agent_spec(experiment: Experiment, agent: Agent) -> dict[str, Any]:
    """Return what decides an agent besides pairs and base: its stages and their training, or what it is mixed from."""
    if agent.parts:
        return {"mixed": [{"agent": key, "weight": weight} for key, weight in agent.parts]}
    arguments = template_arguments(experiment, agent.model)
    return {
        "stages": [stage.model_dump(mode="json") for stage in agent.stages],
        "training": experiment.training_of(agent.model, agent.recipe).model_dump(mode="json"),
        **({"chat_template": arguments} if arguments else {}),
    }


def template_arguments(experiment: Experiment, model: str) -> dict[str, Any]:
    """Return the arguments of the chat template with which a source model, and what is trained from it, is asked."""
    return experiment.section(model).template_arguments()


def _add_measured(builder: _Builder) -> None:
    """Add what trained agents do on held-out cases, and what judges say of it."""
    e, agents = builder.experiment, builder.agents
    tested = {"agent": tuple(agent.key for agent in e.agents()), "seed": builder.seeds}

    if e.own_agents:
        builder.add(
            [OWN_AGENTS],
            Kind.model,
            "measure",
            "own",
            CODE_VERSIONS["source_models"],
            "Agents that were trained elsewhere, resolved and pinned.",
            dimensions={"agent": tuple(e.own_agents), "seed": builder.seeds},
            config=lambda ref: e.identity_of(ref.key("agent")),
            side=Side.agent,
        )

    def acting(ref: Ref) -> Inputs:
        """Return the weights that act: base and adapters, or the merged model."""
        agent = agents[ref.key("agent")]
        base = Ref.of(SOURCE_MODELS, model=agent.model)
        if agent.key in e.own_agents:
            own = Ref(OWN_AGENTS, ref.partition)
            on_base = e.own_agents[agent.key].on_base
            return {Input.base: (base,), Input.adapters: (own,)} if on_base else {Input.base: (own,)}
        if agent.parts:
            return {Input.base: (base,), Input.adapters: (Ref(INTERPOLATED, ref.partition),)}
        if not e.is_served(agent.model):
            return {Input.base: (Ref(name_of(merged_path(len(agent.stages))), ref.partition),)}
        return {Input.base: (base,), Input.adapters: tuple(stage_adapters(agent, int(ref.key("seed"))))}

    builder.add(
        trajectories_path(Side.agent),
        Kind.trajectories,
        "measure",
        "measure",
        trajectory_code(e),
        "Every trained agent on its seed's held-out cases.",
        dimensions=tested,
        inputs=acting,
        config=lambda ref: {**_sampling(e, Side.agent), **e.running_of(acting_model(e, agents[ref.key("agent")]))},
        expensive=True,
        side=Side.agent,
    )
    _add_calibrations(builder)
    _add_evaluations(builder, Side.agent, "measure", tested, "the trained agents'")


RESULTS = {
    "scores": "Mean scores of every agent, seed, judge and metric; trained agents against their source models.",
    "frontier": "Deltas over the source models, and the line through them, on every set of points.",
    "persistence": "How much of the first training's gain is left after the second, and the paper's own measure.",
    "judge_agreement": "How far judges agree with each other, with themselves, and their metrics with one another.",
    "audits": "How trajectories ended and what was invented, per agent, and what is left without those.",
}
"""The result assets that are computed from the warehouse alone."""
SLOW_RESULTS = ("audits",)
"""Those made in a run of their own, beside the others."""
WAREHOUSE, CLAIMS, TRANSCRIPTS = "warehouse", "claims", "transcripts"
DECIDING = ("frontier", "persistence", "audits")
"""The result assets that claims are decided by."""
TABLES = (*RESULTS, CLAIMS)
"""The assets with tables for people, for the database and for the report."""


def _add_results(builder: _Builder) -> None:
    """Add the warehouse and everything after it."""
    e = builder.experiment
    collected = tuple(ref for node in builder.nodes if node.kind is not Kind.merged for ref in node.refs())
    transcribed = tuple(builder.refs(Kind.trajectories, Kind.evaluations))

    def add(name: str, kind: Kind, group: str, run: str, version: str, description: str, **more: Any) -> None:
        builder.add([name], kind, group, run, CODE_VERSIONS[version], description, **more)

    def reads(**names: Iterable[str]) -> Callable[[Ref], Inputs]:
        found = {Input(part): tuple(map(Ref, assets)) for part, assets in names.items()}
        return lambda ref: found

    def toy(ref: Ref) -> dict[str, Any]:
        return {"toy": e.toy}

    add(
        WAREHOUSE,
        Kind.warehouse,
        "results",
        "warehouse",
        "warehouse",
        "The DuckDB file, rebuilt from the artifacts.",
        partial=True,
        unread=(WEIGHTS,),
        config=lambda ref: {"grid": e.grid.model_dump(mode="json"), **_judged_besides(e)},
        inputs=lambda ref: {Input.records: collected},
    )
    for name, description in RESULTS.items():
        add(
            name,
            Kind.result,
            "results",
            "audits" if name in SLOW_RESULTS else "results",
            "results",
            description,
            inputs=reads(warehouse=[WAREHOUSE]),
            config=lambda ref: e.statistics.model_dump(),
        )
    add(
        TRANSCRIPTS,
        Kind.transcripts,
        "report",
        TRANSCRIPTS,
        TRANSCRIPTS,
        "Every trajectory with its verdicts, compressed, for the report to open.",
        partial=True,
        inputs=lambda ref: {Input.records: transcribed},
    )
    add(
        CLAIMS,
        Kind.claims,
        "results",
        "tables",
        "claims",
        "The paper's findings: each holds, does not, or is not decided by this data, with the evidence.",
        inputs=reads(tables=DECIDING),
        config=toy,
    )
    add(
        "tables",
        Kind.tables,
        "report",
        "tables",
        "report",
        "The result tables as text, Markdown and LaTeX, and everything in one DuckDB file.",
        inputs=reads(warehouse=[WAREHOUSE], tables=TABLES),
        config=toy,
    )
    add(
        "report",
        Kind.page,
        "report",
        "report",
        "page",
        "One page with everything that was found, for a browser, and every transcript beside it.",
        inputs=reads(
            warehouse=[WAREHOUSE], tables=TABLES, transcripts=[TRANSCRIPTS], imported=[IMPORT] if e.imports else []
        ),
        config=toy,
    )
    add(
        "figures",
        Kind.figures,
        "report",
        "figures",
        "report",
        "The figures, for people: SVG, PDF and PNG.",
        inputs=reads(warehouse=[WAREHOUSE], tables=RESULTS),
        config=toy,
    )


def acting_model(experiment: Experiment, agent: Agent) -> str:
    """Returns the section whose settings run a trained agent: its source model's, or its own."""
    own = experiment.own_agents.get(agent.key)
    return agent.model if own is None or own.on_base else agent.key


def agents_by_key(experiment: Experiment) -> dict[str, Agent]:
    """Returns every agent that is trained, those that exist only as a first stage included."""
    if experiment.imports:
        return {agent.key: agent for agent in experiment.agents()}
    stages: Iterable[int] = range(1, experiment.n_stages + 1)
    agents = {agent.key: agent for stage in stages for agent in experiment.stage_agents(stage)}
    return {**agents, **{agent.key: agent for agent in experiment.trainees()}}
