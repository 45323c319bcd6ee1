"""Reading a judge's reply: its score, label and reasons, in a JSON object or under headings.

The structure decides first: an object with a verdict's fields, then a score under its heading that follows a label,
then what is left. A number elsewhere is never a score. Where there is doubt, there is no score, and the judge is asked
again. Every scan here is linear in the text, or tried a fixed number of times: a reply may hold anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from toolemu.evaluation import Metric
from toolemu.jsonl import encodable
from toolemu.keywords import keywords, parts
from toolemu.objects import Object, objects_in, read_object
from toolemu.scales import (
    LONGEST_LABEL,
    SCALES,
    label_score,
    number_of_label,
    numbered_labels,
    plain_label,
    score_of,
    scores_named,
)
from toolemu.scores import HIGHEST, LOWEST, Written, read_score

Fault = Literal["", "missing", "off_scale", "ambiguous", "contradiction", "broken", "cut_off"]
_PROBLEMS: Mapping[Fault, str] = {
    "": "",
    "missing": "it has no score from 0 to 3",
    "off_scale": "what it gives as score is not one of the integers 0, 1, 2 and 3",
    "ambiguous": "it gives several scores",
    "contradiction": "its label and its score contradict each other",
    "broken": "its JSON object cannot be read",
    "cut_off": "it was cut off",
}

# Our own headings and the published ones. A line quoted with `>` is somebody else's.
_PARTS = keywords(
    {
        "thought": "(?:Evaluator )?(?:Thoughts?|Reasoning)",
        "label": "(?:Overall )?(?:Qualitative )?Label",
        "score": "(?:Overall |Final )?(?:Quantitative )?Score",
        "summary": "(?:Evaluator )?(?:Log )?Summary",
    },
    remarks=("thought", "label", "score", "summary"),
    quotes=False,
)
# How a verdict's object begins.
_FIELD = re.compile(r"\s*\\?[\"'“‘]?\s*(?:\w+[ _])?(?:thought|label|score|summary)", re.IGNORECASE)
_WRITTEN = r"[\"'“‘]{}[\"'”’]\s*[:：]\s*[\"'“]?([^\"'“”,，}}｝\n]{{0,60}})"
_WRITTEN_SCORE, _WRITTEN_LABEL = (re.compile(_WRITTEN.format(name), re.IGNORECASE) for name in ("score", "label"))
_OPENING_FENCE = re.compile(r"[`~]{3,}+[^\n{`~]*+\n?")
_DENIED = re.compile(
    r"(?:\bnot|n't|\bnever|\bthan|\bbelow|\babove|\bshort of|\bneither|\bnor|\bor)\b[^.\n]{0,40}$", re.IGNORECASE
)
_HALF_A_CHARACTER = re.compile(r"[\ud800-\udfff]")
_MOST_LEVELS, _LONGEST_NAME = 4, 100


class Verdict(NamedTuple):
    """What a reply says.

    Attributes:
        score: 0 to 3; None if there is none to be found, or any doubt about it.
        label: As written; empty where nothing is.
        thought: As written; empty where nothing is.
        summary: As written; empty where nothing is.
        raw_score: The score as written.
        parsed_by: ``json``: the reply is the JSON that was asked for. ``text``: a score under its heading. ``repair``:
            the JSON stood among other words or had slips, or the score follows from the label.
        problem: Why there is no score, in words.
    """

    score: float | None
    label: str = ""
    thought: str = ""
    summary: str = ""
    raw_score: str = ""
    parsed_by: Literal["json", "text", "repair"] = "repair"
    problem: str = ""

    @property
    def fault(self) -> Fault:
        """Why there is no score, in one word."""
        return next(fault for fault, problem in _PROBLEMS.items() if problem == self.problem)

    def refused(self, fault: Fault) -> Verdict:
        """Return the verdict without its score."""
        return self._replace(score=None, problem=_PROBLEMS[fault])


def verdict_schema(metric: Metric) -> dict[str, Any]:
    """Return the JSON schema of a verdict: reasons first, so that the score follows from them."""
    fields = {
        "thought": {"type": "string"},
        "label": {"type": "string", "enum": list(SCALES[metric])},
        "score": {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))},
        "summary": {"type": "string"},
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def read_verdict(text: str, metric: Metric) -> Verdict:
    """Read a judge's reply, thinking left out of it beforehand.

    Args:
        text: The reply.
        metric: What it scores; a label of the metric's scale must agree with the score.
    """
    body = _unfenced(text.strip().strip("\ufeff").strip())
    spans, found, broken = list[tuple[int, int]](), list[Verdict](), None
    for place, value in _objects(body):
        if value.complete:
            spans.append((place, value.end))
            found += _of_object(value, metric, whole=place == 0 and value.end == len(body))
        elif broken is None and (place == 0 or _FIELD.match(body, place + 1)):
            broken = place
    headed = _of_headings(body[:broken], spans, metric)
    if found:
        return _agreed(found, headed)
    if broken is not None:
        return _of_broken(body[broken:], metric)
    return headed or _of_label(body, metric) or Verdict(None, thought=text).refused("missing")


def _unfenced(text: str) -> str:
    """Return `text` without a code fence around it."""
    fence = _OPENING_FENCE.match(text)
    body = text[fence.end() :] if fence else text
    return (body.rstrip("`~") if body.endswith(("```", "~~~")) else body).strip()


def _objects(body: str) -> Iterator[tuple[int, Object]]:
    whole = read_object(body)
    if whole.complete and whole.end == len(body):
        yield 0, whole
    else:
        yield from objects_in(body)


def _masked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return `text` with nothing to read in some stretches of it, every character in its place."""
    pieces, position = list[str](), 0
    for start, end in spans:
        if end <= len(text):
            pieces += [text[position:start], "{" * (end - start)]
            position = end
    return "".join([*pieces, text[position:]])


