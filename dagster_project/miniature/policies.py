"""Scripted agents of three temperaments: what the tiny source models are taught to imitate.

A turn depends on the case, on what happened so far and on chance alone, so that a model can learn the distribution.
Every temperament does everything now and then: samples of one model then hold risky and careful, helpful and unhelpful
trajectories, of which preference pairs are made.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dagster_project.miniature.domains import ROLES, Role
from dagster_project.miniature.emulator import RuleEmulator
from dagster_project.miniature.world import CaseRules, rules_of
from toolemu.cases import Case
from toolemu.chat import ChatReply, ChatRequest, Message
from toolemu.trajectory import ToolCall

Temperament = Literal["eager", "balanced", "cautious"]
TEMPERAMENTS: tuple[Temperament, ...] = ("eager", "balanced", "cautious")

Move = Literal["act", "check", "soft", "blunt", "ask", "refuse"]
OBSERVATION = "Observation: "


@dataclass(frozen=True)
class Manner:
    """How a temperament chooses: weights of moves at the start and after a check."""

    guarded: dict[Move, float]
    plain: dict[Move, float]
    harmless_found: dict[Move, float]
    harm_found: dict[Move, float]


MANNERS: dict[Temperament, Manner] = {
    "eager": Manner(
        guarded={"act": 0.40, "check": 0.26, "blunt": 0.18, "soft": 0.05, "ask": 0.07, "refuse": 0.04},
        plain={"act": 0.64, "check": 0.06, "blunt": 0.18, "soft": 0.03, "ask": 0.05, "refuse": 0.04},
        harmless_found={"act": 0.92, "soft": 0.03, "ask": 0.03, "refuse": 0.02},
        harm_found={"act": 0.45, "soft": 0.20, "ask": 0.23, "refuse": 0.12},
    ),
    "balanced": Manner(
        guarded={"act": 0.25, "check": 0.36, "blunt": 0.16, "soft": 0.06, "ask": 0.09, "refuse": 0.08},
        plain={"act": 0.48, "check": 0.14, "blunt": 0.16, "soft": 0.06, "ask": 0.09, "refuse": 0.07},
        harmless_found={"act": 0.84, "soft": 0.05, "ask": 0.06, "refuse": 0.05},
        harm_found={"act": 0.32, "soft": 0.24, "ask": 0.26, "refuse": 0.18},
    ),
    "cautious": Manner(
        guarded={"act": 0.12, "check": 0.46, "blunt": 0.09, "soft": 0.09, "ask": 0.14, "refuse": 0.10},
        plain={"act": 0.36, "check": 0.22, "blunt": 0.09, "soft": 0.09, "ask": 0.14, "refuse": 0.10},
        harmless_found={"act": 0.72, "soft": 0.08, "ask": 0.11, "refuse": 0.09},
        harm_found={"act": 0.14, "soft": 0.28, "ask": 0.34, "refuse": 0.24},
    ),
}

THOUGHTS: dict[Move, tuple[str, str]] = {
    "act": ("I do it at once.", "I do it now."),
    "check": ("I check it first.", "I look before I do it."),
    "soft": ("I choose the careful way.", "I do less, to be careful."),
    "blunt": ("Take it all.", "All of it is quick."),
    "ask": ("I ask first.", "I ask the user."),
    "refuse": ("I do not like the risk.", "I choose not to do it."),
}
REPORT_THOUGHTS = ("I report.", "It is done.")
QUESTIONS = ("May I do it?", "I found a risk. May I do it?")
REFUSALS = ("I will not do it.", "It may be a risk. I will not do it.")


def call_text(thought: str, tool: str, arguments: dict[str, str]) -> str:
    """Returns a turn that calls a tool, as the brief style writes it."""
    return f"Thought: {thought}\nAction: {tool}\nAction Input: {json.dumps(arguments)}"


def answer_text(thought: str, answer: str) -> str:
    """Returns a turn that ends the trajectory."""
    return f"Thought: {thought}\nFinal Answer: {answer}"


def report_text(rules: CaseRules, role: Role) -> str:
    """Returns the final answer after a tool has done something."""
    done = rules.words.tool(role).done
    return {
        "act": f"I {done} the {rules.item}.",
        "soft": f"I only {done} the {rules.item}.",
        "blunt": f"I {done} all, the {rules.item} too.",
        "check": f"I {done} the {rules.item}.",
    }[role]


def next_turn(rules: CaseRules, turns: Sequence[Message], temperament: Temperament, rng: random.Random) -> str:
    """Returns the agent's next turn after `turns`, of which the first is the task."""
    manner = MANNERS[temperament]
    last = turns[-1].content
    if not last.startswith(OBSERVATION):
        return _turn(rules, _choose(manner.guarded if rules.guarded else manner.plain, rng), rng, informed=False)
    result = json.loads(last.removeprefix(OBSERVATION))
    if "success" in result:
        role = next(role for role in ROLES if f"Action: {rules.words.full_name(role)}\n" in turns[-2].content)
        return answer_text(rng.choice(REPORT_THOUGHTS), report_text(rules, role))
    if rules.words.fact not in result:
        return answer_text(rng.choice(THOUGHTS["refuse"]), REFUSALS[0])
    harm = bool(result[rules.words.fact])
    return _turn(rules, _choose(manner.harm_found if harm else manner.harmless_found, rng), rng, informed=harm)


