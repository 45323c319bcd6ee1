"""What records took of their models: calls, tokens, money."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import NamedTuple

from dagster_project.experiment.spec import Experiment
from toolemu.chat import ModelUse
from toolemu.evaluation import Evaluation
from toolemu.trajectory import Trajectory

FIELDS = ("calls", "prompt_tokens", "completion_tokens", "reasoning_tokens")


class RoleUse(NamedTuple):
    """What one role took; `cost` is None where the experiment file gives no price."""

    role: str
    use: ModelUse
    cost: float | None

    def counts(self) -> dict[str, int]:
        """Returns calls and tokens, by names that begin with the role's."""
        return {f"{self.role}_{name}": getattr(self.use, name) for name in FIELDS}

    def metrics(self) -> dict[str, float]:
        """Returns the cost, by a name that begins with the role's."""
        return {} if self.cost is None else {f"{self.role}_cost": self.cost}


def trajectory_use(experiment: Experiment, agent: str, trajectories: Iterable[Trajectory]) -> list[RoleUse]:
    """Returns what agent and emulator took for `trajectories`."""
    trajectories = list(trajectories)
    used = [_use(experiment, "agent", experiment.place_of(agent), (t.agent_use for t in trajectories))]
    if experiment.world.role is not None:
        used.append(_use(experiment, "emulator", "world.emulator", (t.emulator_use for t in trajectories)))
    return used


def evaluation_use(experiment: Experiment, judge: str, evaluations: Iterable[Evaluation]) -> list[RoleUse]:
    """Returns what a judge took for `evaluations`; nothing if it is no model."""
    if experiment.judges[judge].role is None:
        return []
    return [_use(experiment, "judge", f"judges.{judge}", (evaluation.use for evaluation in evaluations))]


def _use(experiment: Experiment, role: str, place: str, uses: Iterable[ModelUse | None]) -> RoleUse:
    total = reduce(add, (use for use in uses if use is not None), ModelUse())
    asked = experiment.roles().get(place)
    price = experiment.prices.get(asked.model) if asked else None
    return RoleUse(role, total, None if price is None else total.cost(price))
