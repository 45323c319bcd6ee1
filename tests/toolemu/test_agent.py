import asyncio
import json

import pytest
from pydantic import ValidationError

from tests.toolemu.acting import EchoEmulator, ScriptedChat, act, final, switch
from toolemu.agent import AgentSettings
from toolemu.chat import ChatReply, ContextFullError, Message, ModelError
from toolemu.seeds import derive_seed
from toolemu.trajectory import ObservationSource, StopReason, trajectory_id


def test_an_agent_calls_a_tool_sees_the_result_and_answers() -> None:
    model, emulator = ScriptedChat(switch(), final("The lamp is on.")), EchoEmulator()
    trajectory = act(model, emulator)
    assert trajectory.stop_reason is StopReason.final_answer
    assert trajectory.output == "The lamp is on."
    assert trajectory.final_log == final("The lamp is on.")
    assert trajectory.trajectory_id == trajectory_id("test", "tester", None, 0, 0)
    assert (trajectory.emulator, trajectory.error, trajectory.reprompts, trajectory.self_observed) == ("echo", "", 0, 0)
    (step,) = trajectory.steps
    assert (step.log, step.tool, step.tool_input) == (switch(), "LightsSwitch", '{"lamp": "a", "on": true}')
    assert (step.observation, step.observation_source) == ('{"success": true, "call": 1}', ObservationSource.emulator)
    assert (step.emulator_summary, step.emulator_log) == ("echoed", "raw")
    assert model.requests[1].messages[-2:] == (
        Message("assistant", switch()),
        Message("user", f"Observation: {step.observation}"),
    )
    assert trajectory.agent_tokens == len(switch().split()) + len(final("The lamp is on.").split())


def test_an_invalid_call_is_answered_without_the_emulator() -> None:
    emulator = EchoEmulator()
    trajectory = act(ScriptedChat("Action: Nothing\nAction Input: {}", final()), emulator)
    assert emulator.calls == []
    assert trajectory.steps[0].observation_source is ObservationSource.validation
    assert "Nothing" in trajectory.steps[0].observation


INVENTED = switch() + "\nObservation: {}\n" + final("I made it up.")


def test_an_invented_observation_is_cut_off_and_flagged_even_if_the_server_does_not_stop() -> None:
    model = ScriptedChat(INVENTED, final("True."))
    trajectory = act(model)
    assert model.requests[0].stop
    assert (trajectory.output, trajectory.steps[0].log) == ("True.", switch())
    assert trajectory.steps[0].self_observed
    assert not trajectory.final_self_observed
    assert trajectory.self_observed == 1


def test_without_stops_the_published_behaviour_is_kept_and_flagged() -> None:
    model, emulator = ScriptedChat(INVENTED), EchoEmulator()
    trajectory = act(model, emulator, stop_at_observation=False)
    assert model.requests[0].stop == ()
    assert (trajectory.output, trajectory.steps, emulator.calls) == ("I made it up.", (), [])
    assert trajectory.final_log == INVENTED
    assert trajectory.final_self_observed


def test_without_stops_a_call_is_made_and_the_whole_turn_kept() -> None:
    turn = switch() + "\nObservation: {}\nThought: on I go"
    trajectory = act(ScriptedChat(turn, final()), stop_at_observation=False)
    assert trajectory.steps[0].log == turn
    assert trajectory.steps[0].self_observed


def test_a_numbered_round_is_cut_off_too() -> None:
    turn = 'Thought 1: I switch it.\nAction 1: LightsSwitch\nAction Input 1: {"lamp": "a", "on": true}'
    trajectory = act(ScriptedChat(f"{turn}\nObservation 1: {{}}\nThought 2: So.\nFinal Answer: Mine.", final("True.")))
    assert (trajectory.output, trajectory.steps[0].log, trajectory.self_observed) == ("True.", turn, 1)


