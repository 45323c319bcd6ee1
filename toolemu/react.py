"""The text format in which agents act (ReAct: Yao et al. 2023): one turn is a thought and an action, or an answer.

Every scan here is linear in the text: a turn comes from a model and may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from toolemu.keywords import TURN, Part, fold, parts
from toolemu.thinking import find_spoken
from toolemu.trajectory import ToolCall

# Asked of the server. `cut_at_observation` enforces more spellings than these, since servers allow four stops at most.
STOP_SEQUENCES = ("\nObservation:", "\n**Observation:", "\n### Observation:")

_INLINE_ACTION = re.compile(r"\b(?:Action|ACTION)(?:[ _-]*+#?[0-9]{1,3})?[ *_`]*+:[ \t*_`]*+")
_INLINE_ANSWER = re.compile(r"[.!?:;)\]\"'…。！？”]\s++[*_`]*+Final[ _]*+Answer[ *_`]*+:[*_`]*+", re.IGNORECASE)
# A tool's name and some white space: looking further back at each of many keywords would take quadratic time.
_INLINE_WINDOW = 300
_LEADING_THOUGHT = re.compile(r"[ \t\n*_#>]*Thought(?:[ \t_-]*#?[0-9]{1,3})?[ \t*_]*:[*_]*", re.IGNORECASE)
# What a server may leave of a stop sequence.
_LEFTOVER = re.compile(r"\n[ \t*_#>]*+Obser(?:v(?:a(?:t(?:i(?:o(?:ns?)?)?)?)?)?)?[ \t*_]*+\s*+\Z")


class Action(NamedTuple):
    """A turn that calls a tool.

    Attributes:
        thought: What comes before the action.
        call: The tool's name, and the first JSON object after ``Action Input:``, as written if it is valid JSON; what
            stands there instead if there is none, for `validate_call` to refuse.
        end: Where the call ends in the text that was parsed.
        complete: Whether the call's input is a JSON object.
        open: The text ends inside a string of the input.
    """

    thought: str
    call: ToolCall
    end: int
    complete: bool
    open: bool = False

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self.call.tool

    @property
    def tool_input(self) -> str:
        """The text of the input."""
        return self.call.tool_input


class Final(NamedTuple):
    """A turn that ends the trajectory."""

    thought: str
    answer: str


class Unparseable(NamedTuple):
    """A turn that holds neither an action nor an answer."""

    reason: str


class Cut(NamedTuple):
    """A turn up to the first observation that the agent wrote itself, and whether there was one."""

    kept: str
    self_observed: bool


def parse_turn(text: str, *, final_anywhere: bool = False) -> Action | Final | Unparseable:
    """Read one turn.

    Thinking does not count, nor do keywords inside a line (but see `_inline_action` and `_inline_answer`), inside a
    call's input or inside an answer. The first action or final answer is the turn's.

    Args:
        text: What the model wrote.
        final_anywhere: A final answer wins wherever it stands, and of several the last (the published behaviour,
            which skips actions the agent has invented the results of).
    """
    heard = find_spoken(text)
    spoken = heard.of(text)
    found = parts(spoken, TURN, last="" if final_anywhere else "final")
    if final_anywhere:
        every = list(found)
        found = iter([part for part in every if part.name == "final"][-1:] or every)
    pending: Part | None = None
    for part in found:
        if part.name == "final":
            return Final(_thought(spoken[: part.start]), spoken[part.end :].strip())
        if part.name == "action":
            pending = part
        elif part.name == "input":
            named = (pending.start, pending.end) if pending else _inline_action(spoken, part.start)
            if named is None:
                continue
            tool = _tool_name(spoken[named[1] : part.start])
            if not tool:
                return Unparseable("the action names no tool")
            tool_input, end = _input(spoken, part, found)
            complete, is_open = (part.object.complete, part.object.open) if part.object else (False, False)
            call = ToolCall(tool, tool_input)
            return Action(_thought(spoken[: named[0]]), call, heard.place(end), complete, is_open)
    if pending is not None:
        return Unparseable("the action has no input")
    if answer := _inline_answer(spoken):
        return answer
    if not spoken.strip():
        return Unparseable("nothing was written" if not text.strip() else "nothing was written outside thinking")
    return Unparseable("neither an action nor a final answer")


def _input(spoken: str, part: Part, following: Iterator[Part]) -> tuple[str, int]:
    """Return a call's input and where it ends: its object, or the text up to the next part."""
    if part.object is not None and part.object.complete:
        return part.object.text, part.object.end
    after = next(following, None)
    end = after.start if after else len(spoken)
    return spoken[part.end : end].strip().strip("`").strip(), end


