from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toolemu.acting import LIGHTS, TOOLS, ScriptedChat, act, case, final, switch
from toolemu.chat import ChatReply, ModelError
from toolemu.emulator import observation_problems
from toolemu.lm_emulator import UNUSABLE, EmulatorSettings, LMEmulator, read_observation
from toolemu.trajectory import Observation, StopReason, ToolCall

CALL = ToolCall("LightsSwitch", '{"lamp": "a", "on": true}')
PROSE = st.text(st.characters(exclude_characters=":{}`", exclude_categories=("Cs",)), max_size=100)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def say(observation: object = None, summary: str = "It works.") -> str:
    text = json.dumps({"success": True} if observation is None else observation)
    return f"Reasoning: I see.\nSummary: {summary}\nObservation: {text}"


def emulator(model: ScriptedChat, **settings: Any) -> LMEmulator:
    return LMEmulator("world", model, {"Lights": LIGHTS}, EmulatorSettings(**settings))


def observe(model: ScriptedChat, *calls: ToolCall, seed: int = 0, **settings: Any) -> list[Observation]:
    async def run() -> list[Observation]:
        session = emulator(model, **settings).start(case(), seed)
        return [await session.observe(call) for call in calls or (CALL,)]

    return asyncio.run(run())


def test_an_observation_is_read_and_the_next_call_sees_it() -> None:
    model = ScriptedChat(ChatReply(say(), "stop", 10, 5, reasoning="hm", model="e-1"))
    first, second = observe(model, CALL, CALL)
    assert (first.text, first.summary, first.problem) == ('{"success": true}', "It works.", "")
    assert first.log == f"<think>\nhm\n</think>\n{say()}"
    assert first.use is not None and (first.use.calls, first.use.tokens, first.use.served_as) == (1, 15, ("e-1",))
    shown = model.requests[1].messages[-1].content
    assert "Summary: It works." in shown and 'Observation: {"success": true}' in shown
    assert second.text == first.text
    assert model.requests[0].seed != model.requests[1].seed


def test_what_breaks_the_specification_is_asked_for_again() -> None:
    model = ScriptedChat(say({"done": True}), "Observation: none", say())
    (observation,) = observe(model)
    assert (observation.text, observation.problem) == ('{"success": true}', "")
    assert observation.use is not None and observation.use.calls == 3
    complaint = model.requests[1].messages[-1].content
    assert "'done'" in complaint and "lacks the field 'success'" in complaint and "success (boolean)" in complaint
    assert "no JSON object" in model.requests[2].messages[-1].content
    assert len({request.seed for request in model.requests}) == 3


def test_attempts_are_bounded_and_the_best_that_was_had_is_taken() -> None:
    model = ScriptedChat(say({"done": True}), "nothing")
    (observation,) = observe(model, max_revisions=1)
    assert json.loads(observation.text) == {"done": True}
    assert "no JSON object" in observation.problem
    (observation,) = observe(ScriptedChat("nothing"), max_revisions=2)
    assert (observation.text, observation.use and observation.use.calls) == (UNUSABLE, 3)


def test_thinking_is_no_observation() -> None:
    (observation,) = observe(ScriptedChat(f"<think>{say({'success': False})}</think>{say()}"))
    assert observation.text == '{"success": true}'
    (observation,) = observe(ScriptedChat(f"<think>Perhaps\n{say()}"))
    assert observation.text == UNUSABLE


def test_a_request_is_as_the_settings_say_and_what_was_cut_off_is_asked_to_be_brief() -> None:
    model = ScriptedChat(ChatReply(say()[:30], "length", 10, 5), say())
    observe(model, temperature=0.7, max_tokens=77)
    assert {(request.temperature, request.max_tokens) for request in model.requests} == {(0.7, 77)}
    assert "cut off: be brief" in model.requests[1].messages[-1].content


def test_the_same_seed_and_calls_ask_the_same() -> None:
    def requests(seed: int) -> list[object]:
        model = ScriptedChat(say())
        observe(model, CALL, CALL, seed=seed)
        return list(model.requests)

    assert requests(1) == requests(1)
    assert requests(1) != requests(2)


