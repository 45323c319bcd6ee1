"""Rollouts against a server of fixed latency: how near the wall time comes to the longest case's own chain of calls.

Usage: python -m benchmarks.rollouts [--cases N] [--turns N] [--latency S] [--pending N]

Every case is so many turns of the agent with an emulator's call between any two; both are asked over HTTP, one request
after the other, as they need each other's words. The baseline is a sample of the same cases, run one after the other in
the same process before the rest. The server is a process of its own. Journals are on, as in a real run.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tests.toolemu.acting import LIGHTS, case, final
from tests.toolemu.chat.server import ChatServer
from toolemu.agent import AgentSettings
from toolemu.chat.endpoint import open_endpoints
from toolemu.chat.openai import OpenAIChatModel
from toolemu.chat.replies import JournaledChatModel, ReplyJournal
from toolemu.chat.settings import EndpointSettings, OpenAIModelSettings
from toolemu.lm_emulator import EmulatorSettings, LMEmulator
from toolemu.rollout import rollout
from toolemu.trajectory import StopReason

MOST_IN_FLIGHT = 500
SAMPLE = 2


def serve(pipe: Connection, latency: float, turns: int) -> None:
    """Plays agent and emulator until the pipe is closed; then says how many requests were under way at most."""

    def play(body: dict[str, Any]) -> str:
        if body["model"] == "emulator":
            return 'Reasoning: Fine.\nSummary: Done.\nObservation: {"success": true}'
        calls = sum(message["content"].startswith("Observation:") for message in body["messages"])
        if calls == turns - 1:
            return final()
        return f'Thought: On.\nAction: LightsSwitch\nAction Input: {{"lamp": "{calls}", "on": true}}'

    with ChatServer(play, latency=latency) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send(server.most)


class Cost(NamedTuple):
    """What some rollouts took; `cpu` is this process's alone, in seconds."""

    wall: float
    cpu: float
    calls: int
    replies: int


def act(url: str, folder: Path, cases: range, concurrency: int, turns: int) -> Cost:
    """Lets an agent act on cases, so many at once."""
    toolkits = {"Lights": LIGHTS}

    async def run() -> Cost:
        started, cpu = time.perf_counter(), time.process_time()
        endpoints = {"here": EndpointSettings(url=url, max_in_flight=MOST_IN_FLIGHT)}
        with ReplyJournal.open(folder / f"replies-{cases.start}") as journal:
            async with open_endpoints(endpoints, max_in_flight=MOST_IN_FLIGHT) as found:

                def chat(name: str) -> JournaledChatModel:
                    settings = OpenAIModelSettings(endpoint="here", model=name)
                    return JournaledChatModel(OpenAIChatModel(found["here"], settings), journal)

                trajectories = await rollout(
                    {number: case(number) for number in cases},
                    toolkits,
                    chat("agent"),
                    LMEmulator("emulator", chat("emulator"), toolkits, EmulatorSettings()),
                    AgentSettings(),
                    experiment="benchmark",
                    agent="agent",
                    seed=None,
                    samples=1,
                    journal=folder / f"trajectories-{cases.start}",
                    concurrency=concurrency,
                )
                assert {trajectory.stop_reason for trajectory in trajectories} == {StopReason.final_answer}
                assert all(len(trajectory.steps) == turns - 1 for trajectory in trajectories)
                calls = found["here"].counts["attempts"]
            return Cost(time.perf_counter() - started, time.process_time() - cpu, calls, len(journal))

    return asyncio.run(run())


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=144)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--latency", type=float, default=2.0, help="seconds")
    parser.add_argument("--pending", type=int, default=0, help="then so many cases of one turn each, for the memory")
    asked = parser.parse_args()
    for cases, turns in ((asked.cases, asked.turns), (asked.pending, 1)):
        if not cases:
            continue
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        server = context.Process(target=serve, args=(theirs, asked.latency, turns), daemon=True)
        server.start()
        url = ours.recv()
        with tempfile.TemporaryDirectory() as name:
            one_by_one = act(url, Path(name), range(SAMPLE), 1, turns)
            together = act(url, Path(name), range(SAMPLE, SAMPLE + cases), MOST_IN_FLIGHT, turns)
        ours.send(None)
        most = ours.recv()
        server.join()
        chain = one_by_one.wall / SAMPLE
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{cases} cases of {turns} turns, {asked.latency:g} s a call, {together.calls} calls")
        print(f"  one after the other: {chain:.2f} s a case (mean of {SAMPLE})")
        print(f"  together: {together.wall:.2f} s, {together.wall / chain:.3f} x one case; at most {most} in flight")
        print(f"  client CPU: {1000 * together.cpu / together.calls:.2f} ms a call; memory: {memory:.0f} MiB at most")


if __name__ == "__main__":
    main()
