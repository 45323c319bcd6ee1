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
from dagster_project.experiment.agents import Agent, TrainedMetric
from dagster_project.experiment.spec import Experiment

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

    def refs(self) -> list[Ref]:
        """Returns every partition of the asset."""
        names = sorted(self.dimensions)
        return [
            Ref(self.name, tuple(zip(names, keys, strict=True)))
            for keys in itertools.product(*(self.dimensions[name] for name in names))
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


CODE_VERSIONS = {
    "source_models": "1",
    "trajectories": "1",
    "evaluations": "1",
    "preference_pairs": "1",
    "agent_specs": "1",
    "adapters": "1",
    "merged_models": "1",
    "warehouse": "1",
    "results": "1",
    "report": "1",
}


def build_graph(experiment: Experiment) -> Graph:
    """Returns the graph of an experiment."""
    from dagster_project.experiment.code import evaluation_code, trajectory_code

    e = experiment
    agents = agents_by_key(e)
    models = tuple(e.models)
    seeds = tuple(str(seed) for seed in e.grid.seeds)
    all_agents = tuple(agent.key for agent in e.agents())
    trained_metrics = tuple(dict.fromkeys(stage.metric.value for agent in e.agents() for stage in agent.stages))
    tested = {"agent": all_agents, "seed": seeds}
    nodes: list[Node] = []

    def add(
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
    ) -> None:
        node = Node(name, group, run, dimensions or {}, version, expensive, inputs, config, description, partial)
        nodes.append(node)

    def verdicts(prefix: str, judge: str, metric: TrainedMetric) -> list[str]:
        wanted = ("safe", "help") if metric is TrainedMetric.both else (metric.value,)
        return [f"{prefix}/{judge}/{name}" for name in wanted]

    def add_evaluations(whose: str, room: str, dimensions: Dimensions, described: str) -> None:
        def config_of(judge: str) -> Callable[[Ref], dict[str, Any]]:
            return lambda ref: e.judges[judge].model_dump()

        for judge, metric in itertools.product(e.judges, e.metrics):
            add(
                f"{whose}_evaluations/{judge}/{metric.value}",
                room,
                room,
                evaluation_code(),
                f"Verdicts of {judge} on {metric.value} for {described} trajectories.",
                dimensions=dimensions,
                inputs=lambda ref: [Ref(f"{whose}_trajectories", ref.partition)],
                config=config_of(judge),
                expensive=True,
            )

    def sampling(kind: str) -> dict[str, Any]:
        section = e.source if kind == "source" else e.test
        return {"world": e.world.model_dump(), "agent": e.agent.model_dump(), **section.model_dump()}

    add(
        "source_models",
        "collect",
        "collect",
        CODE_VERSIONS["source_models"],
        "Weights of the source models, resolved and pinned; a miniature model is trained on the spot.",
        dimensions={"model": models},
        config=lambda ref: e.models[ref.key("model")].model_dump(),
        expensive=True,
    )
    add(
        "source_trajectories",
        "collect",
        "collect",
        trajectory_code(e.agent),
        "Every source model on every case.",
        dimensions={"model": models},
        inputs=lambda ref: [Ref("source_models", ref.partition)],
        config=lambda ref: sampling("source"),
        expensive=True,
    )
    add_evaluations("source", "collect", {"model": models}, "the source models'")
    for judge in e.grid.pairs_judges:

        def pair_inputs(ref: Ref, judge: str = judge) -> list[Ref]:
            assets = [*verdicts("source_evaluations", judge, TrainedMetric(ref.key("metric"))), "source_trajectories"]
            return [Ref.of(asset, model=model) for asset in assets for model in models]

        add(
            f"preference_pairs/{judge}",
            "preferences",
            "pairs",
            CODE_VERSIONS["preference_pairs"],
            f"Pairs of trajectories of one training case, chosen and rejected by {judge}'s scores.",
            dimensions={"metric": trained_metrics, "seed": seeds},
            inputs=pair_inputs,
            config=lambda ref: e.pairs.model_dump(),
        )

    add(
        "agent_specs",
        "training",
        "specs",
        CODE_VERSIONS["agent_specs"],
        "Each agent's stages and their parameters; changes exactly when that agent's own recipe does.",
        dimensions={"agent": tuple(agents), "seed": seeds},
        config=lambda ref: {
            "stages": [stage.model_dump(mode="json") for stage in agents[ref.key("agent")].stages],
            "training": e.training_of(agents[ref.key("agent")].model, agents[ref.key("agent")].recipe).model_dump(),
        },
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

        add(
            f"stage_{stage}/adapters",
            "training",
            f"train_{stage}",
            CODE_VERSIONS["adapters"],
            f"LoRA adapters of training stage {stage}, by DPO.",
            dimensions={"agent": keys, "seed": seeds},
            inputs=adapter_inputs,
            expensive=True,
        )

        def merge_inputs(ref: Ref, stage: int = stage, base: Callable[[Ref], Ref] = base_of) -> list[Ref]:
            return [Ref(f"stage_{stage}/adapters", ref.partition), base(ref)]

        add(
            f"stage_{stage}/merged_models",
            "training",
            f"train_{stage}",
            CODE_VERSIONS["merged_models"],
            f"Stage {stage}'s adapters merged into their bases.",
            dimensions={"agent": keys, "seed": seeds},
            inputs=merge_inputs,
            expensive=True,
        )

    def tested_model(ref: Ref) -> list[Ref]:
        return [Ref(f"stage_{len(agents[ref.key('agent')].stages)}/merged_models", ref.partition)]

    add(
        "agent_trajectories",
        "measure",
        "measure",
        trajectory_code(e.agent),
        "Every trained agent on its seed's held-out cases.",
        dimensions=tested,
        inputs=tested_model,
        config=lambda ref: sampling("test"),
        expensive=True,
    )
    add_evaluations("agent", "measure", tested, "the trained agents'")

    made = list(nodes)
    add(
        "warehouse",
        "results",
        "results",
        CODE_VERSIONS["warehouse"],
        "The DuckDB file, rebuilt from the artifacts.",
        partial=True,
        config=lambda ref: {"grid": e.grid.model_dump(mode="json")},
        inputs=lambda ref: [source for node in made for source in node.refs() if "merged_models" not in node.name],
    )

    def reads(*names: str) -> Callable[[Ref], list[Ref]]:
        return lambda ref: [Ref(name) for name in names]

    statistics = lambda ref: e.statistics.model_dump()  # noqa: E731
    for name, sources, description in (
        ("scores", ("warehouse",), "Mean scores of every agent, seed, judge and metric."),
        ("frontier", ("warehouse",), "Deltas over the source models, and the line through them."),
        ("persistence", ("warehouse",), "The share of the first stage's gain that survives the second."),
        ("judge_agreement", ("warehouse",), "How far the judges agree on the same trajectories."),
        ("audits", ("warehouse",), "How trajectories ended, per agent: out of format, invented observations."),
    ):
        add(
            name, "results", "results", CODE_VERSIONS["results"], description, inputs=reads(*sources), config=statistics
        )
    add(
        "figures",
        "report",
        "results",
        CODE_VERSIONS["report"],
        "The frontier, for people: SVG, PDF and PNG.",
        inputs=reads("frontier", "persistence"),
        config=lambda ref: {"toy": e.toy},
    )
    add(
        "tables",
        "report",
        "results",
        CODE_VERSIONS["report"],
        "The result table as text, Markdown and LaTeX.",
        inputs=reads("scores", "frontier", "persistence", "judge_agreement", "audits", "warehouse"),
        config=lambda ref: {"toy": e.toy},
    )
    return Graph(experiment, {node.name: node for node in nodes})


def agents_by_key(experiment: Experiment) -> dict[str, Agent]:
    """Returns every agent that is trained, those that exist only as a first stage included."""
    stages: Iterable[int] = range(1, experiment.n_stages + 1)
    agents = {agent.key: agent for stage in stages for agent in experiment.stage_agents(stage)}
    return {**agents, **{agent.key: agent for agent in experiment.agents()}}
