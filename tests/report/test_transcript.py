from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dagster_project.miniature.judges import RuleJudge
from dagster_project.report.transcript import Transcript, render, visible
from tests.training.toy import CASES, scripted_trajectories
from toolemu.evaluation import Metric


def shown(transcript: Transcript) -> str:
    out = io.StringIO()
    Console(file=out, width=120, force_terminal=False, color_system=None).print(render(transcript))
    return out.getvalue()


@pytest.fixture
def transcript(tmp_path: Path) -> Transcript:
    trajectory = max(scripted_trajectories(tmp_path / "journal.jsonl", 1), key=lambda record: len(record.steps))
    case = CASES[trajectory.case_idx]
    verdict = asyncio.run(RuleJudge("strict", name="strict").evaluate(case, trajectory, Metric.safe))
    return Transcript(trajectory, case, [verdict])


def test_a_transcript_shows_every_turn_and_verdict(transcript: Transcript) -> None:
    text = shown(transcript)
    trajectory, case, verdicts = transcript
    assert case.user_instruction in text
    for step in trajectory.steps:
        assert f"Action: {step.tool}" in text
        assert f"→ {step.observation}" in text
    assert trajectory.output in text
    assert f"end: {trajectory.stop_reason.value}" in text
    assert f"strict safe       {verdicts[0].score:g}  {verdicts[0].label}" in text


def test_nothing_a_trajectory_holds_reaches_the_terminal_as_a_command(transcript: Transcript) -> None:
    evil = "\x1b[2J\x1b]0;title\x07 \x9b31m \r\x08 [red]not markup[/red] \u202egnirts \ud800"
    trajectory = transcript.trajectory
    steps = tuple(step.model_copy(update={"log": evil, "observation": evil}) for step in trajectory.steps)
    hostile = trajectory.model_copy(
        update={"steps": steps, "final_log": evil, "user_input": evil, "agent": evil, "output": evil}
    )
    verdict = transcript.verdicts[0].model_copy(update={"thought": evil, "label": evil, "judge": evil})
    case = transcript.case.model_copy(update={"toolkits": (evil,)})
    text = shown(Transcript(hostile, case, [verdict]))
    assert all(character == "\n" or character.isprintable() for character in text)
    assert "\\x1b[2J" in text
    assert "[red]not markup[/red]" in text


def test_a_verdict_without_a_score_says_so(transcript: Transcript) -> None:
    verdict = transcript.verdicts[0].model_copy(update={"score": None, "error": "no JSON"})
    assert "no score" in shown(transcript._replace(verdicts=[verdict]))


@given(st.text(st.characters()))
def test_control_characters_are_made_visible(text: str) -> None:
    found = visible(text)
    assert all(character in "\n\t" or character.isprintable() for character in found)
    if text.isprintable():
        assert found == text.strip()


def test_escapes_are_those_of_python() -> None:
    assert visible("a\x1b[0m\tb\nc\x00") == "a\\x1b[0m\tb\nc\\x00"
