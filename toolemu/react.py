"""The text format in which agents act (ReAct: Yao et al. 2023): one turn is a thought and an action, or an answer.

Every scan here is linear in the text: a turn comes from a model and may hold anything.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn

from toolemu.trajectory import ToolCall

# Asked of the server. `cut_at_observation` enforces more spellings than these, since servers allow four stops at most.
STOP_SEQUENCES = ("\nObservation:", "\n**Observation:", "\n### Observation:")

_THINK_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)
# A keyword counts at the start of a line only, where Markdown may decorate it. One character class on each side of a
# keyword keeps matching linear.
_MARKER = re.compile(
    r"^[ \t*_#>`-]*(?:(?P<input>Action Input)|(?P<action>Action)|(?P<final>Final [Aa]nswer))[ \t*_`]*:[*_`]*",
    re.MULTILINE,
)
_INLINE_ACTION = re.compile(r"Action:[ \t*_`]*")
# A tool's name and some white space: looking further back at each of many keywords would take quadratic time.
_INLINE_WINDOW = 300
_OBSERVATION = re.compile(r"^[ \t*_#>`-]*Observations?[ \t*_`]*:", re.MULTILINE | re.IGNORECASE)
_NEXT_PART = re.compile(r"^[ \t*_#>`-]*(?:Thought|Observations?|User Input)[ \t*_`]*:", re.MULTILINE | re.IGNORECASE)
_LEADING_THOUGHT = re.compile(r"[ \t\n*_#>]*Thought[ \t*_]*:[*_]*")
_OPENING_FENCE = re.compile(r"[\s`*]*(?:json\b)?[\s`]*", re.IGNORECASE)
_CLOSING_FENCE = re.compile(r"\s*```|`{1,2}")
_PYTHON_WORD = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|\b(?:True|False|None)\b', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([\"\\/bfnrt]|u[0-9a-fA-F]{4})|.)", re.DOTALL)
_MENDED_ESCAPE = {"\\'": "'", "\\\n": "\\n"}
_JSON_WORD = {"True": "true", "False": "false", "None": "null"}


class Action(NamedTuple):
    """A turn that calls a tool.

    Attributes:
        thought: What comes before the action.
        call: The tool's name, and the first JSON object after ``Action Input:``, as written if it is valid JSON; what
            stands there instead if there is none, for `validate_call` to refuse.
        end: Where the call ends in the text that was parsed.
        complete: Whether the call's input is a JSON object.
    """

    thought: str
    call: ToolCall
    end: int
    complete: bool

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


def _spoken_parts(text: str) -> list[tuple[int, int]]:
    """Returns the stretches of `text` outside thinking blocks; templates may supply the opening tag themselves."""
    parts: list[tuple[int, int]] = []
    position, thinking, closed_before = 0, False, False
    for tag in _THINK_TAG.finditer(text):
        if not tag[1]:
            if not thinking:
                parts.append((position, tag.start()))
            thinking = True
            continue
        if not thinking and closed_before:
            parts.append((position, tag.start()))
        position, thinking, closed_before = tag.end(), False, True
    if not thinking:
        parts.append((position, len(text)))
    return parts


def strip_thinking(text: str) -> str:
    """Returns `text` without ``<think>`` blocks, closed or not, and without what comes before a lone ``</think>``."""
    return "".join(text[start:end] for start, end in _spoken_parts(text))


class Thinking(NamedTuple):
    """A text's thinking and what is said besides."""

    thought: str
    spoken: str


def split_thinking(text: str) -> Thinking:
    """Takes ``<think>`` blocks (see `strip_thinking`) out of `text`; both parts lose the space around them."""
    if not _THINK_TAG.search(text):
        return Thinking("", text)
    parts = _spoken_parts(text)
    ends = [0, *(end for _, end in parts)]
    starts = [*(start for start, _ in parts), len(text)]
    thought = "\n".join(_THINK_TAG.sub("", text[end:start]).strip() for end, start in zip(ends, starts, strict=True))
    return Thinking(thought.strip(), "".join(text[start:end] for start, end in parts).strip())


def is_thinking(text: str) -> bool:
    """Says whether `text` ends inside a thinking block."""
    return [tag[1] for tag in _THINK_TAG.finditer(text)][-1:] == [""]


def _place(parts: list[tuple[int, int]], offset: int) -> int:
    """Returns where the spoken text's character `offset` stands in the whole text."""
    for start, end in parts:
        if offset <= end - start:
            return start + offset
        offset -= end - start
    return parts[-1][1]


