"""What planned partitions will take of models behind endpoints, before the first call: calls, tokens, money.

From what records of the same role took before, in this experiment or in its pilot (`--limit`); where there are none,
from the lengths of the prompts and the assumptions below.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import mean
from typing import NamedTuple

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.endpoints import roles_of
from dagster_project.collect.world import open_world
from dagster_project.environments import World
from dagster_project.experiment.graph import Graph
from dagster_project.experiment.nodes import Kind, Side
from dagster_project.experiment.spec import Experiment
from dagster_project.experiment.splits import split_cases
from toolemu.chat import Message, ModelUse
from toolemu.evaluation import Metric
from toolemu.prompts import AgentPrompt
from toolemu.trajectory import StopReason, ToolCall, Trajectory

TURNS = 4
"""Turns of a trajectory, the answer included, where none was seen: a guess."""
TURN_TOKENS, OBSERVATION_TOKENS, EMULATOR_TOKENS, VERDICT_TOKENS = 120, 150, 300, 400
THINKING = 6
"""Generated tokens of a model that thinks are so many times as many."""
CHARACTERS_A_TOKEN = 4
_ROLE_OF = {"models": "agent", "own_agents": "agent", "world": "emulator", "judges": "judge"}


class Estimate(NamedTuple):
    """What a role will take.

    Attributes:
        place: The role's place in the experiment file.
        model: Its model.
        records: Trajectories or verdicts to make.
        calls, prompt_tokens, completion_tokens: What they will take.
        cost: At the file's price; None without one.
        measured: Whether this is from records of this role, and not assumed.
    """

    place: str
    model: str
    records: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    measured: bool


class _Each(NamedTuple):
    """What one record takes on average."""

    calls: float
    prompt_tokens: float
    completion_tokens: float


def estimate(graph: Graph, refs: Iterable[Ref], stores: Iterable[ArtifactStore]) -> list[Estimate]:
    """Returns what each role behind an endpoint will take for `refs`, in order of the experiment file.

    Args:
        graph: The experiment's graph.
        refs: The partitions to make.
        stores: Where records of the same roles may be: the experiment's own artifacts, its pilot's.
    """
    records: defaultdict[str, int] = defaultdict(int)
    for ref in refs:
        for place in roles_of(graph, ref):
            records[place] += _records(graph, ref)
    past, experiment = _past(graph, stores), graph.experiment
    found = []
    for place, role in graph.roles.items():
        if not records[place]:
            continue
        each = past.get(place) or _assumed(experiment, place, role.thinking is True)
        calls, prompt, completion = (round(records[place] * number) for number in each)
        price = experiment.prices.get(role.model)
        use = ModelUse(calls=calls, prompt_tokens=prompt, completion_tokens=completion)
        cost = None if price is None else use.cost(price)
        found.append(Estimate(place, role.model, records[place], calls, prompt, completion, cost, place in past))
    return found


def conversation_tokens(experiment: Experiment) -> tuple[float, float]:
    """Returns the tokens that a trajectory may have as a conversation to train on: of its prompt, and after it."""
    prompt = mean(_tokens(_agent_prompts(experiment, open_world(experiment))))
    return prompt, TURNS * TURN_TOKENS + (TURNS - 1) * OBSERVATION_TOKENS


def _records(graph: Graph, ref: Ref) -> int:
    """Return how many trajectories or verdicts a partition holds; 0 for other assets."""
    node, experiment = graph.node(ref), graph.experiment
    if node.kind is Kind.calibration and node.judge is not None:
        return experiment.limits.calibration * len(experiment.metrics) * experiment.judges[node.judge].verdicts_each
    if node.kind not in (Kind.trajectories, Kind.evaluations):
        return 0
    cases, sampling = experiment.world.cases, experiment.source
    if node.side is Side.agent:
        sampling = experiment.test
        assert ref.seed is not None, "agents are tested for a seed"
        cases = cases if experiment.test.split == "all" else len(split_cases(cases, ref.seed).test)
    count = cases * sampling.samples
    return count if node.judge is None else count * experiment.judges[node.judge].verdicts_each


def _past(graph: Graph, stores: Iterable[ArtifactStore]) -> Mapping[str, _Each]:
    """Returns what a record of each role took, from the first store that has any."""
    found: dict[str, _Each] = {}
    for store in stores:
        totals: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
        for manifest in store.manifests():
            counts = manifest.counts
            made = counts.get("trajectories", 0) + counts.get("evaluations", 0)
            for place in roles_of(graph, manifest.ref) if made and manifest.ref in graph.refs else []:
                role = _ROLE_OF[place.partition(".")[0]]
                if counts.get(f"{role}_calls"):
                    names = (f"{role}_calls", f"{role}_prompt_tokens", f"{role}_completion_tokens")
                    numbers = (made, *(counts[name] for name in names))
                    totals[place] = [old + new for old, new in zip(totals[place], numbers, strict=True)]
        for place, (records, *taken) in totals.items():
            found.setdefault(place, _Each(*(number / records for number in taken)))
    return found


def _assumed(experiment: Experiment, place: str, thinks: bool) -> _Each:
    """Returns what a record of a role may take, by the lengths of its prompts."""
    world, times = open_world(experiment), THINKING if thinks else 1
    step = TURN_TOKENS + OBSERVATION_TOKENS
    room, _, name = place.partition(".")
    if room == "judges":
        shown = mean(_tokens(_judge_prompts(experiment, name, world))) + TURNS * step
        return _Each(1, shown, VERDICT_TOKENS * times)
    if room in ("models", "own_agents"):
        opening = mean(_tokens(_agent_prompts(experiment, world)))
        calls, tokens = TURNS, TURN_TOKENS
    else:
        opening = mean(_tokens(_emulator_prompts(experiment, world)))
        calls, tokens = TURNS - 1, EMULATOR_TOKENS
    return _Each(calls, calls * opening + step * calls * (calls - 1) / 2, calls * tokens * times)


def _agent_prompts(experiment: Experiment, world: World) -> Iterator[tuple[Message, ...]]:
    prompt = AgentPrompt(experiment.agent.prompt_style, experiment.prompts_dir)
    for case in world.cases:
        yield prompt.messages(case, [world.toolkits[name] for name in case.toolkits])


def _emulator_prompts(experiment: Experiment, world: World) -> Iterator[tuple[Message, ...]]:
    prompt = experiment.world.prompt(experiment.prompts_dir)
    assert prompt is not None, "an environment with a role has a prompt"
    for case in world.cases:
        toolkit = world.toolkits[case.toolkits[0]]
        yield prompt.messages(case, toolkit, (), ToolCall(next(iter(toolkit.tools_by_name)), "{}"))


def _judge_prompts(experiment: Experiment, name: str, world: World) -> Iterator[tuple[Message, ...]]:
    prompt = experiment.judges[name].prompt(Metric.safe, experiment.prompts_dir)
    assert prompt is not None, "a judge with a role has a prompt"
    for index, case in enumerate(world.cases):
        nothing = Trajectory(
            trajectory_id="",
            experiment=experiment.name,
            agent="",
            seed=None,
            case_idx=index,
            sample=0,
            user_input=case.user_instruction,
            steps=(),
            output="",
            final_log="",
            stop_reason=StopReason.final_answer,
        )
        yield prompt.messages(case, [world.toolkits[toolkit] for toolkit in case.toolkits], nothing)


def _tokens(prompts: Iterable[tuple[Message, ...]]) -> Iterator[float]:
    for messages in prompts:
        yield sum(len(message.content) for message in messages) / CHARACTERS_A_TOKEN
