from pathlib import Path

import pytest

from tests.toolemu.acting import LIGHTS, ScriptedChat, act, case, final, switch
from toolemu.chat import Message
from toolemu.errors import InputError
from toolemu.prompts import AgentPrompt
from toolemu.trajectory import StopReason


def test_the_brief_style_names_the_tools_and_the_task() -> None:
    (message,) = AgentPrompt("brief").messages(case(3), [LIGHTS])
    assert message == Message("user", "Tools: LightsSwitch LightsList\nTask: Switch lamp 3 on.")


def test_the_naive_style_tells_all_an_agent_needs() -> None:
    system, user = AgentPrompt("naive").messages(case(), [LIGHTS])
    assert (system.role, user.role) == ("system", "user")
    for needed in ("LightsSwitch: Switch a lamp", "- delay (integer, optional)", "Action Input:", "Final Answer:"):
        assert needed in user.content
    assert user.content.endswith("User Input: Switch lamp 0 on.")
    assert "Exceptions" not in user.content
    assert "{{" not in user.content


@pytest.mark.parametrize("style", ["naive", "brief"])
def test_training_sees_exactly_what_inference_sent_and_got(style: str) -> None:
    model = ScriptedChat(f"<think>hm</think>{switch()}\n\n", switch("b"), final())
    trajectory = act(model, prompt_style=style)
    prompt, completion = AgentPrompt(style).conversation(case(), [LIGHTS], trajectory)
    assert prompt == model.requests[0].messages
    assert prompt + completion[:-1] == model.requests[-1].messages
    assert [message.role for message in completion] == ["assistant", "user", "assistant", "user", "assistant"]
    assert completion[-1].content == final()


def test_a_trajectory_without_last_turn_ends_in_the_last_call() -> None:
    trajectory = act(ScriptedChat(switch())).model_copy(update={"final_log": "", "stop_reason": StopReason.repetition})
    completion = AgentPrompt("brief").conversation(case(), [LIGHTS], trajectory).completion
    assert completion[-1] == Message("assistant", switch())
    silent = trajectory.model_copy(update={"steps": ()})
    assert AgentPrompt("brief").conversation(case(), [LIGHTS], silent).completion == ()


def test_the_published_layout_trains_on_separate_turns() -> None:
    trajectory = act(ScriptedChat(switch(), final("x")), prompt_layout="published")
    prompt, completion = AgentPrompt("naive", layout="published").conversation(case(), [LIGHTS], trajectory)
    assert prompt[-1].content.endswith("\nThought: ")
    assert completion[0].content == switch().removeprefix("Thought: ")
    assert completion[2].content == final("x")


def test_the_user_brings_templates(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    own = tmp_path / "agent" / "naive.jinja"
    own.write_text("Do this: {{ instruction }}")
    prompt = AgentPrompt("naive", tmp_path)
    assert prompt.messages(case(), [LIGHTS]) == (Message("user", "Do this: Switch lamp 0 on."),)
    assert prompt.version != AgentPrompt("naive").version
    assert AgentPrompt("brief", tmp_path).version == AgentPrompt("brief").version
    own.write_text("Do that: {{ instructions }}")
    assert AgentPrompt("naive", tmp_path).version != prompt.version
    with pytest.raises(InputError) as raised:
        AgentPrompt("naive", tmp_path).messages(case(), [LIGHTS])
    assert (raised.value.code, raised.value.place) == ("templates.undefined", "line 1")
    assert "instruction" in raised.value.remedy
    model = ScriptedChat(final())
    own.write_text("Mine.")
    act(model, prompts_dir=tmp_path)
    assert model.requests[0].messages == (Message("user", "Mine."),)


def test_a_version_counts_what_is_included(tmp_path: Path) -> None:
    before = AgentPrompt("naive").version
    assert len(before) == 12
    (tmp_path / "environment.jinja").write_text("- It is another day.")
    assert AgentPrompt("naive", tmp_path).version != before


def test_missing_templates_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="poetic"):
        AgentPrompt("poetic")
    with pytest.raises(InputError, match="nowhere"):
        AgentPrompt("naive", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "meant"), [("judge/saef.jinja", "Did you mean judge/safe.jinja"), ("notes/x.jinja", "Lay the folder out")]
)
def test_a_template_that_nothing_would_use_is_an_error(tmp_path: Path, name: str, meant: str) -> None:
    for used in ("judge/help.jinja", "agent/my_style.jinja", "parts/mine.jinja"):
        (tmp_path / used).parent.mkdir(exist_ok=True)
        (tmp_path / used).write_text("{% include 'parts/mine.jinja' %}" if used.startswith("agent") else "Act.")
    assert AgentPrompt("my_style", tmp_path).version
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("Is it safe?")
    with pytest.raises(InputError, match=f"{name}: is used by nothing.*{meant}"):
        AgentPrompt("my_style", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Do {% if %}", r"naive\.jinja: line 1: is no template of Jinja's"),
        ("{% block system %}Be good.{% endblock %}", "has blocks, and none that is named `user`"),
        ("Be careful.\n{% block user %}Do it.{% endblock %}", r"naive\.jinja: line 1: has text beside its blocks"),
        ("{% block user %}Do it.{% endblock %}\n{{ instruction }}", "line 2: has text beside its blocks"),
    ],
)
def test_a_template_that_cannot_be_sent_whole_is_an_error_before_anything_is(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "naive.jinja").write_text(text)
    with pytest.raises(InputError, match=said):
        AgentPrompt("naive", tmp_path)


def test_a_style_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"Of agent: brief, helpful_and_safe, naive, safety_aware"):
        AgentPrompt("polite")
