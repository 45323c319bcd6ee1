"""The graph: every asset of an experiment, its partitions, what each partition reads, and what decides its result.

Plain data, the single source of truth for it: Dagster's assets take their partitions, dependencies and code versions
from here, `frontier run`, `status` and `lineage` plan with it, and the warehouse collects by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dagster_project.artifacts import Ref
from dagster_project.experiment.agents import PAPER_METRICS, Agent, TrainedMetric
from dagster_project.experiment.code import evaluation_code, trajectory_code
from dagster_project.experiment.models import OwnAdapter
from dagster_project.experiment.pods import check_rules
from dagster_project.experiment.roles import LabelsJudge, LMJudgeRole
from dagster_project.experiment.spec import Experiment, ImportedWorld

Dimensions = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Node:
    """One asset.

    Attributes:
        name: Its key without the experiment.
        group: The room it belongs to.
        run: Assets of one `run` and the same partition are made in one Dagster run.
        dimensions: Keys per partition dimension; none for an unpartitioned asset.
        code_version: Changes when what the asset means changes, not with every edit.
        expensive: Redone only when asked to.
        inputs: What a partition reads.
        config: What decides a partition's result besides code and inputs.
        description: For people.
        partial: Takes those of its inputs that are there; other assets need all of theirs.
        made_by: The asset whose run makes this one's partitions, too; None for its own.
        present: The only partitions there are, where not every combination of keys is one.
        unread: Patterns of its inputs' files that it never opens, and that need not be fetched for it.
    """

    name: str
    group: str
    run: str
    dimensions: Dimensions
    code_version: str
    expensive: bool
    inputs: Callable[[Ref], list[Ref]]
    config: Callable[[Ref], dict[str, Any]]
    description: str
    partial: bool = False
    made_by: str | None = None
    present: frozenset[tuple[str, ...]] | None = None
    unread: tuple[str, ...] = ()

    def refs(self) -> list[Ref]:
        """Returns every partition of the asset."""
        names = sorted(self.dimensions)
        return [
            Ref(self.name, tuple(zip(names, keys, strict=True)))
            for keys in itertools.product(*(self.dimensions[name] for name in names))
            if self.present is None or keys in self.present
        ]


@dataclass(frozen=True)
class Graph:
    """All assets of an experiment, in an order in which every asset comes after what it reads."""

    experiment: Experiment
    nodes: dict[str, Node]

    def upstream(self, name: str) -> list[str]:
        """Returns the names of the assets that `name` reads, over all its partitions."""
        refs = self.nodes[name].refs()
        return list(dict.fromkeys(source.asset for ref in refs for source in self.nodes[name].inputs(ref)))


IMPORT, INTERPOLATED = "imported_runs", "interpolated_adapters"
CODE_VERSIONS = {
    "source_models": "1",
    IMPORT: "1",
    "trajectories": "1",
    "evaluations": "1",
    "judge_calibration": "1",
    "preference_pairs": "2",
    "agent_specs": "1",
    "adapters": "2",
    "merged_models": "2",
    INTERPOLATED: "2",
    "warehouse": "6",
    "results": "6",
    "claims": "3",
    "report": "6",
    "transcripts": "1",
    "page": "5",
}
WEIGHTS = "*.safetensors"
STAGE = "stage_"
"""What the names of the assets begin with that a training makes: `stage_1/adapters`."""


class _Builder:
    """Collects nodes; what it is told, it puts into a `Node` with defaults."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.nodes: list[Node] = []

    def add(
        self,
        name: str,
        group: str,
        run: str,
        version: str,
        description: str,
        *,
        dimensions: Dimensions | None = None,
        inputs: Callable[[Ref], list[Ref]] = lambda ref: [],
        config: Callable[[Ref], dict[str, Any]] = lambda ref: {},
        expensive: bool = False,
        partial: bool = False,
        made_by: str | None = None,
        present: Iterable[tuple[str, ...]] | None = None,
        unread: tuple[str, ...] = (),
    ) -> None:
        there = None if present is None else frozenset(present)
        self.nodes.append(
            Node(
                name,
                group,
                run,
                dimensions or {},
                version,
                expensive,
                inputs,
                config,
                description,
                partial,
                made_by,
                there,
                unread,
            )
        )

    def present(self, asset: str) -> set[Ref]:
        """Returns the partitions of an asset that was added."""
        return {ref for node in self.nodes if node.name == asset for ref in node.refs()}


