"""Emulators play the tools: what they promise, and the check of a call that needs no emulator."""

from __future__ import annotations

from typing import Protocol

from toolemu.cases import Case
from toolemu.trajectory import Observation, ToolCall


class EmulatorSession(Protocol):
    """The tools of one trajectory; what one call changes, a later one sees."""

    async def observe(self, call: ToolCall) -> Observation:
        """Returns the observation of a call that has passed `validate_call`."""
        ...


class Emulator(Protocol):
    """Plays the tools. One emulator serves many trajectories at once, a session each."""

    name: str

    def start(self, case: Case, seed: int) -> EmulatorSession:
        """Opens the session of one trajectory; the same case, seed and calls give the same observations."""
        ...
