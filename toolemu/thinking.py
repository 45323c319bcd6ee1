"""Thinking blocks: ``<think>`` tags in a reply, as far as they are not part of what it says."""

from __future__ import annotations

import re
from typing import NamedTuple

from toolemu.keywords import TURN, keywords, parts
from toolemu.objects import QUOTES, Patience, read_object

_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)
_CLOSING_TAG = re.compile("</think>", re.IGNORECASE)
_EVENT = re.compile(r"<(?P<close>/?)think>|(?P<brace>[{｛])", re.IGNORECASE)
_ANSWER = keywords({"final": "Final Answer"}, numbered=True)


class Thinking(NamedTuple):
    """A text's thinking and what is said besides."""

    thought: str
    spoken: str


class Spoken(NamedTuple):
    """The stretches of a text outside thinking, and whether the text ends inside thinking."""

    spans: list[tuple[int, int]]
    thinking: bool

    def of(self, text: str) -> str:
        """Return what `text` says."""
        return "".join(text[start:end] for start, end in self.spans)

    def place(self, offset: int) -> int:
        """Return where the character `offset` of what is said stands in the whole text."""
        for start, end in self.spans:
            if offset <= end - start:
                return start + offset
            offset -= end - start
        return self.spans[-1][1]


def find_spoken(text: str) -> Spoken:
    """Find what `text` says beside its thinking.

    A block may lack its end. It may also lack its beginning, which templates supply: then it begins with the text.
    Nothing in a JSON object or in a final answer is a tag. (But if an agent's turn follows a lone ``</think>``, an
    answer before that was only thought of.)
    """
    tags = [tag.start() for tag in _TAG.finditer(text)]
    if not tags:
        return Spoken([(0, len(text))], False)
    spans, begin, cursor, closed = list[tuple[int, int]](), 0, 0, False
    answers, patience = parts(text, _ANSWER), Patience(text)
    answer = next(answers, None)
    while cursor <= tags[-1] and (event := _EVENT.search(text, cursor)):
        while answer is not None and answer.start < cursor:
            answer = next(answers, None)
        if answer is not None and answer.start < event.start():
            event = _TAG.search(text, answer.end)
            if closed or event is None or not event[1] or next(parts(text, TURN, start=event.end()), None) is None:
                break
        elif event["brace"]:
            cursor = _behind_object(text, event.start(), patience)
            continue
        if event[1]:
            spans += [(begin, event.start())] if closed else []
            begin = cursor = event.end()
        else:
            spans.append((begin, event.start()))
            end = _CLOSING_TAG.search(text, event.end())
            if end is None:
                return Spoken(spans, True)
            begin = cursor = end.end()
        closed = True
    return Spoken([*spans, (begin, len(text))], False)


def _behind_object(text: str, brace: int, patience: Patience) -> int:
    """Return where to go on at a brace: behind the object that it begins, or behind the brace."""
    start = brace - (text[brace - 1 : brace] in tuple(QUOTES))
    if not patience:
        return brace + 1
    found = read_object(text, start)
    patience.note(start, found)
    if found.open and _CLOSING_TAG.search(text, brace) is None:
        return len(text)
    return found.end if found.complete else brace + 1


def strip_thinking(text: str) -> str:
    """Return `text` without its thinking, see `find_spoken`."""
    return find_spoken(text).of(text)


def split_thinking(text: str) -> Thinking:
    """Take the thinking out of `text`, see `find_spoken`; both parts lose the space around them."""
    found = find_spoken(text)
    if found.spans == [(0, len(text))]:
        return Thinking("", text)
    ends = [0, *(end for _, end in found.spans)]
    starts = [*(start for start, _ in found.spans), len(text)]
    thought = "\n".join(_TAG.sub("", text[end:start]).strip() for end, start in zip(ends, starts, strict=True))
    return Thinking(thought.strip(), found.of(text).strip())


def is_thinking(text: str) -> bool:
    """Say whether `text` ends inside thinking."""
    return find_spoken(text).thinking