def build_graph(experiment: Experiment) -> Graph:
    """Returns the graph of an experiment; of an imported one that was not imported yet, without its partitions.

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
        check_rules(experiment.kubernetes, [node.name for node in builder.nodes])
    return Graph(experiment, {node.name: node for node in builder.nodes})


def _add_imported(builder: _Builder) -> None:
    """Adds the import, the partitions it makes, and pairs of what it brings."""
    e, inventory = builder.experiment, builder.experiment.inventory
    world = e.world
    assert isinstance(world, ImportedWorld)
    builder.add(
        IMPORT,
        "published",
        "import",
        CODE_VERSIONS[IMPORT],
        "Released runs, read and checked; its run makes every partition of trajectories and evaluations.",
        config=lambda ref: world.model_dump(),
    )
    if inventory is None:
        return
    for asset, keys in inventory.partitions.items():
        kind = asset.split("/")[0]
        whose = "the source models'" if kind.startswith("source") else "the trained agents'"
        what = "Trajectories" if kind.endswith("trajectories") else f"Verdicts of {asset.partition('/')[2]} on"
        names = ("model",) if kind.startswith("source") else ("agent", "seed")
        builder.add(
            asset,
            "published",
            IMPORT,
            CODE_VERSIONS["trajectories" if kind.endswith("trajectories") else "evaluations"],
            f"{what}{' of' if what == 'Trajectories' else ''} {whose}, imported.",
            dimensions={name: tuple(dict.fromkeys(key[place] for key in keys)) for place, name in enumerate(names)},
            inputs=_judged if kind.endswith("evaluations") else lambda ref: [],
            made_by=IMPORT,
            present=keys,
        )
    trained = {agent.model for agent in inventory.agents}
    if set(inventory.source_models) - trained:  # the released code's pairs come from more models than it trained
        _add_pairs(builder, inventory.source_models, tuple(str(seed) for seed in inventory.seeds or world.seeds))


def _judged(ref: Ref) -> list[Ref]:
    """Returns the trajectories that a partition of evaluations is about."""
    return [Ref(f"{ref.asset.split('_')[0]}_trajectories", ref.partition)]


def _add_collected(builder: _Builder) -> None:
    """Adds source models, what they do, what judges say of it, and pairs."""
    e, models = builder.experiment, tuple(builder.experiment.models)
    builder.add(
        "source_models",
        "collect",
        "collect",
        CODE_VERSIONS["source_models"],
        "Weights of the source models, resolved and pinned; a miniature model is trained on the spot.",
        dimensions={"model": models},
        config=lambda ref: e.identity_of(ref.key("model")),
        expensive=True,
    )
    builder.add(
        "source_trajectories",
        "collect",
        "collect",
        trajectory_code(e),
        "Every source model on every case.",
        dimensions={"model": models},
        inputs=lambda ref: [Ref("source_models", ref.partition)],
        config=lambda ref: {**_sampling(e, "source"), **e.running_of(ref.key("model"))},
        expensive=True,
    )
    _add_evaluations(builder, "source", "collect", {"model": models}, "the source models'")
    _add_pairs(builder, models, tuple(str(seed) for seed in e.grid.seeds))


def _sampling(e: Experiment, kind: str) -> dict[str, Any]:
    section = e.source if kind == "source" else e.test
    return {"world": e.world.model_dump(), "agent": e.agent.model_dump(), **section.model_dump()}


CALIBRATION = "judge_calibration"


def calibrated(experiment: Experiment) -> list[str]:
    """Returns the judges that may drift between two seeds, and are asked for the same verdicts again for every seed."""
    lasting = experiment.limits.calibration and experiment.agents()
    return [name for name, judge in experiment.judges.items() if lasting and isinstance(judge, LMJudgeRole)]


def _add_calibrations(builder: _Builder) -> None:
    """Adds, for every seed, the judges' second verdicts on a few trajectories."""
    e = builder.experiment

    def reads(judge: str) -> Callable[[Ref], list[Ref]]:
        assets = ["source_trajectories", *(f"source_evaluations/{judge}/{metric.value}" for metric in e.metrics)]
        return lambda ref: [Ref.of(asset, model=model) for asset in assets for model in e.models]

    def config_of(judge: str) -> Callable[[Ref], dict[str, Any]]:
        return lambda ref: {"judge": e.judges[judge].model_dump(), "trajectories": e.limits.calibration}

    for judge in calibrated(e):
        builder.add(
            f"{CALIBRATION}/{judge}",
            "measure",
            "calibrate",
            CODE_VERSIONS[CALIBRATION],
            f"Verdicts of {judge} on a few source trajectories, again for every seed: has it drifted?",
            dimensions={"seed": tuple(str(seed) for seed in e.grid.seeds)},
            inputs=reads(judge),
            config=config_of(judge),
            expensive=True,
        )