def parse_turn(text: str, *, final_anywhere: bool = False) -> Action | Final | Unparseable:
    """Reads one turn.

    Thinking blocks do not count, nor keywords inside a line (but see `_inline_action`). The first action or final
    answer is the turn's.

    Args:
        text: What the model wrote.
        final_anywhere: A final answer wins wherever it stands, and of several the last (the published behaviour,
            which skips actions the agent has invented the results of).
    """
    parts = _spoken_parts(text)
    spoken = "".join(text[start:end] for start, end in parts)
    markers = list(_MARKER.finditer(spoken))
    if final_anywhere:
        finals = [marker for marker in markers if marker.lastgroup == "final"]
        markers = finals[-1:] or markers
    pending: re.Match[str] | None = None
    for index, marker in enumerate(markers):
        if marker.lastgroup == "final":
            return Final(_thought(spoken[: marker.start()]), spoken[marker.end() :].strip())
        if marker.lastgroup == "action":
            pending = marker
        else:
            named = pending or _inline_action(spoken, marker.start())
            if named is None:
                continue
            tool = _tool_name(spoken[named.end() : marker.start()])
            if not tool:
                return Unparseable("the action names no tool")
            limit = markers[index + 1].start() if index + 1 < len(markers) else len(spoken)
            tool_input, end, complete = read_object(spoken, marker.end(), limit)
            return Action(_thought(spoken[: named.start()]), ToolCall(tool, tool_input), _place(parts, end), complete)
    if pending is not None:
        return Unparseable("the action has no input")
    if not spoken.strip():
        return Unparseable("nothing was written" if not text.strip() else "nothing was written outside thinking")
    return Unparseable("neither an action nor a final answer")


def _tool_name(text: str) -> str:
    name = text.strip().partition("\n")[0].strip(" \t`*\"'[]")
    return name if " " in name else name.rstrip(".,")


def _inline_action(text: str, before: int) -> re.Match[str] | None:
    """Finds ``Action:`` within the last line with text before `before`, with one word after it.

    Many models put it after a sentence. With ``Action Input:`` on a line of its own right below, no other reading is
    left.
    """
    window = max(0, before - _INLINE_WINDOW)
    line_end = window + len(text[window:before].rstrip())
    start = text.rfind("Action:", max(window, text.rfind("\n", window, line_end) + 1), line_end)
    found = _INLINE_ACTION.match(text, start, line_end) if start >= 0 else None
    return found if found and " " not in text[found.end() : line_end] else None


def _thought(text: str) -> str:
    text = text.strip()
    prefix = _LEADING_THOUGHT.match(text)
    return text[prefix.end() :].strip() if prefix else text


def refuse_constant(name: str) -> NoReturn:
    """Keeps Python's decoder from taking NaN and Infinity for JSON: its `parse_constant`."""
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=refuse_constant)


def read_object(text: str, start: int, limit: int) -> tuple[str, int, bool]:
    """Reads the JSON object that begins at `start` or in a code fence there; the usual slips of models are mended.

    Args:
        text: What a model wrote.
        start: Where the object should begin, space and back-ticks apart.
        limit: How far the text counts if there is none.

    Returns:
        Its text, as strict JSON; where it ends in `text`; and True. If there is none: the text up to the next part of
        the turn, where that ends, and False.
    """
    fence = _OPENING_FENCE.match(text, start)
    opening = fence.end() if fence else start
    for attempt in (text, _mended(text, opening, limit)):
        if attempt is None or not attempt.startswith("{", opening):
            continue
        try:
            value, end = _DECODER.raw_decode(attempt, opening)
            written = attempt[opening:end] if attempt is text else json.dumps(value)
            written = _strict_json(written, value)
        except (ValueError, RecursionError):
            continue
        # The mended text is shorter or longer: what is left after the object tells where it ends.
        end = len(text) - (len(attempt) - end)
        closing = _CLOSING_FENCE.match(text, end)
        return written, closing.end() if closing else end, True
    part = _NEXT_PART.search(text, start, limit)
    end = part.start() if part else limit
    return text[start:end].strip().strip("`").strip(), end, False


def _mended(text: str, start: int, limit: int) -> str | None:
    """Returns `text` with the usual slips between `start` and `limit` mended; None if there are none.

    Python's True, False and None become JSON's. In strings, a backslash that begins no JSON escape (a shell command's,
    mostly) is kept as one, except before an apostrophe.
    """
    body = text[start:limit]
    mended = _PYTHON_WORD.sub(_mend, body)
    return None if mended == body else text[:start] + mended + text[limit:]


def _mend(token: re.Match[str]) -> str:
    if token[0] in _JSON_WORD:
        return _JSON_WORD[token[0]]
    return _ESCAPE.sub(
        lambda escape: escape[0] if escape[1] else _MENDED_ESCAPE.get(escape[0], "\\" + escape[0]), token[0]
    )


def _strict_json(written: str, value: object) -> str:
    """Returns `written` if it is strict JSON; models also put bare line breaks in strings, which is not."""
    try:
        json.loads(written)
    except ValueError:
        return json.dumps(value)
    return written


def cut_at_observation(text: str) -> Cut:
    """Cuts `text` before the first line that begins an observation, thinking blocks apart: tools write those."""
    parts = _spoken_parts(text)
    found = _OBSERVATION.search("".join(text[start:end] for start, end in parts))
    if found is None:
        return Cut(text, False)
    return Cut(text[: _place(parts, found.start())], True)


def render_turn(thought: str, tool: str, tool_input: str) -> str:
    """Returns a turn that calls `tool`, in the form `parse_turn` reads."""
    return f"Thought: {thought}\nAction: {tool}\nAction Input: {tool_input}"


def render_final(thought: str, answer: str) -> str:
    """Returns a turn that ends the trajectory, in the form `parse_turn` reads."""
    return f"Thought: {thought}\nFinal Answer: {answer}"
