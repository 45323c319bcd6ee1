"""A rollout to be killed: `python -m tests.toolemu.killed_rollout FOLDER` makes trajectories and notes each start."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from tests.toolemu.acting import LIGHTS, EchoEmulator, case, final, switch
from toolemu.agent import AgentSettings
from toolemu.cases import Case
from toolemu.chat import ChatReply, ChatRequest
from toolemu.jsonl import write_jsonl
from toolemu.rollout import rollout

CASES = 25
SAMPLES = 2


class Dawdler:
    """Takes its time, and says what the seed of the request tells it to."""

    name = "dawdler"

    async def chat(self, request: ChatRequest) -> ChatReply:
        await asyncio.sleep(random.random() / 100)
        rng = random.Random(request.seed)
        text = rng.choice([switch(str(rng.randrange(9))), final(f"Lamp {rng.randrange(99)}."), "Hm.", "é" * 500])
        return ChatReply(text, "stop", 1, 5)


class FreshEcho:
    """Opens an emulator for each session, and notes that it did."""

    name = "echo"

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    def start(self, case: Case, seed: int) -> EchoEmulator:
        with self._notes.open("a") as notes:
            notes.write(f"{case.name}\n")
        return EchoEmulator()


def main(folder: Path) -> None:
    """Runs to the end, or until it is killed."""
    trajectories = asyncio.run(
        rollout(
            {number: case(number) for number in range(CASES)},
            {"Lights": LIGHTS},
            Dawdler(),
            FreshEcho(folder / "started"),
            AgentSettings(prompt_style="brief", temperature=1.0, max_steps=5),
            experiment="killed",
            agent="dawdler",
            seed=1,
            samples=SAMPLES,
            journal=folder / "journal.jsonl",
            concurrency=6,
        )
    )
    write_jsonl(folder / "trajectories.jsonl", trajectories)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
