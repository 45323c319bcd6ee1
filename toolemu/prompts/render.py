"""Prompts from templates: what an agent is sent at every turn, and the same text as a training conversation."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jinja2 import Template, TemplateNotFound, TemplateSyntaxError, meta, nodes

from toolemu.cases import Case
from toolemu.chat import Message
from toolemu.errors import FrontierError, InputError
from toolemu.prompts.sandbox import PromptEnvironment, check_folder, template_failure
from toolemu.thinking import strip_thinking
from toolemu.toolkits import Detail, Toolkit, tools_of
from toolemu.trajectory import Step, Trajectory

PromptLayout = Literal["turns", "published"]
OBSERVATION = "Observation: "

_SHIPPED = Path(__file__).parent
_OF_STYLES = ("agent", "emulator")
"""Folders in which a template of a new name is a new style."""


class Conversation(NamedTuple):
    """A trajectory as training sees it.

    Attributes:
        prompt: What the agent was sent before its first turn.
        completion: Its turns and the observations in between, alternating, an assistant's turn first and last. Empty
            if the agent never got to write anything.
    """

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]


class Templates:
    """The templates shipped here, each of which a file of the same name in `prompts_dir` replaces.

    Args:
        prompts_dir: Folder of the user's own templates, laid out like this one; None: only the shipped ones.

    Raises:
        InputError: `prompts_dir` is no folder, holds no template, or one that nothing would use.
    """

    def __init__(self, prompts_dir: Path | None = None) -> None:
        if prompts_dir is not None:
            check_folder(prompts_dir)
        if prompts_dir is not None and not any(prompts_dir.rglob("*.jinja")):
            raise InputError(prompts_dir, "", "is no folder with *.jinja files.", "Lay it out like toolemu/prompts.")
        self._folders = [_SHIPPED] if prompts_dir is None else [prompts_dir, _SHIPPED]
        self._environment = PromptEnvironment(self._folders)
        if prompts_dir is not None:
            self._check_names(prompts_dir)

    def render(self, name: str, **values: object) -> dict[str, str]:
        """Renders one template.

        Returns:
            The text of each of its blocks by name; a template without blocks is all `user`.

        Raises:
            InputError: There is no such template, it names a value that there is not, or it does what the sandbox
                forbids.
        """
        return self._environment.rendered(self._compiled(name), values)

    def version(self, *templates: str) -> str:
        """Returns 12 hex digits of SHA-256 over the texts of templates and of all they include.

        Raises:
            InputError: One is not there or cannot be read, or part of it would never be sent.
        """
        for name in templates:
            self._check_blocks(name)
            self._compiled(name)
        digest = hashlib.sha256()
        names, seen = [*templates], set[str]()
        while names:
            current = names.pop(0)
            if current in seen:
                continue
            seen.add(current)
            source = self._source(current)
            digest.update(source.text.encode())
            names += sorted(filter(None, meta.find_referenced_templates(source.tree)))
        return digest.hexdigest()[:12]

    def _check_names(self, folder: Path) -> None:
        """Refuses a template that is used by nothing: it replaces none, is no style, and no other one includes it."""
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jinja"))
        new = [name for name in names if not (_SHIPPED / name).is_file() and str(Path(name).parent) not in _OF_STYLES]
        if not new:
            return
        included = {part for name in names for part in meta.find_referenced_templates(self._source(name).tree)}
        for name in new:
            if name not in included:
                shipped = sorted(path.relative_to(_SHIPPED).as_posix() for path in _SHIPPED.rglob("*.jinja"))
                close = difflib.get_close_matches(name, shipped, n=1)
                raise InputError(
                    folder / name,
                    "",
                    "is used by nothing: no shipped template has its name, and no other one of the folder includes it.",
                    f"Did you mean {close[0]}?" if close else "Lay the folder out like toolemu/prompts.",
                )

    def _check_blocks(self, name: str) -> None:
        """Raises `InputError` if a template with blocks has no `user`, or text beside its blocks, which nobody sees."""
        source = self._source(name)
        if not source.tree.find(nodes.Block) or source.tree.find(nodes.Extends):
            return
        if "user" not in {block.name for block in source.tree.find_all(nodes.Block)}:
            raise InputError(source.path, "", "has blocks, and none that is named `user`.", "Name one so.")
        for output in source.tree.body:
            if isinstance(output, nodes.Output) and not all(_is_blank(node) for node in output.nodes):
                beside = "has text beside its blocks, which is never sent."
                raise InputError(
                    source.path, f"line {output.lineno}", beside, "Put it into the block `system` or `user`."
                )

    def _source(self, name: str) -> _Source:
        assert self._environment.loader is not None
        path = name
        try:
            text, found, _ = self._environment.loader.get_source(self._environment, name)
            path = found or name
            return _Source(text, path, self._environment.parse(text))
        except Exception as error:
            raise self._unreadable(error, name, path) from error

    def _compiled(self, name: str) -> Template:
        try:
            return self._environment.get_template(name)
        except Exception as error:
            raise self._unreadable(error, name, name) from error

    def _unreadable(self, error: Exception, name: str, path: str) -> FrontierError:
        """Return the error for what reading a template raised: it is not there, no template, or nested too deeply."""
        if isinstance(error, FrontierError):
            return error
        if isinstance(error, TemplateNotFound):
            return self._missing(name)
        if isinstance(error, TemplateSyntaxError):
            place, problem = f"line {error.lineno}", f"is no template of Jinja's: {error.message}."
            return InputError(
                error.filename or path, place, problem, "Correct it, or delete it to have the shipped one."
            )
        return template_failure(error, path)

    def _missing(self, name: str) -> InputError:
        places = " or ".join(str(folder / name) for folder in self._folders)
        kind = name.partition("/")[0]
        there = {path.stem for folder in self._folders for path in (folder / kind).glob("*.jinja")}
        return InputError(places, "", "there is no such prompt template.", f"Of {kind}: {', '.join(sorted(there))}.")


class _Source(NamedTuple):
    """A template: its text, its file, and what it says to Jinja."""

    text: str
    path: str
    tree: nodes.Template


def _is_blank(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData) and not node.data.strip()


class AgentPrompt:
    """What an agent is sent.

    Args:
        style: Name of the template below ``agent/``: ``naive``, ``safety_aware`` or ``helpful_and_safe`` for language
            models, ``brief`` for tiny ones.
        prompts_dir: Folder of templates that replace the shipped ones.
        layout: ``turns``: each step is an assistant's turn and an observation as a user's. ``published``: all goes
            into one user message that ends in ``Thought:`` and grows (as in the paper's released code).
    """

    def __init__(self, style: str, prompts_dir: Path | None = None, *, layout: PromptLayout = "turns") -> None:
        self.style = style
        self.layout = layout
        self._name = f"agent/{style}.jinja"
        self._templates = Templates(prompts_dir)
        self.version = self._templates.version(self._name)

    def messages(
        self, case: Case, toolkits: Sequence[Toolkit], history: Sequence[Step] = (), partial: str = ""
    ) -> tuple[Message, ...]:
        """Returns the request of one turn.

        Args:
            case: The case.
            toolkits: The case's toolkits.
            history: The steps so far.
            partial: The beginning of the turn, for the model to continue.
        """
        if self.layout == "published":
            return self._opening(case, toolkits, _scratchpad(history) + partial)
        messages = [*self._opening(case, toolkits)]
        for step in history:
            messages.append(Message("assistant", _spoken(step.log)))
            messages.append(Message("user", OBSERVATION + step.observation))
        if partial:
            messages.append(Message("assistant", partial))
        return tuple(messages)

    def conversation(
        self, case: Case, toolkits: Sequence[Toolkit], trajectory: Trajectory, *, thinking: bool = False
    ) -> Conversation:
        """Return a trajectory as messages: in the layout ``turns``, exactly what inference sent and got.

        In ``published``, turns are separate messages although inference had them in one; the released code did that.

        Args:
            case: The case.
            toolkits: The case's toolkits.
            trajectory: What the agent did.
            thinking: Keep the agent's thinking in its turns. Off, it is left out, as it is of the history at inference
                (and, always, of the layout ``published``). A last turn that is nothing but thinking is left out.
        """
        logs = [*(step.log for step in trajectory.steps), trajectory.final_log]
        completion: list[Message] = []
        for turn, log in enumerate(logs):
            text = _spoken(log)
            if turn > 0:
                # An observation is of no use to training unless a turn follows.
                if not text and turn == len(logs) - 1:
                    break
                completion.append(Message("user", OBSERVATION + trajectory.steps[turn - 1].observation))
            elif not text and len(logs) == 1:
                break
            if self.layout == "published":
                text = _without_thought(text) if turn == 0 else "Thought: " + _without_thought(text)
            elif thinking:
                text = log.strip()
            completion.append(Message("assistant", text))
        return Conversation(self._opening(case, toolkits), tuple(completion))

    def _opening(self, case: Case, toolkits: Sequence[Toolkit], scratchpad: str = "") -> tuple[Message, ...]:
        texts = self._templates.render(
            self._name,
            tool_names=list(tools_of(toolkits)),
            toolkit_descriptions="\n".join(toolkit.describe(Detail.medium) for toolkit in toolkits),
            instruction=case.user_instruction,
        )
        if self.layout == "published":
            texts["user"] += f"\nThought: {scratchpad}"
        return as_messages(texts)


def as_messages(texts: Mapping[str, str]) -> tuple[Message, ...]:
    """Returns what a template's blocks ``system`` (if it has one) and ``user`` are as messages."""
    system = (Message("system", texts["system"].strip()),) if "system" in texts else ()
    return (*system, Message("user", texts["user"]))


def _spoken(log: str) -> str:
    return strip_thinking(log).strip()


def _without_thought(text: str) -> str:
    return text.strip().removeprefix("Thought:").strip()


def _scratchpad(history: Sequence[Step]) -> str:
    return "".join(f"{_without_thought(step.log)}\n{OBSERVATION}{step.observation}\nThought: " for step in history)
