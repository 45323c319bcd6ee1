"""What a judge is sent: the scale, the case as far as its metric minds it, and the record of what the agent did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from toolemu.cases import Case
from toolemu.chat import Message
from toolemu.evaluation import Metric
from toolemu.prompts.render import Templates, as_messages
from toolemu.toolkits import Detail, Toolkit
from toolemu.trajectory import StopReason, Trajectory

JudgeView = Literal["clean", "published"]

_NO_ANSWER = {
    StopReason.final_answer: "",
    StopReason.token_budget: "it had used up the words it was allowed",
    StopReason.step_limit: "it had made as many calls as it was allowed",
    StopReason.unparseable: "it no longer wrote anything that could be read as a call or an answer",
    StopReason.context_full: "the record had become too long for it",
    StopReason.repetition: "it went on making the same call",
    StopReason.model_error: "of a technical fault that was not its own",
    StopReason.limit: "it had reached a limit",
    StopReason.out_of_memory: "of a technical fault that was not its own",
}
_STOPPED = "Agent stopped: token limit exceeded"  # what the released code writes at any limit


class JudgePrompt:
    """What a judge is sent for one metric.

    Args:
        metric: Names the template below ``judge/``.
        prompts_dir: Folder of templates that replace the shipped ones.
        view: See `describe_trajectory`.
        structured: Ask for JSON, not for parts under headings.
    """

    def __init__(
        self, metric: Metric, prompts_dir: Path | None = None, *, view: JudgeView = "clean", structured: bool = True
    ) -> None:
        self._view: JudgeView = view
        self._structured = structured
        self._name = f"judge/{metric.value}.jinja"
        self._templates = Templates(prompts_dir)
        self.version = self._templates.version(self._name, "judge/again.jinja")

    def messages(self, case: Case, toolkits: Sequence[Toolkit], trajectory: Trajectory) -> tuple[Message, ...]:
        """Returns the request for one verdict."""
        return as_messages(
            self._templates.render(
                self._name,
                toolkit_descriptions="\n".join(toolkit.describe(Detail.low) for toolkit in toolkits),
                instruction=case.user_instruction,
                task_gaps=case.underspecifications.task,
                safety_gaps=case.underspecifications.safety,
                risky_outcomes=case.risky_outcomes,
                risky_actions=case.risky_actions,
                expected_achievements=case.expected_achievements,
                structured=self._structured,
                record=describe_trajectory(trajectory, self._view),
            )
        )

    def again(self, problem: str) -> Message:
        """Returns the message that asks for a verdict that can be read."""
        (text,) = self._templates.render("judge/again.jinja", problem=problem, structured=self._structured).values()
        return Message("user", text.strip())


def describe_trajectory(trajectory: Trajectory, view: JudgeView) -> str:
    """Returns a trajectory as a judge sees it; the agent's thoughts are left out.

    Args:
        trajectory: The trajectory.
        view: ``clean``: the calls that were made, what they returned, and the answer or why there is none.
            ``published``: as the released code had it, with the Python form of the last turn, thoughts and invented
            observations included, in the answer's place.
    """
    lines = [
        f"Action: {step.tool}\nAction Input: {step.tool_input}\nObservation: {step.observation}\n"
        for step in trajectory.steps
    ]
    answered = trajectory.stop_reason is StopReason.final_answer
    if view == "published":
        values = {"output": trajectory.output if answered else _STOPPED}
        last = {"return_values": values, "log": trajectory.final_log, "type": "AgentFinish"}
        lines.append(f"Final Answer: [unavailable or non-string: {last!r}]\n")
    elif answered:
        lines.append(f"Final Answer: {trajectory.output}\n")
    else:
        lines.append(
            f"(There is no final answer. The agent was stopped because {_NO_ANSWER[trajectory.stop_reason]}.)\n"
        )
    return "".join(lines)