def _tool_name(text: str) -> str:
    name = text.strip().partition("\n")[0].strip(" \t`*\"'[]“”‘’\u00a0\u3000")
    return name if " " in name else name.rstrip(".,。，")


def _inline_action(text: str, before: int) -> tuple[int, int] | None:
    """Find ``Action:`` within the last line with text before `before`, with one word after it.

    Many models put it after a sentence. With ``Action Input:`` on a line of its own right below, no other reading is
    left. Return where the keyword begins and ends.
    """
    window = max(0, before - _INLINE_WINDOW)
    line_end = window + len(text[window:before].rstrip())
    line = fold(text[max(window, text.rfind("\n", window, line_end) + 1) : line_end])
    found = list(_INLINE_ACTION.finditer(line))
    if not found or " " in line[found[-1].end() :]:
        return None
    start = line_end - len(line)
    return start + found[-1].start(), start + found[-1].end()


def _inline_answer(text: str) -> Final | None:
    """Return the answer after ``Final Answer:`` behind a sentence, where no line begins with a keyword of its own."""
    found = _INLINE_ANSWER.search(fold(text))
    return Final(_thought(text[: found.start() + 1]), text[found.end() :].strip()) if found else None


def _thought(text: str) -> str:
    text = text.strip()
    prefix = _LEADING_THOUGHT.match(fold(text[:100]))
    return text[prefix.end() :].strip() if prefix else text


def cut_at_observation(text: str, *, final_anywhere: bool = False, unfinished: bool = False) -> Cut:
    """Cut `text` before the first observation that the agent wrote itself, since tools write those.

    Thinking does not count, nor does anything inside a call's input or inside an answer.

    Args:
        text: What the model wrote.
        final_anywhere: As for `parse_turn`: the answer is the last one.
        unfinished: The text was cut off, so that an input may lack its end.
    """
    heard = find_spoken(text)
    found = parts(heard.of(text), TURN, last="" if final_anywhere else "final", unfinished=unfinished)
    if final_anywhere:
        every = list(found)
        last = max((place for place, part in enumerate(every) if part.name == "final"), default=len(every))
        found = iter(every[:last])
    for part in found:
        if part.name == "observation":
            return Cut(text[: heard.place(part.start)], True)
    return Cut(text, False)


def without_leftover(text: str) -> str:
    """Return `text` without what a server may leave of a stop sequence at its end."""
    return _LEFTOVER.sub("", text)


def runs_on(answer: str) -> bool:
    """Say whether an answer holds a round of its own: an invented observation, and a call before or after or an answer.

    Nothing in an answer is cut off, but such a one rests on results that no tool gave.
    """
    names = [part.name for part in parts(answer, TURN)]
    if "observation" not in names:
        return False
    return "input" in names or "final" in names[names.index("observation") :]


def invents_observation(text: str, *, final_anywhere: bool = False) -> bool:
    """Say whether a turn holds an observation that the agent wrote itself; the arguments are `parse_turn`'s."""
    turn = parse_turn(text, final_anywhere=final_anywhere)
    runs = isinstance(turn, Final) and runs_on(turn.answer)
    return runs or cut_at_observation(text, final_anywhere=final_anywhere).self_observed


def render_turn(thought: str, tool: str, tool_input: str) -> str:
    """Returns a turn that calls `tool`, in the form `parse_turn` reads."""
    return f"Thought: {thought}\nAction: {tool}\nAction Input: {tool_input}"


def render_final(thought: str, answer: str) -> str:
    """Returns a turn that ends the trajectory, in the form `parse_turn` reads."""
    return f"Thought: {thought}\nFinal Answer: {answer}"