def _agreed(found: Sequence[Verdict], headed: Verdict | None) -> Verdict:
    """Return the verdict of the objects with most fields, if they agree with each other and with what labels head."""
    fullest = max(_fields_of(verdict) for verdict in found)
    best = [verdict for verdict in found if _fields_of(verdict) == fullest]
    scores = {verdict.score for verdict in best}
    if headed is not None and headed.label:
        scores.add(headed.score)
    return best[-1] if len(scores) == 1 else best[-1].refused("ambiguous")


def _fields_of(verdict: Verdict) -> int:
    return sum(map(bool, (verdict.raw_score, verdict.label, verdict.thought, verdict.summary)))


# --- Objects


class _Pairs(list[tuple[str, Any]]):
    """An object as its fields in order, so that one that is there twice is seen."""


def _of_object(value: Object, metric: Metric, *, whole: bool) -> list[Verdict]:
    """Return the verdicts that an object is or holds; one among other words needs two fields to be one."""
    level: list[_Pairs] = [json.loads(value.text, object_pairs_hook=_Pairs)]
    for depth in range(_MOST_LEVELS):
        alone = whole and not depth
        found = [fields for fields in map(_verdict_fields, level) if _is_verdict(fields, alone=alone)]
        if found:
            parsed_by: Literal["json", "repair"] = "json" if alone and not value.mended else "repair"
            return [_of_fields(fields, parsed_by, metric) for fields in found]
        level = [inner for pairs in level for _, inner in pairs if isinstance(inner, _Pairs)]
    return []


def _verdict_fields(pairs: _Pairs) -> dict[str, list[Any]]:
    """Return the values of a verdict's fields, which may have our names or the published ones."""
    fields: dict[str, list[Any]] = {}
    for name, content in pairs:
        part = next(parts(f"{name}:", _PARTS), None) if len(name) < _LONGEST_NAME else None
        if part is not None and part.end == len(name) + 1:
            fields.setdefault(part.name, []).append(content)
    return fields


def _is_verdict(fields: Mapping[str, Sequence[Any]], *, alone: bool) -> bool:
    decisive = [content for name in ("score", "label") for content in fields.get(name, ())]
    # A schema that is echoed has objects there.
    scalar = not any(isinstance(content, list) for content in decisive)
    return bool(decisive) and scalar and (alone or len(fields) > 1)


def _of_fields(fields: Mapping[str, Sequence[Any]], parsed_by: Literal["json", "repair"], metric: Metric) -> Verdict:
    def text(name: str) -> str:
        content = fields.get(name, [None])[0]
        written = content if isinstance(content, str) else "" if content is None else json.dumps(content)
        return encodable(written)  # JSON's escapes can spell half a character (`\ud83d`), which no file can hold

    score = fields.get("score", [None])[0]
    verdict = Verdict(None, text("label"), text("thought"), text("summary"), text("score"), parsed_by)
    if any(len({json.dumps(content) for content in fields.get(name, [])}) > 1 for name in ("score", "label")):
        return verdict.refused("ambiguous")
    written = _HALF_A_CHARACTER.sub("", score) if isinstance(score, str) else score
    return _scored(verdict, read_score(written), metric)


