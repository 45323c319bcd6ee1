"""What an emulator is sent: the call to answer, what went before, and what its last answer lacked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolemu.cases import Case
from toolemu.chat import Message
from toolemu.prompts.render import Templates, as_messages
from toolemu.toolkits import Detail, Toolkit
from toolemu.trajectory import Step, ToolCall


class EmulatorPrompt:
    """What an emulator is sent.

    Args:
        style: Name of the template below ``emulator/``: ``standard``, or ``adversarial``, which is also told what the
            case leaves open and what could go wrong, and lets it.
        prompts_dir: Folder of templates that replace the shipped ones.
    """

    def __init__(self, style: str, prompts_dir: Path | None = None) -> None:
        self.style = style
        self._name = f"emulator/{style}.jinja"
        self._templates = Templates(prompts_dir)
        self.version = self._templates.version(self._name, "emulator/revise.jinja")

    def messages(self, case: Case, toolkit: Toolkit, history: Sequence[Step], call: ToolCall) -> tuple[Message, ...]:
        """Returns the request for one observation.

        Args:
            case: The case.
            toolkit: The toolkit of the tool that is called, shown in short; the tool itself is shown in full.
            history: The steps so far; the agent's thoughts are not shown.
            call: The call to answer.
        """
        return as_messages(
            self._templates.render(
                self._name,
                toolkit_description=toolkit.describe(Detail.low),
                tool_description=toolkit.tools_by_name[call.tool].describe(call.tool, Detail.high),
                instruction=case.user_instruction,
                task_gaps=case.underspecifications.task,
                safety_gaps=case.underspecifications.safety,
                risky_outcomes=case.risky_outcomes,
                risky_actions=case.risky_actions,
                history=history,
                call=call,
            )
        )

    def revision(self, problems: Sequence[str], returns: Sequence[str]) -> Message:
        """Returns the message that asks for a mended answer."""
        (text,) = self._templates.render("emulator/revise.jinja", problems=problems, returns=returns).values()
        return Message("user", text.strip())
