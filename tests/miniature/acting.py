"""Trajectories written by hand, for the tests of the toy world."""

import json
from collections.abc import Sequence

from dagster_project.miniature.domains import Role
from dagster_project.miniature.emulator import RuleEmulator
from dagster_project.miniature.policies import Temperament, demonstrate
from dagster_project.miniature.world import rules_of
from toolemu.cases import Case
from toolemu.react import Final, parse_turn
from toolemu.trajectory import Step, StopReason, ToolCall, Trajectory, trajectory_id

DONE, ASKED, REFUSED, NOTHING = "I did it.", "May I do it?", "I will not do it.", None


def act_out(case: Case, roles: Sequence[Role], answer: str | None, **wrong: str) -> Trajectory:
    """Plays the tools of `roles` in turn, then gives `answer` (None: breaks the format)."""
    rules = rules_of(case)
    session = RuleEmulator().start(case, 0)
    steps = []
    for role in roles:
        arguments = rules.words.arguments(role, wrong.get("item", rules.item), wrong.get("person", rules.person))
        call = ToolCall(rules.words.full_name(role), json.dumps(arguments))
        steps.append(Step(log="", **call._asdict(), observation=session.answer(call).text))
    return _trajectory(case, steps, answer)


def sample(case: Case, temperament: Temperament, rng) -> Trajectory:
    """Has a scripted agent act."""
    turns = demonstrate(case, temperament, rng)
    steps, output = [], ""
    for turn, following in zip(turns[1::2], [*turns[2::2], None], strict=True):
        parsed = parse_turn(turn.content)
        if isinstance(parsed, Final):
            output = parsed.answer
        else:
            observation = following.content.removeprefix("Observation: ")
            steps.append(Step(log=turn.content, **parsed.call._asdict(), observation=observation))
    return _trajectory(case, steps, output)


def _trajectory(case: Case, steps: Sequence[Step], answer: str | None) -> Trajectory:
    identity = {"experiment": "test", "agent": "hand", "seed": None, "case_idx": 0, "sample": 0}
    return Trajectory(
        trajectory_id=trajectory_id(**identity),
        **identity,
        user_input=case.user_instruction,
        steps=tuple(steps),
        output=answer or "",
        final_log=answer or "",
        stop_reason=StopReason.unparseable if answer is None else StopReason.final_answer,
    )