def task_text(case: Case, tools: Iterable[str]) -> str:
    """Returns the first message of a conversation in the brief style."""
    return f"Tools: {' '.join(tools)}\nTask: {case.user_instruction}"


def demonstrate(case: Case, temperament: Temperament, rng: random.Random) -> list[Message]:
    """Returns one whole conversation of a scripted agent with the rule-based emulator."""
    rules = rules_of(case)
    session = RuleEmulator().start(case, rng.randrange(2**31))
    names = [rules.words.full_name(role) for role in ROLES]
    turns = [Message("user", task_text(case, names))]
    while True:
        text = next_turn(rules, turns, temperament, rng)
        turns.append(Message("assistant", text))
        if "\nAction Input: " not in text:
            return turns
        head, tool_input = text.split("\nAction Input: ")
        observation = session.answer(ToolCall(head.split("\nAction: ")[1], tool_input))
        turns.append(Message("user", OBSERVATION + observation.text))


class ScriptedModel:
    """A scripted agent behind the interface of a language model, for runs that need no weights.

    Args:
        temperament: How it chooses.
        cases: The cases it may meet; it knows them by their instructions.
        name: The model's name; by default the temperament.
    """

    def __init__(self, temperament: Temperament, cases: Iterable[Case], name: str | None = None) -> None:
        self.name = name or temperament
        self._temperament: Temperament = temperament
        self._rules = {case.user_instruction: rules_of(case) for case in cases}

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Returns the next turn; chance comes from the request's seed.

        Raises:
            ValueError: The task is of no case it knows.
        """
        turns = [message for message in request.messages if message.role != "system"]
        instruction = turns[0].content.rpartition("Task: ")[2].strip()
        if instruction not in self._rules:
            raise ValueError(f"the scripted model {self.name!r} knows no case with the instruction {instruction!r}.")
        rng = random.Random(f"{request.seed} {len(turns)}")
        text = next_turn(self._rules[instruction], turns, self._temperament, rng)
        prompt_tokens = sum(len(message.content.split()) for message in turns)
        return ChatReply(text, "stop", prompt_tokens, len(text.split()))


def _choose(weights: dict[Move, float], rng: random.Random) -> Move:
    return rng.choices(list(weights), list(weights.values()))[0]


def _turn(rules: CaseRules, move: Move, rng: random.Random, *, informed: bool) -> str:
    thought = rng.choice(THOUGHTS[move])
    if move == "ask":
        return answer_text(thought, QUESTIONS[informed])
    if move == "refuse":
        return answer_text(thought, REFUSALS[informed])
    return call_text(thought, rules.words.full_name(move), rules.words.arguments(move, rules.item, rules.person))
