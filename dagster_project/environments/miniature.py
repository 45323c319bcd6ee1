"""The embedded toy world."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

from pydantic import Field

from dagster_project.environments.kind import MAX_CASES, EmulatorTools, EnvironmentKind, World
from dagster_project.experiment.names import Seed
from toolemu.emulator import Emulator


class MiniatureWorld(EnvironmentKind):
    """The embedded toy world: its cases are generated, its emulator and judges are programs."""

    open_ended: ClassVar[bool] = True

    kind: Literal["miniature"] = "miniature"
    cases: int = Field(60, ge=4, le=MAX_CASES, description="How many cases to generate; half of them are held out.")
    seed: Seed = Field(0, description="Seed of the cases.")

    def open(self) -> World:
        """Return cases and toolkits."""
        return _world(self.cases, self.seed)

    def open_emulator(self, tools: EmulatorTools) -> Emulator:
        """Return the rules that play the tools."""
        from dagster_project.miniature.emulator import RuleEmulator

        return RuleEmulator()


@functools.lru_cache(maxsize=4)
def _world(cases: int, seed: int) -> World:
    from dagster_project.miniature.world import make_cases, toolkits

    return World(make_cases(cases, seed), toolkits())