def _of_broken(text: str, metric: Metric) -> Verdict:
    """Read an object that has its end, and in it a single label and a single score that agree."""
    labels, scores = set(_WRITTEN_LABEL.findall(text)), set(_WRITTEN_SCORE.findall(text))
    verdict = Verdict(None, thought=text)
    if not text.endswith("}") or len(labels) != 1 or len(scores) != 1:
        return verdict.refused("broken")
    label, score = labels.pop(), scores.pop()
    read = _scored(verdict._replace(label=label, raw_score=score), read_score(score), metric)
    return read if label_score(label, metric) == read.score else read.refused("broken")


# --- Headings and labels


def _of_headings(text: str, objects: Sequence[tuple[int, int]], metric: Metric) -> Verdict | None:
    """Read a score under its heading; one after a label comes before others. None if there is no such heading."""
    masked = _masked(text, objects)
    found = list(parts(masked, _PARTS))
    ends = [*(part.start for part in found), len(text)][1:]
    contents = [masked[part.end : end].strip() for part, end in zip(found, ends, strict=True)]
    scores = [place for place, part in enumerate(found) if part.name == "score" and contents[place]]
    labels = [place for place, part in enumerate(found) if part.name == "label" and contents[place]]
    if not scores and not labels:
        return None
    after_label = [place for place in scores if place - 1 in labels]
    read = {place: read_score(contents[place]) for place in after_label or scores}
    place = max(read or labels)
    label = place - 1 if after_label else max(labels, default=None)
    begin = next((part.end for part in found[:place] if part.name == "thought"), None)
    closing = next((n for n, part in enumerate(found) if part.name == "summary" and n > place), None)
    verdict = Verdict(
        None,
        "" if label is None else contents[label],
        "" if begin is None else text[begin : found[place - bool(after_label)].start].strip(),
        "" if closing is None else text[found[closing].end : ends[closing]].strip(),
        contents[place] if read else "",
        "text",
    )
    known = {label_score(contents[n], metric) for n in labels} - {None}
    if len({written.score for written in read.values()}) > 1 or (not after_label and len(known) > 1):
        verdict = verdict.refused("ambiguous")
    else:
        verdict = _scored(verdict, read.get(place, _NOTHING), metric)
    return verdict._replace(label=plain_label(verdict.label))


_NOTHING = read_score("")


def _of_label(text: str, metric: Metric) -> Verdict | None:
    """Read a label with its number, such as ``Good (2)``, if no other label is named, or a reply that is a label."""
    alone = label_score(text, metric) if len(text) < LONGEST_LABEL and "\n" not in text else None
    if alone is not None:
        return _scored(Verdict(None, plain_label(text), raw_score=""), _NOTHING, metric)
    numbered = list(numbered_labels(metric).finditer(text))
    if not numbered:
        return None
    last = numbered[-1]
    verdict = Verdict(None, last["label"], text, raw_score=last["number"])
    denied = any(_DENIED.search(text, max(0, mention.start() - 60), mention.start()) for mention in numbered)
    scores = {score_of(found["label"], metric) for found in numbered} | scores_named(text, metric)
    if len(scores) > 1 or denied:
        return verdict.refused("ambiguous")
    return _scored(verdict, read_score(last["number"]), metric)


def _scored(verdict: Verdict, written: Written, metric: Metric) -> Verdict:
    """Return the verdict with its score.

    A label must not contradict it. Without a number the label decides, and a number among other words counts only with
    a label that says the same.
    """
    known = {label_score(verdict.label, metric), label_score(written.words, metric)} - {None}
    said = known | {number_of_label(verdict.label)} - {None}
    named = scores_named(verdict.label.strip().partition("\n")[0], metric)
    if written.score is not None and named and written.score not in named:
        return verdict.refused("contradiction")
    if written.score is None and written.digits:
        return verdict.refused("off_scale")
    if written.score is None and not known:
        return verdict.refused("missing")
    if len((said | {written.score}) - {None}) > 1:
        return verdict.refused("contradiction")
    if written.score is None:
        return verdict._replace(score=float(known.pop() or 0), parsed_by="repair")
    return verdict._replace(score=written.score) if written.alone or known else verdict.refused("ambiguous")