def _add_evaluations(builder: _Builder, whose: str, room: str, dimensions: Dimensions, described: str) -> None:
    e = builder.experiment
    calibrations = calibrated(e) if whose == "agent" else []

    def inputs_of(judge: str) -> Callable[[Ref], list[Ref]]:
        if judge not in calibrations:
            return _judged
        return lambda ref: [*_judged(ref), Ref.of(f"{CALIBRATION}/{judge}", seed=ref.key("seed"))]

    def config_of(judge: str) -> Callable[[Ref], dict[str, Any]]:
        return lambda ref: e.judges[judge].model_dump()

    for judge, metric in itertools.product(e.judges, e.metrics):
        builder.add(
            f"{whose}_evaluations/{judge}/{metric.value}",
            room,
            room,
            evaluation_code(e, judge, metric),
            f"Verdicts of {judge} on {metric.value} for {described} trajectories.",
            dimensions=dimensions,
            inputs=inputs_of(judge),
            config=config_of(judge),
            expensive=not isinstance(e.judges[judge], LabelsJudge),
        )


def _add_pairs(builder: _Builder, models: tuple[str, ...], seeds: tuple[str, ...]) -> None:
    e = builder.experiment
    trained = tuple(dict.fromkeys(stage.metric.value for agent in e.trainees() for stage in agent.stages))
    there = {
        ref
        for node in builder.nodes
        if node.name.startswith(("source_evaluations", "source_trajectories"))
        for ref in node.refs()
    }
    for judge in e.grid.pairs_judges:

        def pair_inputs(ref: Ref, judge: str = judge) -> list[Ref]:
            metric = TrainedMetric(ref.key("metric"))
            assets = [*(f"source_evaluations/{judge}/{part.value}" for part in metric.judged), "source_trajectories"]
            found = [Ref.of(asset, model=model) for asset in assets for model in models]
            return [ref for ref in found if ref in there]

        builder.add(
            f"preference_pairs/{judge}",
            "preferences",
            "pairs",
            CODE_VERSIONS["preference_pairs"],
            f"Pairs of trajectories of one training case, chosen and rejected by {judge}'s scores.",
            dimensions={"metric": trained or PAPER_METRICS, "seed": seeds},
            inputs=pair_inputs,
            config=lambda ref: e.pairs.rules(TrainedMetric(ref.key("metric"))),
        )


def _add_trained(builder: _Builder) -> None:
    """Adds every stage's adapters and merged models."""
    e = builder.experiment
    agents, models = agents_by_key(e), tuple(e.models)
    seeds = tuple(str(seed) for seed in e.grid.seeds)
    trained = tuple(key for key in agents if key not in e.own_agents)
    if not trained:
        return
    builder.add(
        "agent_specs",
        "training",
        "specs",
        CODE_VERSIONS["agent_specs"],
        "Each agent's stages and their parameters; changes exactly when that agent's own recipe does.",
        dimensions={"agent": trained, "seed": seeds},
        config=lambda ref: agent_spec(e, agents[ref.key("agent")]),
    )
    for stage in range(1, e.n_stages + 1):
        keys = tuple(agent.key for agent in e.stage_agents(stage))

        def base_of(ref: Ref, stage: int = stage) -> Ref:
            agent = agents[ref.key("agent")]
            if stage == 1:
                return Ref.of("source_models", model=agent.model)
            return Ref.of(f"stage_{stage - 1}/merged_models", agent=agent.prefix(stage - 1), seed=ref.key("seed"))

        def adapter_inputs(ref: Ref, stage: int = stage, base: Callable[[Ref], Ref] = base_of) -> list[Ref]:
            trained = agents[ref.key("agent")].stages[stage - 1]
            pairs = Ref.of(f"preference_pairs/{trained.judge}", metric=trained.metric.value, seed=ref.key("seed"))
            trajectories = [Ref.of("source_trajectories", model=model) for model in models]
            return [Ref("agent_specs", ref.partition), base(ref), pairs, *trajectories]

        builder.add(
            f"stage_{stage}/adapters",
            "training",
            f"train_{stage}",
            CODE_VERSIONS["adapters"],
            f"LoRA adapters of training stage {stage}, by DPO.",
            dimensions={"agent": keys, "seed": seeds},
            inputs=adapter_inputs,
            expensive=True,
        )

        # A leased server loads adapters, so what nothing is trained from would be merged for nobody.
        # Nor is what is only mixed: a mixture is one adapter over its source model.
        bases = {agent.prefix(stage) for agent in e.trainees() if len(agent.stages) > stage}
        tested = {agent.key for agent in e.agents() if not e.is_served(agent.model)}
        merged = tuple(key for key in keys if key in bases or key in tested)
        if not merged:
            continue

        def merge_inputs(ref: Ref, stage: int = stage, base: Callable[[Ref], Ref] = base_of) -> list[Ref]:
            return [Ref(f"stage_{stage}/adapters", ref.partition), base(ref)]

        builder.add(
            f"stage_{stage}/merged_models",
            "training",
            f"train_{stage}" if merged == keys else f"merge_{stage}",  # one run, one set of partitions
            CODE_VERSIONS["merged_models"],
            f"Stage {stage}'s adapters merged into their bases.",
            dimensions={"agent": merged, "seed": seeds},
            inputs=merge_inputs,
            expensive=True,
        )
    _add_interpolated(builder, agents)