def test_a_trajectory_records_what_its_emulator_did() -> None:
    model = ScriptedChat(ChatReply(say({"done": 1}), "stop", 10, 5))
    trajectory = act(ScriptedChat(switch(), final()), emulator(model, max_revisions=1))  # type: ignore[arg-type]
    assert trajectory.emulator == "world"
    assert "'done'" in trajectory.steps[0].observation_problem
    assert trajectory.emulator_use is not None and trajectory.emulator_use.calls == 2
    assert trajectory.agent_use is not None and trajectory.agent_use.calls == 2


def test_an_emulator_that_fails_ends_the_trajectory_as_that() -> None:
    trajectory = act(ScriptedChat(switch()), emulator(ScriptedChat(ModelError("no"))))  # type: ignore[arg-type]
    assert trajectory.stop_reason is StopReason.model_error
    assert "emulator world: ModelError: no" in trajectory.error


@pytest.mark.parametrize(
    ("observation", "problem"),
    [
        ({"success": True}, ""),
        ({"success": None}, ""),
        ({"error": "NotFoundException: no such lamp"}, ""),
        ({"error": 1}, "'error'"),
        ({"success": "yes"}, "type boolean"),
        ({}, "lacks"),
        ({"success": True, "more": 1}, "'more'"),
    ],
)
def test_observations_are_held_to_the_specification(observation: dict[str, object], problem: str) -> None:
    problems = observation_problems(json.dumps(observation), TOOLS["LightsSwitch"])
    assert bool(problems) is bool(problem)
    assert problem in " ".join(problems)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), PROSE, PROSE, PROSE)
def test_any_object_is_read_as_it_was_written(value: dict[str, object], before: str, summary: str, after: str) -> None:
    for written in (json.dumps(value), f"```json\n{json.dumps(value, indent=1)}\n```"):
        read = read_observation(f"Reasoning: {before}\nSummary: {summary}\n**Observation:** {written}\n{after}")
        assert read.observation is not None
        assert json.loads(read.observation) == value
        assert read.summary == summary.strip()


@pytest.mark.parametrize(
    "text",
    [
        "Summary: s\nObservation: {'success': True}",
        'Summary: s\nObservation: {"success": true,}',
        'Log_Summary：s\nobservation 1： {"success": true}',
        '## Summary\ns\n## Observation\n```python\n{"success": True}\n```',
        'Summary: s\nObservation: "{\\"success\\": true}"',
        "**Summary** s\n**Observation**\n“{“success”: true}”",
        'Summary: s\nObservation: none yet\nObservation: {"success": true} # done',
    ],
)
def test_an_observation_is_read_in_the_forms_that_models_use(text: str) -> None:
    read = read_observation(text)
    assert read.observation is not None
    assert (read.summary, json.loads(read.observation)) == ("s", {"success": True})


def test_without_the_keyword_the_only_object_is_the_observation() -> None:
    assert read_observation('It gives {"success": true}.').observation == '{"success": true}'
    assert read_observation('Of {"success": true} and {"success": false} one.').observation is None


def test_a_line_of_an_observation_is_no_observation() -> None:
    text = 'Summary: s\nObservation: {"log": "first\nObservation: {}\nSummary: x"}'
    read = read_observation(text)
    assert read.observation is not None
    assert (read.summary, json.loads(read.observation)) == ("s", {"log": "first\nObservation: {}\nSummary: x"})


@given(st.text())
def test_nothing_that_is_written_breaks_the_reading(text: str) -> None:
    read = read_observation(text)
    assert read.observation is None or isinstance(json.loads(read.observation), dict)


@pytest.mark.parametrize("piece", ["{", "Observation:", "\nObservation:\n", '\nObservation: {"a": ', "\nSummary: x"])
def test_reading_takes_time_in_proportion_to_the_text(piece: str) -> None:
    started = time.perf_counter()
    read_observation(piece * (100_000 // len(piece)))
    assert time.perf_counter() - started < 2