def test_an_answer_is_whole_and_flagged_only_if_it_goes_on_with_a_round() -> None:
    answer = "I read the log.\n\n### Observations:\n- It failed at three.\n\nShall I close it?"
    trajectory = act(ScriptedChat(final(answer)))
    assert (trajectory.output, trajectory.self_observed) == (answer, 0)
    answer = 'It is on.\nObservation: {"success": true}\nFinal Answer: It is on, says the tool.'
    trajectory = act(ScriptedChat(final(answer)))
    assert (trajectory.output, trajectory.self_observed) == (answer, 1)


def test_what_is_left_of_a_stop_is_no_answer() -> None:
    trajectory = act(ScriptedChat(final("It is on.\nObserv")))
    assert (trajectory.output, trajectory.final_log) == ("It is on.", final("It is on."))


NOTE = "Visit\nObservation: the pump failed\nEnd"


def noted(text: str) -> str:
    return f'Thought: I write.\nAction: LightsSwitch\nAction Input: {{"lamp": "{text}", "on": true}}'


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_argument_at_which_a_server_stopped_goes_on_without_stops(temperature: float) -> None:
    begun, rest = noted(NOTE).split("\nObservation", 1)
    model = ScriptedChat(ChatReply(begun, "stop", 1, 9), f"\nObservation{rest}", final())
    trajectory = act(model, temperature=temperature)
    assert [bool(request.stop) for request in model.requests] == [True, False, True]
    assert json.loads(trajectory.steps[0].tool_input)["lamp"] == NOTE
    assert (trajectory.steps[0].log, trajectory.self_observed) == (noted(NOTE), 0)


def test_an_argument_that_does_not_go_on_is_refused_as_it_is() -> None:
    begun = noted("a").split('a", "on"')[0]
    trajectory = act(ScriptedChat(begun, "", final("No.")))
    assert (trajectory.output, trajectory.reprompts) == ("No.", 1)
    assert trajectory.steps[0].observation_source is ObservationSource.validation


def test_a_space_at_which_an_argument_was_cut_off_is_kept() -> None:
    begun, rest = noted("a b")[:-15], noted("a b")[-15:]
    assert begun.endswith("a ")
    trajectory = act(ScriptedChat(ChatReply(begun, "length", 1, 9), ChatReply(rest, "stop", 1, 9), final()))
    assert json.loads(trajectory.steps[0].tool_input)["lamp"] == "a b"


def test_reasoning_within_an_argument_is_no_part_of_it() -> None:
    begun, rest = noted("a <think> b")[:-14], noted("a <think> b")[-14:]
    reply = ChatReply(rest, "stop", 1, 9, reasoning="Where was I?")
    trajectory = act(ScriptedChat(ChatReply(begun, "length", 1, 9), reply, final()))
    assert json.loads(trajectory.steps[0].tool_input)["lamp"] == "a <think> b"
    assert trajectory.steps[0].log.startswith("<think>\nWhere was I?\n</think>\nThought: I write.")


def test_what_follows_a_call_in_the_same_turn_is_dropped() -> None:
    trajectory = act(ScriptedChat(switch() + "\nFinal Answer: done before it began", final("Now done.")))
    assert (trajectory.steps[0].log, trajectory.output) == (switch(), "Now done.")


def test_thinking_is_recorded_but_not_shown_again() -> None:
    model = ScriptedChat(f"<think>Final Answer: hm\nObservation: x</think>{switch()}", final())
    trajectory = act(model)
    assert trajectory.steps[0].log.startswith("<think>")
    assert not trajectory.steps[0].self_observed
    assert model.requests[1].messages[-2] == Message("assistant", switch())


def test_an_answer_that_uses_up_the_budget_is_an_answer() -> None:
    trajectory = act(ScriptedChat(ChatReply(final(), "stop", 1, 50)), token_budget=50)
    assert trajectory.stop_reason is StopReason.final_answer


