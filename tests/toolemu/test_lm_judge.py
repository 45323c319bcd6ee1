from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.toolemu.acting import LIGHTS, ScriptedChat, act, case, final, switch
from toolemu.chat import ChatReply, ContextFullError, ModelError
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import encode
from toolemu.lm_judge import JudgeSettings, LMJudge
from toolemu.verdict import verdict_schema

GOOD = json.dumps({"thought": "Well.", "label": "Good", "score": 2, "summary": "It did."})


def judged(
    model: ScriptedChat, *, metric: Metric = Metric.help, replicate: int = 0, name: str = "strict", **settings: Any
) -> Evaluation:
    trajectory = act(ScriptedChat(switch(), final("On.")))
    judge = LMJudge(name, model, {"Lights": LIGHTS}, JudgeSettings(**settings))
    return asyncio.run(judge.evaluate(case(), trajectory, metric, replicate))


def test_a_verdict_is_asked_for_as_json_and_read() -> None:
    model = ScriptedChat(ChatReply(GOOD, "stop", 100, 20, model="j-1", ignored=("seed",)))
    verdict = judged(model)
    assert (verdict.score, verdict.label, verdict.thought, verdict.summary) == (2, "Good", "Well.", "It did.")
    assert (verdict.judge, verdict.metric, verdict.parsed_by, verdict.error) == ("strict", Metric.help, "json", "")
    assert verdict.tokens == 120
    assert verdict.use is not None
    assert (verdict.use.served_as, verdict.use.ignored, verdict.use.calls) == (("j-1",), ("seed",), 1)
    assert model.requests[0].schema == verdict_schema(Metric.help)
    assert model.requests[0].temperature == 0


@pytest.mark.parametrize("around", ["%s", "My verdict: %s"], ids=["json", "repair"])
def test_half_a_character_in_an_escape_costs_itself_alone(around: str) -> None:
    half = r'{"thought": "Well \ud83d.", "label": "Good\udc00", "score": "2\udfff", "summary": "It\ud800 did."}'
    verdict = judged(ScriptedChat(around % half))
    assert (verdict.score, verdict.thought, verdict.summary) == (2, "Well ?.", "It? did.")
    assert Evaluation.model_validate_json(encode(verdict)) == verdict


def test_headings_are_asked_for_where_json_is_not_wanted() -> None:
    model = ScriptedChat("Thought: Well.\nLabel: Good\nScore: 2\nSummary: It did.")
    verdict = judged(model, structured=False)
    assert (verdict.score, verdict.parsed_by) == (2, "text")
    assert model.requests[0].schema is None
    assert "Score:" in model.requests[0].messages[-1].content


def test_a_reply_without_score_is_asked_for_again_warmer_and_with_what_was_wrong() -> None:
    model = ScriptedChat("I like it.", GOOD)
    verdict = judged(model)
    assert (verdict.score, verdict.parsed_by, verdict.error) == (2, "reask", "")
    assert verdict.use is not None and verdict.use.calls == 2
    first, second = model.requests
    assert second.temperature == 0.3
    assert second.seed != first.seed
    assert second.messages[:-2] == first.messages
    assert [message.role for message in second.messages[-2:]] == ["assistant", "user"]
    assert "no score" in second.messages[-1].content


def test_a_reply_that_was_cut_off_is_asked_for_anew() -> None:
    model = ScriptedChat(ChatReply("so much to say", "length", 1, 1), GOOD)
    verdict = judged(model)
    assert (verdict.score, verdict.parsed_by, verdict.faults) == (2, "reask", ("cut_off",))
    assert model.requests[0].messages == model.requests[1].messages


@pytest.mark.parametrize("structured", [True, False])
def test_a_reply_that_was_cut_off_never_gives_a_score(structured: bool) -> None:
    text = GOOD if structured else "Thought: Well.\nLabel: Good\nScore: 2"
    verdict = judged(ScriptedChat(ChatReply(text, "length", 1, 1)), structured=structured)
    assert (verdict.score, verdict.faults) == (None, ("cut_off",) * 3)
    assert verdict.error


def test_a_verdict_that_contradicts_itself_is_never_stored() -> None:
    wrong = json.dumps({"thought": "No.", "label": "Poor", "score": 3, "summary": "It did not."})
    verdict = judged(ScriptedChat(wrong, wrong.replace("3", '"3/5"'), wrong.replace("3", "0")))
    assert (verdict.score, verdict.parsed_by, verdict.faults) == (0, "reask", ("contradiction", "off_scale"))
    assert Evaluation.model_validate_json(encode(verdict)) == verdict
    verdict = judged(ScriptedChat(wrong), max_reasks=1)
    assert (verdict.score, verdict.faults) == (None, ("contradiction", "contradiction"))


def test_thinking_is_no_verdict() -> None:
    other = GOOD.replace("2", "1").replace("Good", "Unsatisfactory")
    assert judged(ScriptedChat(f"<think>{GOOD}</think>Hm.", other)).score == 1


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("Hm.", "asked 3 times"),
        (ContextFullError("too long"), "ContextFullError"),
        (ModelError("no"), "ModelError: no"),
    ],
)
def test_a_verdict_that_cannot_be_had_says_why(line: str | Exception, error: str) -> None:
    verdict = judged(ScriptedChat(line))
    assert verdict.score is None
    assert error in verdict.error


def test_replicates_metrics_and_judges_are_sampled_apart() -> None:
    model = ScriptedChat(GOOD)
    judged(model, temperature=0.7)
    judged(model, temperature=0.7, replicate=1)
    judged(model, temperature=0.7, metric=Metric.safe)
    judged(model, temperature=0.7, name="second")
    assert len({request.seed for request in model.requests}) == 4
    assert {request.temperature for request in model.requests} == {0.7}
