"""Every shipped prompt against the text that was read and found good; ``UPDATE_GOLDEN=1`` writes it anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.toolemu.acting import LIGHTS, ScriptedChat, act, case, final, switch
from toolemu import prompts
from toolemu.cases import Case, load_cases
from toolemu.chat import Message
from toolemu.evaluation import Metric
from toolemu.prompts import AgentPrompt, EmulatorPrompt, JudgePrompt, Templates, WriterPrompt, describe_trajectory
from toolemu.toolkits import Toolkit, load_toolkits, tools_of
from toolemu.trajectory import Step, StopReason, ToolCall, Trajectory

GOLDEN = Path(__file__).parent / "golden"
SHIPPED = Path(__file__).parents[3] / "assets_data"
PROMPTS = Path(prompts.__file__).parent
AGENT_STYLES = ("naive", "safety_aware", "helpful_and_safe", "brief")
EMULATOR_STYLES = ("standard", "adversarial")
CALL = ToolCall("LightsSwitch", '{"lamp": "a", "on": true}')
EARLIER = Step(log="?", tool="LightsList", tool_input="{}", observation='{"lamps": 2}', emulator_summary="Two lamps.")


def acted() -> Trajectory:
    return act(ScriptedChat(switch(thought="A secret."), final("It is on.")))


RENDERINGS: dict[str, Callable[[], Sequence[Message]]] = {
    **{f"agent_{style}": lambda style=style: AgentPrompt(style).messages(case(), [LIGHTS]) for style in AGENT_STYLES},
    **{
        f"emulator_{style}": lambda style=style: EmulatorPrompt(style).messages(case(), LIGHTS, [EARLIER], CALL)
        for style in EMULATOR_STYLES
    },
    "agent_naive_published": lambda: AgentPrompt("naive", layout="published").messages(case(), [LIGHTS], [EARLIER]),
    "emulator_revise": lambda: [EmulatorPrompt("standard").revision(["it is no JSON"], ["success (boolean)"])],
    **{
        f"judge_{metric}_{'json' if structured else 'text'}": lambda metric=metric, structured=structured: JudgePrompt(
            metric, structured=structured
        ).messages(case(), [LIGHTS], acted())
        for metric in Metric
        for structured in (True, False)
    },
    "judge_safe_published": lambda: JudgePrompt(Metric.safe, view="published").messages(case(), [LIGHTS], acted()),
    "judge_again_json": lambda: [JudgePrompt(Metric.safe).again("it has no score")],
    "judge_again_text": lambda: [JudgePrompt(Metric.safe, structured=False).again("it has no score")],
    "generation_ideas": lambda: WriterPrompt().ideas(3, "farming", [LIGHTS]),
    "generation_toolkit": lambda: WriterPrompt().toolkit("Bee Keeper", "Farming", "Watches hives.", LIGHTS),
    "generation_case_risky": lambda: WriterPrompt().case([LIGHTS], "It gets dark.", [case().user_instruction]),
    "generation_case_plain": lambda: WriterPrompt().case([LIGHTS], "", [case().user_instruction]),
    "generation_again": lambda: [WriterPrompt().again("it holds no JSON object")],
}


@pytest.mark.parametrize("name", RENDERINGS)
def test_a_prompt_is_as_it_was_read(name: str) -> None:
    text = "".join(f"=== {message.role}\n{message.content}\n" for message in RENDERINGS[name]())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_shipped_prompt_is_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = set[str]()
    render = Templates.render

    def watched(self: Templates, name: str, **values: object) -> dict[str, str]:
        rendered.add(name)
        return render(self, name, **values)

    monkeypatch.setattr(Templates, "render", watched)
    for rendering in RENDERINGS.values():
        rendering()
    shipped = {path.relative_to(PROMPTS) for path in PROMPTS.glob("*/*.jinja")}  # what is deeper is a part of others
    assert rendered == {str(path) for path in shipped}


def render_all(cases: Sequence[Case], toolkits: dict[str, Toolkit]) -> int:
    """Renders every prompt for every case, toolkit and tool that it is about; returns how many."""
    agents = [AgentPrompt(style, layout=layout) for style in AGENT_STYLES for layout in ("turns", "published")]
    emulators = [EmulatorPrompt(style) for style in EMULATOR_STYLES]
    views = [("clean", True), ("clean", False), ("published", True)]
    judges = [JudgePrompt(metric, view=view, structured=json) for metric in Metric for view, json in views]
    trajectory, writer, count = acted(), WriterPrompt(), 0

    def check(messages: Sequence[Message], *shown: str) -> None:
        nonlocal count
        count += 1
        assert all(text in messages[-1].content for text in shown)
        assert not any(mark in message.content for message in messages for mark in ("{{", "{%", "{#"))

    for one in cases:
        own = [toolkits[name] for name in one.toolkits]
        for agent in agents:
            check(agent.messages(one, own, [EARLIER])[:2], *(() if agent.style == "brief" else tools_of(own)))
            check(agent.messages(one, own), one.user_instruction)
        for judge in judges:
            check(judge.messages(one, own, trajectory), one.user_instruction)
        for toolkit in own:
            for tool in toolkit.tools_by_name:
                for emulator in emulators:
                    check(emulator.messages(one, toolkit, [EARLIER], ToolCall(tool, "{}")), one.user_instruction, tool)
            check(writer.case(own, "It gets dark.", [one.user_instruction]), one.user_instruction, *one.toolkits)
            check(writer.case(own, "", [one.user_instruction]), one.user_instruction, *one.toolkits)
    for toolkit in toolkits.values():
        check(writer.ideas(3, "", [toolkit]), toolkit.description_for_human)
        check(writer.toolkit("A", "B", "C", toolkit), toolkit.tools[0].name)
        for risk in toolkit.risks:
            check(writer.case([toolkit], risk, []), risk)
        for tool_ in toolkit.tools:
            returns = [f"{item.name} ({item.type})" for item in tool_.returns]
            check([emulators[0].revision(["it is no JSON"], returns)], *returns)
    return count


def test_every_prompt_renders_for_every_case_of_ours() -> None:
    toolkits = load_toolkits(SHIPPED / "toolkits")
    assert render_all(load_cases(SHIPPED / "cases", toolkits), toolkits) > 2000


def test_every_prompt_renders_for_every_published_case(published_runs: Path) -> None:
    def find(name: str) -> Path:
        return published_runs / name if (published_runs / name).exists() else published_runs / "assets" / name

    toolkits = load_toolkits(find("all_toolkits.json"))
    assert render_all(load_cases(find("all_cases.json"), toolkits), toolkits) > 2000


def test_a_judge_is_shown_what_its_metric_minds_and_no_more() -> None:
    def shown(metric: Metric) -> str:
        return JudgePrompt(metric).messages(case(), [LIGHTS], acted())[-1].content

    assert "It gets dark." in shown(Metric.safe) and "The lamp is on." not in shown(Metric.safe)
    assert "The lamp is on." in shown(Metric.help_safe) and "It gets dark." not in shown(Metric.help_safe)
    assert "The lamp is on." not in shown(Metric.help) and "It gets dark." not in shown(Metric.help)
    assert "A secret." not in shown(Metric.safe)


def test_only_the_adversarial_emulator_knows_what_could_go_wrong() -> None:
    def shown(style: str) -> str:
        return EmulatorPrompt(style).messages(case(), LIGHTS, [], CALL)[-1].content

    assert "It gets dark." in shown("adversarial")
    assert "It gets dark." not in shown("standard")
    assert "The lamp is on." not in shown("adversarial")


@pytest.mark.parametrize("reason", list(StopReason))
def test_a_record_without_answer_says_so(reason: StopReason) -> None:
    trajectory = acted().model_copy(update={"stop_reason": reason, "output": "yes"})
    text = describe_trajectory(trajectory, "clean")
    assert ("Final Answer: yes" in text) is (reason is StopReason.final_answer)
    assert ("There is no final answer" in text) is (reason is not StopReason.final_answer)


def test_the_published_view_is_the_released_codes() -> None:
    step = 'Action: LightsSwitch\nAction Input: {"lamp": "a", "on": true}\nObservation: {"success": true, "call": 1}\n'
    last = {"return_values": {"output": "It is on."}, "log": final("It is on."), "type": "AgentFinish"}
    expected = f"{step}Final Answer: [unavailable or non-string: {last!r}]\n"
    assert describe_trajectory(acted(), "published") == expected


def test_versions_follow_the_text(tmp_path: Path) -> None:
    (tmp_path / "judge" / "parts").mkdir(parents=True)
    (tmp_path / "judge" / "parts" / "system.jinja").write_text("Judge!")
    assert JudgePrompt(Metric.safe, tmp_path).version != JudgePrompt(Metric.safe).version
    assert EmulatorPrompt("standard", tmp_path).version == EmulatorPrompt("standard").version
    versions = {JudgePrompt(metric).version for metric in Metric}
    assert len(versions) == len(Metric)
    (tmp_path / "generation").mkdir()
    (tmp_path / "generation" / "again.jinja").write_text("No: {{ problem }}")
    assert WriterPrompt(tmp_path).version != WriterPrompt().version
