"""A trajectory as the chat that the released code trains on: its rules, faults included, for who wants them.

Our own training builds its conversations in `training/`; this one is for the export and for comparison.
"""

from __future__ import annotations

import re

from toolemu.trajectory import StopReason, Trajectory

_BLOCK = re.compile(r"<think>.*?</think>", re.DOTALL)
_TAG = re.compile(r"</?think>")
THOUGHT = "Thought:"
OBSERVATION = "Observation: "
Message = dict[str, str]


def strip_blocks(text: str) -> str:
    """Returns `text` without closed thinking blocks and without stray tags; unclosed reasoning stays."""
    return _TAG.sub("", _BLOCK.sub("", text))


def published_conversation(trajectory: Trajectory) -> list[Message]:
    """Returns the messages after the prompt: a turn each for agent and tool, invented observations included."""
    messages: list[Message] = []
    turns = [(step.log, step.observation) for step in trajectory.steps]
    ending = "[OOM]" if trajectory.stop_reason is StopReason.out_of_memory else None
    for number, (log, observation) in enumerate([*turns, (trajectory.final_log, ending)]):
        text = strip_blocks(log).lstrip()
        if number == 0:
            text = text.removeprefix(THOUGHT).lstrip() if text.startswith(THOUGHT) else text
        elif not text.startswith(f"{THOUGHT} "):
            text = f"{THOUGHT} {text}"
        messages.append({"role": "assistant", "content": text})
        if observation is not None:
            messages.append({"role": "user", "content": OBSERVATION + strip_blocks(observation)})
    return messages
