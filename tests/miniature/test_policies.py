import asyncio
import random
from collections import defaultdict

import pytest

from dagster_project.miniature.judges import RuleJudge
from dagster_project.miniature.policies import MANNERS, TEMPERAMENTS, ScriptedModel, Temperament, demonstrate, task_text
from dagster_project.miniature.world import make_cases, rules_of, toolkits
from toolemu.chat import ChatRequest, Message
from toolemu.evaluation import Metric
from toolemu.prompts.render import AgentPrompt
from toolemu.react import Action, Final, parse_turn

from .acting import sample

CASES = make_cases(64, 0)


def mean_scores(temperament: Temperament, metric: Metric) -> list[float]:
    rng = random.Random(1)
    judge = RuleJudge("strict")
    found = []
    for case in CASES * 4:
        verdict = asyncio.run(judge.evaluate(case, sample(case, temperament, rng), metric))
        assert verdict.score is not None
        found.append(verdict.score)
    return found


@pytest.mark.parametrize("temperament", TEMPERAMENTS)
@pytest.mark.parametrize("metric", list(Metric))
def test_every_temperament_reaches_every_score(temperament: Temperament, metric: Metric) -> None:
    # A help of 2 takes an act without a report, which scripted agents never do.
    expected = {0, 1, 3} if metric is Metric.help else {0, 1, 2, 3}
    assert set(mean_scores(temperament, metric)) >= expected


def test_temperaments_trade_safety_for_help() -> None:
    means: dict[Metric, list[float]] = defaultdict(list)
    for metric in (Metric.safe, Metric.help):
        for temperament in TEMPERAMENTS:  # eager, balanced, cautious
            values = mean_scores(temperament, metric)
            means[metric].append(sum(values) / len(values))
    assert means[Metric.safe] == sorted(means[Metric.safe])
    assert means[Metric.help] == sorted(means[Metric.help], reverse=True)


def test_weights_are_shares() -> None:
    for manner in MANNERS.values():
        for weights in (manner.guarded, manner.plain, manner.harmless_found, manner.harm_found):
            assert sum(weights.values()) == pytest.approx(1)


def test_demonstrations_are_in_the_format_and_begin_with_the_prompt_agents_get() -> None:
    rng = random.Random(0)
    for case in CASES:
        turns = demonstrate(case, "balanced", rng)
        kit = toolkits()[rules_of(case).domain]
        assert (turns[0],) == AgentPrompt("brief").messages(case, [kit], [])
        assert task_text(case, kit.tools_by_name) == turns[0].content
        parsed = [parse_turn(turn.content) for turn in turns[1::2]]
        assert isinstance(parsed[-1], Final)
        assert all(isinstance(turn, Action) for turn in parsed[:-1])


def test_a_scripted_model_answers_as_its_seed_says() -> None:
    case = CASES[0]
    model = ScriptedModel("balanced", CASES)
    messages = AgentPrompt("brief").messages(case, [toolkits()[rules_of(case).domain]], [])

    def reply(seed: int) -> str:
        return asyncio.run(model.chat(ChatRequest(messages, seed=seed))).text

    assert reply(5) == reply(5)
    assert len({reply(seed) for seed in range(40)}) > 4


def test_a_scripted_model_says_when_it_does_not_know_the_case() -> None:
    with pytest.raises(ValueError, match="no case with the instruction"):
        asyncio.run(ScriptedModel("eager", CASES).chat(ChatRequest((Message("user", "Tools: \nTask: Dance."),))))


def test_a_scripted_model_does_not_repeat_a_call_that_failed() -> None:
    case = CASES[0]
    turns = (
        *AgentPrompt("brief").messages(case, [toolkits()[rules_of(case).domain]], []),
        Message("assistant", "Thought: Hm.\nAction: Nothing\nAction Input: {}"),
        Message("user", 'Observation: {"error": "InvalidRequestException: There is no tool."}'),
    )
    reply = asyncio.run(ScriptedModel("eager", CASES).chat(ChatRequest(turns)))
    assert isinstance(parse_turn(reply.text), Final)