def _add_interpolated(builder: _Builder, agents: Mapping[str, Agent]) -> None:
    """Adds mixtures of trained agents' adapters."""
    e = builder.experiment
    mixtures = tuple(key for key, agent in agents.items() if agent.parts)
    if not mixtures:
        return

    def inputs(ref: Ref) -> list[Ref]:
        agent, seed = agents[ref.key("agent")], ref.key("seed")
        ends = dict.fromkeys(key for part, _ in agent.parts for key in stage_adapters(agents[part], seed))
        return [Ref("agent_specs", ref.partition), Ref.of("source_models", model=agent.model), *ends]

    builder.add(
        INTERPOLATED,
        "training",
        "interpolate",
        CODE_VERSIONS[INTERPOLATED],
        "Adapters that nobody trained: those of two trained agents, each with a weight, as one.",
        dimensions={"agent": mixtures, "seed": tuple(str(seed) for seed in e.grid.seeds)},
        inputs=inputs,
    )


def stage_adapters(agent: Agent, seed: str) -> list[Ref]:
    """Returns an agent's adapters, a stage each."""
    stages = range(1, len(agent.stages) + 1)
    return [Ref.of(f"stage_{stage}/adapters", agent=agent.prefix(stage), seed=seed) for stage in stages]


def agent_spec(experiment: Experiment, agent: Agent) -> dict[str, Any]:
    """Returns what decides an agent besides pairs and base: its stages and their training, or what it is mixed from."""
    if agent.parts:
        return {"mixed": [{"agent": key, "weight": weight} for key, weight in agent.parts]}
    return {
        "stages": [stage.model_dump(mode="json") for stage in agent.stages],
        "training": experiment.training_of(agent.model, agent.recipe).model_dump(mode="json"),
    }


def _add_measured(builder: _Builder) -> None:
    """Adds what trained agents do on held-out cases, and what judges say of it."""
    e = builder.experiment
    agents = agents_by_key(e)
    tested = {
        "agent": tuple(agent.key for agent in e.agents()),
        "seed": tuple(str(seed) for seed in e.grid.seeds),
    }

    if e.own_agents:
        builder.add(
            "own_agents",
            "measure",
            "own",
            CODE_VERSIONS["source_models"],
            "Agents that were trained elsewhere, resolved and pinned.",
            dimensions={"agent": tuple(e.own_agents), "seed": tested["seed"]},
            config=lambda ref: e.identity_of(ref.key("agent")),
        )

    def tested_model(ref: Ref) -> list[Ref]:
        agent = agents[ref.key("agent")]
        if agent.key in e.own_agents:
            adapter = isinstance(e.own_agents[agent.key], OwnAdapter)
            source = [Ref.of("source_models", model=agent.model)] if adapter else []
            return [*source, Ref("own_agents", ref.partition)]
        base = Ref.of("source_models", model=agent.model)
        if agent.parts:
            return [base, Ref(INTERPOLATED, ref.partition)]
        if not e.is_served(agent.model):
            return [Ref(f"stage_{len(agent.stages)}/merged_models", ref.partition)]
        return [base, *stage_adapters(agent, ref.key("seed"))]

    builder.add(
        "agent_trajectories",
        "measure",
        "measure",
        trajectory_code(e),
        "Every trained agent on its seed's held-out cases.",
        dimensions=tested,
        inputs=tested_model,
        config=lambda ref: {**_sampling(e, "test"), **e.running_of(acting_model(e, agents[ref.key("agent")]))},
        expensive=True,
    )
    _add_calibrations(builder)
    _add_evaluations(builder, "agent", "measure", tested, "the trained agents'")


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
CLAIMS, TRANSCRIPTS = "claims", "transcripts"
DECIDING = ("frontier", "persistence", "audits")
"""The result assets that claims are decided by."""
TABLES = (*RESULTS, CLAIMS)
"""The assets with tables for people, for the database and for the report."""