def test_an_answer_that_was_cut_off_is_an_answer_and_says_so() -> None:
    whole, cut = (act(ScriptedChat(ChatReply(final("On the"), reason, 1, 9))) for reason in ("stop", "length"))  # type: ignore[arg-type]
    assert (whole.output, whole.final_cut_off) == ("On the", False)
    assert (cut.output, cut.stop_reason, cut.final_cut_off) == ("On the", StopReason.final_answer, True)


def test_the_budget_ends_the_trajectory_after_the_last_call_it_paid_for() -> None:
    model = ScriptedChat(*(ChatReply(switch(lamp), "stop", 1, 30) for lamp in "abcd"))
    trajectory = act(model, token_budget=80, max_tokens_per_turn=40)
    assert trajectory.stop_reason is StopReason.token_budget
    assert [request.max_tokens for request in model.requests] == [40, 40, 20]
    assert len(trajectory.steps) == 3
    assert trajectory.agent_tokens == 90


def test_a_turn_cut_off_by_the_budget_is_no_format_error() -> None:
    trajectory = act(ScriptedChat(ChatReply("Thought: I", "length", 1, 20)), token_budget=20, max_reprompts=0)
    assert trajectory.stop_reason is StopReason.token_budget
    trajectory = act(ScriptedChat(ChatReply("Thought: I", "length", 1, 20)), token_budget=20, max_reprompts=2)
    assert trajectory.stop_reason is StopReason.token_budget
    assert trajectory.final_log == "Thought: I"


def test_one_call_more_than_allowed_is_not_made() -> None:
    emulator = EchoEmulator()
    trajectory = act(ScriptedChat(switch()), emulator, max_steps=2)
    assert trajectory.stop_reason is StopReason.step_limit
    assert len(emulator.calls) == len(trajectory.steps) == 2
    assert trajectory.final_log == switch()


def test_after_the_last_call_there_is_still_an_answer() -> None:
    assert act(ScriptedChat(switch(), final()), max_steps=1).stop_reason is StopReason.final_answer


def test_the_same_call_and_observation_over_and_over_ends_the_trajectory() -> None:
    trajectory = act(ScriptedChat(switch()), EchoEmulator(constant=True), max_repeats=3)
    assert trajectory.stop_reason is StopReason.repetition
    assert len(trajectory.steps) == 3
    # The echo counts its calls: other observations are no repetition.
    assert act(ScriptedChat(switch()), max_repeats=3, max_steps=5).stop_reason is StopReason.step_limit


def test_chatter_is_asked_again_with_another_seed_and_then_given_up() -> None:
    model = ScriptedChat("Hello!")
    trajectory = act(model, temperature=1.0, max_reprompts=2)
    assert trajectory.stop_reason is StopReason.unparseable
    assert (trajectory.reprompts, trajectory.final_log, trajectory.output) == (2, "Hello!", "")
    assert len({request.seed for request in model.requests}) == 3
    assert len({request.messages for request in model.requests}) == 1


def test_a_greedy_model_goes_on_with_its_text() -> None:
    model = ScriptedChat("Thought: I look.", "\nFinal Answer: found", final())
    trajectory = act(model)
    assert model.requests[1].messages[-1] == Message("assistant", "Thought: I look.")
    assert (trajectory.output, trajectory.final_log) == ("found", "Thought: I look.\nFinal Answer: found")
    assert trajectory.reprompts == 1


def test_a_greedy_model_with_nothing_to_add_is_not_asked_for_ever() -> None:
    model = ScriptedChat("Hello!", "")
    trajectory = act(model, max_reprompts=9)
    assert (trajectory.stop_reason, trajectory.reprompts, len(model.requests)) == (StopReason.unparseable, 1, 2)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_turn_that_was_too_long_goes_on_where_it_was_cut(temperature: float) -> None:
    model = ScriptedChat(ChatReply(switch()[:-8], "length", 1, 9), ChatReply(switch()[-8:], "stop", 1, 2), final())
    trajectory = act(model, temperature=temperature)
    assert trajectory.steps[0].log == switch()
    assert trajectory.reprompts == 1


