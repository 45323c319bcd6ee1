"""Trajectories: one agent on one case, step by step, and why it ended."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict

from toolemu.chat.usage import ModelUse

ID_DIGITS = 16
"""Hex digits of a trajectory's id."""


class StopReason(StrEnum):
    """Why a trajectory ended; one label never stands for two reasons.

    `limit` is only in imported trajectories: their message does not say whether tokens or re-prompts ran out.
    """

    final_answer = "final_answer"
    token_budget = "token_budget"
    step_limit = "step_limit"
    unparseable = "unparseable"
    context_full = "context_full"
    repetition = "repetition"
    model_error = "model_error"
    limit = "limit"
    out_of_memory = "out_of_memory"


FAILURES = (StopReason.model_error, StopReason.out_of_memory)
"""Endings by a fault outside the agent: its model, its emulator or their machine failed."""
RUNAWAYS = (StopReason.limit, StopReason.token_budget, StopReason.step_limit, StopReason.repetition)
"""Endings of trajectories that went on until something stopped them."""


class ObservationSource(StrEnum):
    """Who wrote an observation: the emulator, or the check of the call against its specification."""

    emulator = "emulator"
    validation = "validation"


class ToolCall(NamedTuple):
    """One call as the agent wrote it; `tool_input` is the JSON text of its arguments."""

    tool: str
    tool_input: str


class Observation(NamedTuple):
    """A tool's answer, with the emulator's own notes where it keeps any.

    `problem` says in what the answer breaks the tool's specification, `use` what it took to get it.
    """

    text: str
    source: ObservationSource = ObservationSource.emulator
    summary: str = ""
    log: str = ""
    problem: str = ""
    use: ModelUse | None = None


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Record):
    """One tool call and its observation.

    Attributes:
        log: The agent's turn as it counts: thought, action, action input, and any thinking block (which later prompts
            and training leave out).
        tool: The tool's name.
        tool_input: The JSON text of the arguments.
        observation: What the agent was told.
        observation_source: Who wrote the observation.
        emulator_summary: The emulator's one-line note of what happened, if it keeps one.
        emulator_log: The emulator's raw output, if it has one.
        observation_problem: In what the observation breaks the tool's specification, after all attempts to mend it.
        self_observed: The agent went on to write an observation of its own in this turn (cut off when
            `stop_at_observation` is on, kept in `log` when it is off).
    """

    log: str
    tool: str
    tool_input: str
    observation: str
    observation_source: ObservationSource = ObservationSource.emulator
    emulator_summary: str = ""
    emulator_log: str = ""
    observation_problem: str = ""
    self_observed: bool = False


class Trajectory(_Record):
    """One agent on one case.

    Attributes:
        trajectory_id: `trajectory_id(...)` of the next five fields.
        experiment, agent, seed, case_idx, sample: Who and what; `seed` is None for a source model.
        user_input: The instruction the agent was given.
        steps: The tool calls, in order.
        output: The final answer; empty if there was none.
        final_log: The agent's last turn, as far as it came.
        stop_reason: Why it ended.
        final_self_observed: The last turn holds an observation that the agent wrote itself.
        final_cut_off: The answer was cut off where the turn's tokens were used up; None if nobody knows.
        agent_tokens: Tokens the agent generated, over all turns; None if nobody counted.
        reprompts: Turns that had to be asked again because they held neither an action nor an answer.
        emulator: The emulator's name.
        error: What went wrong, for `model_error`.
        agent_use: The calls of the agent's model: tokens, who answered, what was ignored.
        emulator_use: The same of the emulator's, if it is a model.
    """

    trajectory_id: str
    experiment: str
    agent: str
    seed: int | None
    case_idx: int
    sample: int
    user_input: str
    steps: tuple[Step, ...]
    output: str
    final_log: str
    stop_reason: StopReason
    final_self_observed: bool = False
    final_cut_off: bool | None = False
    agent_tokens: int | None = 0
    reprompts: int = 0
    emulator: str = ""
    error: str = ""
    agent_use: ModelUse | None = None
    emulator_use: ModelUse | None = None

    @property
    def failed(self) -> bool:
        """Whether the trajectory says nothing about the agent, so that it is not judged, scored or paired.

        True if a failure outside the agent ended it (`FAILURES`), however far it had come: how the agent would have
        ended is not known. True as well if the agent wrote nothing, whatever the reason: there is nothing to judge.
        False for every other ending. Budgets and the context window are limits of the agent itself, so a trajectory
        that has some of the agent's text and reached one of them shows how this agent ends.
        """
        return self.stop_reason in FAILURES or not (self.steps or self.final_log.strip())

    @property
    def self_observed(self) -> int:
        """The number of turns in which the agent wrote an observation itself."""
        return sum(step.self_observed for step in self.steps) + self.final_self_observed


def trajectory_id(experiment: str, agent: str, seed: int | None, case_idx: int, sample: int) -> str:
    """Return the identity of a trajectory: `ID_DIGITS` hex digits of SHA-256 over its five coordinates."""
    return hashlib.sha256(orjson.dumps([experiment, agent, seed, case_idx, sample])).hexdigest()[:ID_DIGITS]
