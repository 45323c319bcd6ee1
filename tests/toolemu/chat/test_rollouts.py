"""Rollouts and verdicts on a real server that misbehaves: nothing lost, nothing doubled, nothing else changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.lm_world import Faulty, play
from tests.toolemu.acting import LIGHTS, case, final, switch
from tests.toolemu.chat.server import ChatServer, Fault, Refusal, Say, Script
from toolemu.agent import AgentSettings
from toolemu.chat import endpoint as endpoint_module
from toolemu.chat.endpoint import EndpointError, open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.replies import JournaledChatModel, ReplyJournal
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.evaluation import Evaluation, Metric
from toolemu.lm_emulator import EmulatorSettings, LMEmulator
from toolemu.lm_judge import JudgeSettings, LMJudge
from toolemu.rollout import evaluate_all, rollout
from toolemu.trajectory import StopReason, Trajectory

TOOLKITS = {"Lights": LIGHTS}
N = 40


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT_S", 0.01)


def collect(
    script: Script, folder: Path, *, cases: int = N, endpoint: dict[str, Any] | None = None, **model: Any
) -> tuple[list[Trajectory], list[Evaluation], ChatServer]:
    """Lets an agent act on cases, an emulator play and a judge score, all behind one server."""
    with ChatServer(script) as server:
        settings = {"url": server.url, "timeout_s": 20, "give_up_after_s": 20, **(endpoint or {})}

        async def run() -> tuple[list[Trajectory], list[Evaluation]]:
            endpoints = {"here": EndpointSettings.model_validate(settings)}
            with ReplyJournal.open(folder / "replies") as journal:
                async with open_endpoints(endpoints, max_in_flight=100) as found:

                    def chat(name: str) -> JournaledChatModel:
                        own = OpenAIModelSettings(endpoint="here", model=name, **model)
                        return JournaledChatModel(OpenAIChatModel(found["here"], own), journal)

                    every = {number: case(number) for number in range(cases)}
                    trajectories = await rollout(
                        every,
                        TOOLKITS,
                        chat("agent"),
                        LMEmulator("emulator", chat("emulator"), TOOLKITS, EmulatorSettings()),
                        AgentSettings(),
                        experiment="test",
                        agent="agent",
                        seed=None,
                        samples=1,
                        journal=folder / "trajectories",
                    )
                    judge = LMJudge("judge", chat("judge"), TOOLKITS, JudgeSettings())
                    journal_path = folder / "evaluations"
                    metrics = (Metric.safe, Metric.help)
                    verdicts = await evaluate_all(judge, every, trajectories, metrics, journal=journal_path)
            return trajectories, verdicts

        trajectories, verdicts = asyncio.run(run())
    return trajectories, verdicts, server


def test_with_one_call_in_ten_failing_in_every_way_unaffected_cases_are_unchanged(tmp_path: Path) -> None:
    sound, sound_verdicts, _ = collect(play, tmp_path / "sound")
    faulty = Faulty(0.1, cut=True)
    found, verdicts, _ = collect(faulty, tmp_path / "faulty", endpoint={"timeout_s": 1})
    assert set(faulty.faults) == {*Fault, "length"}
    assert [record.trajectory_id for record in found] == [record.trajectory_id for record in sound]
    assert {record.stop_reason for record in found} == {StopReason.final_answer}
    cut = {index for index, record in enumerate(found) if any(record.user_input in text for text in faulty.cut_cases)}
    assert 0 < len(cut) < N / 2
    assert all(index in cut for index, record in enumerate(found) if record.final_cut_off)
    for index in set(range(N)) - cut:
        assert found[index] == sound[index]
        assert verdicts[2 * index : 2 * index + 2] == sound_verdicts[2 * index : 2 * index + 2]
    assert all(verdict.score is not None for verdict in verdicts)


def test_a_case_that_the_server_refuses_is_recorded_as_that(tmp_path: Path) -> None:
    def prudish(body: dict[str, Any]) -> Any:
        return Refusal(400, "flagged") if "Switch lamp 3 on." in body["messages"][-1]["content"] else play(body)

    trajectories, verdicts, _ = collect(prudish, tmp_path, cases=6)
    reasons = [record.stop_reason for record in trajectories]
    assert reasons[3] is StopReason.model_error and "flagged" in trajectories[3].error
    assert set(reasons[:3] + reasons[4:]) == {StopReason.final_answer}
    assert [verdict.score is None for verdict in verdicts] == [index // 2 == 3 for index in range(12)]
    assert "flagged" in verdicts[6].error


def test_a_dead_server_ends_the_rollout_and_a_second_one_redoes_nothing(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def dying(body: dict[str, Any]) -> Any:
        asked.append(body)
        return play(body) if len(asked) <= 80 else Fault.dropped

    with pytest.raises(EndpointError, match="has answered nothing usable"):
        collect(dying, tmp_path / "dying", endpoint={"give_up_after_s": 0.5, "max_in_flight": 4})
    with ReplyJournal.open(tmp_path / "dying" / "replies") as journal:
        kept = len(journal)
    assert 76 <= kept <= 80
    trajectories, verdicts, server = collect(play, tmp_path / "dying")
    sound = collect(play, tmp_path / "sound")
    assert (trajectories, verdicts) == sound[:2]
    assert len(server.requests) == len(sound[2].requests) - kept


def test_invented_observations_are_cut_and_flagged_where_the_server_ignores_stops(tmp_path: Path) -> None:
    def inventive(body: dict[str, Any]) -> Any:
        return play(body) + ("\nObservation: {}\n" + final("made up") if body["model"] == "agent" else "")

    trajectories, _, _ = collect(inventive, tmp_path, cases=8)
    sound, _, _ = collect(play, tmp_path / "sound", cases=8)
    assert [record.output for record in trajectories] == [record.output for record in sound]
    assert sum(len(record.steps) for record in trajectories) > 0
    assert all(record.agent_use is not None and "stop" in record.agent_use.ignored for record in trajectories)


def test_a_thinking_model_keeps_its_thoughts_to_itself(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def thoughtful(body: dict[str, Any]) -> Any:
        if body["model"] != "agent":
            return play(body)
        seen.append(body)
        turn = final() if len(seen) > 1 else switch()
        return Say(turn, reasoning="Final Answer: shall I?\nObservation: no", model="agent-2026")

    (trajectory,), _, _ = collect(thoughtful, tmp_path, cases=1, thinking=True)
    assert trajectory.steps[0].log == f"<think>\nFinal Answer: shall I?\nObservation: no\n</think>\n{switch()}"
    assert (trajectory.output, trajectory.self_observed) == ("Done.", 0)
    assert trajectory.agent_use is not None and trajectory.agent_use.served_as == ("agent-2026",)
    assert "shall I?" not in str(seen[1]["messages"])
    assert "stop" not in seen[0]


def test_thinking_that_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def slow_thinker(body: dict[str, Any]) -> Any:
        if body["model"] != "agent":
            return play(body)
        seen.append(body)
        return Say("<think>Let me see", finish_reason="length") if len(seen) == 1 else final("Now.")

    (trajectory,), _, _ = collect(slow_thinker, tmp_path, cases=1)
    assert (trajectory.output, trajectory.reprompts, len(seen)) == ("Now.", 1, 2)
    assert seen[1]["messages"] == seen[0]["messages"]