def test_a_server_that_stops_at_a_thought_of_observation_is_asked_to_go_on_without_stops() -> None:
    model = ScriptedChat("<think>First", f"\nObservation: maybe</think>{final('Yes.')}")
    trajectory = act(model, temperature=1.0)
    assert [bool(request.stop) for request in model.requests] == [True, False]
    assert trajectory.output == "Yes."


def test_an_observation_before_any_call_is_asked_again() -> None:
    trajectory = act(ScriptedChat("Thought: hm\nObservation: {}\n" + final("no"), final("yes")), temperature=1.0)
    assert (trajectory.output, trajectory.reprompts) == ("yes", 1)


def test_a_full_context_and_a_final_refusal_end_the_trajectory() -> None:
    trajectory = act(ScriptedChat(switch(), ContextFullError("4096 of 4096")))
    assert (trajectory.stop_reason, len(trajectory.steps)) == (StopReason.context_full, 1)
    trajectory = act(ScriptedChat(switch(), ModelError("content filter")))
    assert trajectory.stop_reason is StopReason.model_error
    assert trajectory.error == "ModelError: content filter"


@pytest.mark.parametrize("error", [ModelError("refused"), ContextFullError("too long")])
def test_an_emulator_that_cannot_answer_ends_the_trajectory_under_its_own_name(error: Exception) -> None:
    trajectory = act(ScriptedChat(switch()), EchoEmulator(fault=error))
    assert (trajectory.stop_reason, trajectory.steps) == (StopReason.model_error, ())
    assert trajectory.error.startswith("emulator echo: ")
    assert trajectory.final_log == switch()


@pytest.mark.parametrize(
    "error", [ValueError("bug"), ConnectionError("down"), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_other_faults_are_not_taken_for_the_agents(error: BaseException) -> None:
    with pytest.raises(type(error)):
        act(ScriptedChat(error))


def test_every_request_has_a_seed_of_its_own_that_depends_on_the_trajectory_alone() -> None:
    def seeds(**identity: object) -> list[int]:
        model = ScriptedChat(switch("a"), "chatter", switch("b"), final())
        act(model, temperature=1.0, **identity)
        return [request.seed for request in model.requests]

    first, again, other = seeds(), seeds(), seeds(sample=1)
    assert first == again
    assert len({*first, *other, *seeds(agent="b")}) == 12
    assert all(0 <= seed < 2**31 for seed in first)


def test_all_agents_meet_the_same_world_and_samples_meet_others() -> None:
    def world(**identity: object) -> int:
        emulator = EchoEmulator()
        act(ScriptedChat(final()), emulator, **identity)
        return emulator.seeds[0]

    assert world() == world(agent="other") == derive_seed("test", 0, 0)
    assert world() != world(sample=1)


def test_half_a_character_does_not_break_the_record() -> None:
    trajectory = act(ScriptedChat(final("\ud83d")))
    assert trajectory.model_dump_json()


def test_the_published_layout_grows_one_message() -> None:
    model = ScriptedChat(f" {switch()[9:]}", final())
    act(model, prompt_layout="published")
    assert [message.role for message in model.requests[1].messages] == ["system", "user"]
    assert model.requests[0].messages[1].content.endswith("\nThought: ")
    assert (
        model.requests[1]
        .messages[1]
        .content.endswith(f'{switch()}\nObservation: {{"success": true, "call": 1}}\nThought: ')
    )


def test_settings_are_checked_and_explained() -> None:
    with pytest.raises(ValidationError):
        AgentSettings(max_stps=3)
    with pytest.raises(ValidationError):
        AgentSettings(prompt_style="../secret")
    assert all(field.description for field in AgentSettings.model_fields.values())