def _add_results(builder: _Builder) -> None:
    """Adds the warehouse and everything after it."""
    e, made = builder.experiment, list(builder.nodes)
    builder.add(
        "warehouse",
        "results",
        "warehouse",
        CODE_VERSIONS["warehouse"],
        "The DuckDB file, rebuilt from the artifacts.",
        partial=True,
        unread=(WEIGHTS,),
        config=lambda ref: {"grid": e.grid.model_dump(mode="json")},
        inputs=lambda ref: [source for node in made for source in node.refs() if "merged_models" not in node.name],
    )

    def reads(*names: str) -> Callable[[Ref], list[Ref]]:
        return lambda ref: [Ref(name) for name in names]

    for name, description in RESULTS.items():
        builder.add(
            name,
            "results",
            "audits" if name in SLOW_RESULTS else "results",
            CODE_VERSIONS["results"],
            description,
            inputs=reads("warehouse"),
            config=lambda ref: e.statistics.model_dump(),
        )
    transcribed = ("source_trajectories", "agent_trajectories", "source_evaluations", "agent_evaluations")
    builder.add(
        TRANSCRIPTS,
        "report",
        TRANSCRIPTS,
        CODE_VERSIONS[TRANSCRIPTS],
        "Every trajectory with its verdicts, compressed, for the report to open.",
        partial=True,
        inputs=lambda ref: [
            source for node in made if node.name.split("/")[0] in transcribed for source in node.refs()
        ],
    )
    builder.add(
        CLAIMS,
        "results",
        "tables",
        CODE_VERSIONS["claims"],
        "The paper's findings: each holds, does not, or is not decided by this data, with the evidence.",
        inputs=reads(*DECIDING),
        config=lambda ref: {"toy": e.toy},
    )
    builder.add(
        "tables",
        "report",
        "tables",
        CODE_VERSIONS["report"],
        "The result tables as text, Markdown and LaTeX, and everything in one DuckDB file.",
        inputs=reads("warehouse", *TABLES),
        config=lambda ref: {"toy": e.toy},
    )
    imported = [IMPORT] if e.imports else []
    builder.add(
        "report",
        "report",
        "report",
        CODE_VERSIONS["page"],
        "One page with everything that was found, for a browser, and every transcript beside it.",
        inputs=reads("warehouse", *TABLES, TRANSCRIPTS, *imported),
        config=lambda ref: {"toy": e.toy},
    )
    builder.add(
        "figures",
        "report",
        "figures",
        CODE_VERSIONS["report"],
        "The figures, for people: SVG, PDF and PNG.",
        inputs=reads("warehouse", *RESULTS),
        config=lambda ref: {"toy": e.toy},
    )


def acting_model(experiment: Experiment, agent: Agent) -> str:
    """Returns the section whose settings run a trained agent: its source model's, or its own."""
    own = experiment.own_agents.get(agent.key)
    return agent.model if own is None or isinstance(own, OwnAdapter) else agent.key


def agents_by_key(experiment: Experiment) -> dict[str, Agent]:
    """Returns every agent that is trained, those that exist only as a first stage included."""
    if experiment.imports:
        return {agent.key: agent for agent in experiment.agents()}
    stages: Iterable[int] = range(1, experiment.n_stages + 1)
    agents = {agent.key: agent for stage in stages for agent in experiment.stage_agents(stage)}
    return {**agents, **{agent.key: agent for agent in experiment.trainees()}}
