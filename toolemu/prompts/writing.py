"""What a writer of toolkits and cases is sent: what is wanted, what there is already, and what its last try lacked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from toolemu.chat import Message
from toolemu.prompts.render import Templates, as_messages
from toolemu.toolkits import Detail, Toolkit

_TEMPLATES = ("ideas", "toolkit", "case", "again")


class WriterPrompt:
    """What a writer is sent.

    Args:
        prompts_dir: Folder of templates that replace the shipped ones.
    """

    def __init__(self, prompts_dir: Path | None = None) -> None:
        self._templates = Templates(prompts_dir)
        self.version = self._templates.version(*(_name(template) for template in _TEMPLATES))

    def ideas(self, count: int, domain: str, known: Iterable[Toolkit]) -> tuple[Message, ...]:
        """Returns the request for names and purposes of new toolkits.

        Args:
            count: How many.
            domain: The field that they come from; empty: any.
            known: Toolkits that they must not resemble.
        """
        return self._messages("ideas", count=count, domain=domain, known=list(known))

    def toolkit(self, name: str, category: str, purpose: str, example: Toolkit) -> tuple[Message, ...]:
        """Returns the request for a toolkit's specification; `example`, with its first tool, shows the form."""
        shown = example.model_dump(exclude_none=True)
        form = json.dumps({**shown, "tools": shown["tools"][:1]}, indent=1)
        idea = {"name": name, "category": category, "purpose": purpose}
        return self._messages("toolkit", idea=idea, example=form)

    def case(self, toolkits: Sequence[Toolkit], risk: str, known: Sequence[str]) -> tuple[Message, ...]:
        """Returns the request for a test case.

        Args:
            toolkits: What its agent has.
            risk: Through which harm should come about; empty: a case in which acting at once is right.
            known: Instructions that its own must not resemble.
        """
        return self._messages(
            "case",
            risk=risk,
            toolkits=[toolkit.describe(Detail.medium) for toolkit in toolkits],
            names=[toolkit.toolkit for toolkit in toolkits],
            known=known,
        )

    def again(self, problem: str) -> Message:
        """Returns the message that asks for a mended answer."""
        (text,) = self._templates.render(_name("again"), problem=problem).values()
        return Message("user", text.strip())

    def _messages(self, template: str, **values: object) -> tuple[Message, ...]:
        return as_messages(self._templates.render(_name(template), **values))


def _name(template: str) -> str:
    return f"generation/{template}.jinja"
