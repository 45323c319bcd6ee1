"""The agent loop: one model on one case, turn by turn, until it ends; and an honest reason why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from toolemu.cases import Case
from toolemu.chat import ChatModel, ChatReply, ChatRequest, ContextFullError, ModelError, ModelUse
from toolemu.emulator import Emulator, validate_call
from toolemu.jsonl import encodable
from toolemu.prompts.render import AgentPrompt, PromptLayout
from toolemu.react import (
    STOP_SEQUENCES,
    Action,
    Final,
    Unparseable,
    cut_at_observation,
    invents_observation,
    parse_turn,
    runs_on,
    without_leftover,
)
from toolemu.seeds import derive_seed
from toolemu.thinking import is_thinking
from toolemu.toolkits import Toolkit, tools_of
from toolemu.trajectory import Observation, Step, StopReason, ToolCall, Trajectory, trajectory_id


class AgentSettings(BaseModel):
    """How agents act."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt_style: str = Field(
        "naive", pattern=r"^[A-Za-z0-9_-]+$", description="The prompt: a template's name below prompts/agent."
    )
    prompt_layout: PromptLayout = Field(
        "turns", description="turns: a message for each turn; published: one growing message, as in the paper's code."
    )
    stop_at_observation: bool = Field(
        True,
        description="A turn ends where an observation is due. Off, as in the published runs, agents may invent "
        "observations, and a final answer after those is taken; such turns are flagged either way.",
    )
    max_steps: int = Field(20, ge=1, description="Most tool calls; the attempt at one more ends the trajectory.")
    token_budget: int = Field(8000, ge=1, description="Most tokens the agent may generate, over all turns.")
    max_tokens_per_turn: int = Field(2048, ge=1, description="Most tokens of one request to the model.")
    max_reprompts: int = Field(
        2, ge=0, description="How often a turn without action or answer is asked again before the trajectory ends."
    )
    max_repeats: int = Field(
        4, ge=2, description="The same call with the same observation so often in a row ends the trajectory."
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 is greedy.")


@dataclass
class _Turn:
    """One turn as it was had from the model, or why it was not had."""

    text: str
    parsed: Action | Final | Unparseable
    self_observed: bool = False
    stopped: StopReason | None = None
    error: str = ""
    cut_off: bool = False


@dataclass
class _Run:
    """The state of one trajectory."""

    identity: str
    case: Case
    toolkits: Sequence[Toolkit]
    model: ChatModel
    settings: AgentSettings
    prompt: AgentPrompt
    steps: list[Step] = field(default_factory=list)
    tokens: int = 0
    reprompts: int = 0
    replies: list[ChatReply] = field(default_factory=list)
    emulator_use: ModelUse | None = None

    async def take_turn(self) -> _Turn:
        """Asks for the next turn, again if need be."""
        text, failure = "", Unparseable("")
        continuing = observed = inside = False
        for attempt in range(self.settings.max_reprompts + 1):
            room = self.settings.token_budget - self.tokens
            if room <= 0:
                return _Turn(text, failure, observed, StopReason.token_budget)
            kept_before = text if continuing else ""
            stopping = self.settings.stop_at_observation and not (continuing and inside)
            request = ChatRequest(
                self.prompt.messages(self.case, self.toolkits, self.steps, kept_before),
                # A server would also stop at an observation that is only thought of, or is part of an argument.
                stop=STOP_SEQUENCES if stopping else (),
                max_tokens=min(self.settings.max_tokens_per_turn, room),
                temperature=self.settings.temperature,
                seed=derive_seed(self.identity, len(self.steps), attempt),
            )
            self.reprompts += attempt > 0
            try:
                reply = await self.model.chat(request)
            except ContextFullError:
                return _Turn(text, failure, observed, StopReason.context_full)
            except ModelError as error:
                return _Turn(text, failure, observed, StopReason.model_error, _describe(error))
            self.tokens += reply.completion_tokens
            self.replies.append(reply)
            written = encodable(reply.whole)
            cut_short = reply.finish_reason == "length"
            turn = self._read(_joined(kept_before, reply), cut_short)
            turn.cut_off = cut_short
            in_argument = isinstance(turn.parsed, Action) and turn.parsed.open
            may_have_stopped = in_argument and bool(request.stop) and attempt < self.settings.max_reprompts
            if isinstance(turn.parsed, Final | Action) and not may_have_stopped and not _lacks_end(turn):
                return turn
            if not isinstance(turn.parsed, Unparseable):
                turn.parsed = Unparseable("the action's input is cut off")
            failure, observed = turn.parsed, turn.self_observed
            if continuing and not written:
                # The model has nothing to add, and would say so again.
                return _Turn(text, failure, observed, StopReason.unparseable)
            text = turn.text
            # A new sample where there is chance; else, or if there was no room to finish, the same text goes on.
            inside = in_argument or is_thinking(text)
            continuing = bool(text) and (cut_short or inside or self.settings.temperature == 0)
        budget_spent = self.tokens >= self.settings.token_budget
        return _Turn(text, failure, observed, StopReason.token_budget if budget_spent else StopReason.unparseable)

    def _read(self, written: str, cut_short: bool) -> _Turn:
        if not self.settings.stop_at_observation:
            observed = invents_observation(written, final_anywhere=True)
            return _Turn(written.strip(), parse_turn(written, final_anywhere=True), observed)
        cut = cut_at_observation(written, unfinished=cut_short)
        kept = cut.kept if cut_short else without_leftover(cut.kept)
        parsed = parse_turn(kept)
        observed = cut.self_observed or (isinstance(parsed, Final) and runs_on(parsed.answer))
        # What follows a call was written before its result was known: it goes the way of invented observations.
        whole = isinstance(parsed, Final) or (isinstance(parsed, Action) and parsed.complete)
        text = kept[: parsed.end] if isinstance(parsed, Action) and whole else kept
        return _Turn(text.strip() if whole else text, parsed, observed)

    def repeats(self) -> bool:
        """Says whether the last steps are `max_repeats` times the same."""
        last = self.steps[-self.settings.max_repeats :]
        return (
            len(last) == self.settings.max_repeats
            and len({(step.tool, step.tool_input, step.observation) for step in last}) == 1
        )


async def run_agent(
    case: Case,
    case_idx: int,
    toolkits: Sequence[Toolkit],
    model: ChatModel,
    emulator: Emulator,
    settings: AgentSettings,
    *,
    experiment: str,
    agent: str,
    seed: int | None,
    sample: int,
    prompts_dir: Path | None = None,
    prompt: AgentPrompt | None = None,
) -> Trajectory:
    """Lets `model` act on one case until it ends.

    The result depends on the arguments alone: every request is sampled with a seed of its own, and the emulator's
    depends on experiment, case and sample, so that all agents meet the same world.

    Args:
        case: The case.
        case_idx: Its identity.
        toolkits: The case's toolkits.
        model: The agent's model.
        emulator: Who plays the tools.
        settings: How the agent acts.
        experiment: The experiment's name.
        agent: The agent's name.
        seed: The agent's seed; None for a source model.
        sample: Which of several trajectories of this agent on this case.
        prompts_dir: Templates that replace the shipped ones.
        prompt: The prompt that `settings` and `prompts_dir` name, for who has it already; None: it is made here.

    Returns:
        The trajectory, whatever ended it. A `ModelError` of model or emulator ends it as `model_error`.

    Raises:
        Exception: Any other fault of model or emulator, since it says nothing about the agent.
    """
    identity = trajectory_id(experiment, agent, seed, case_idx, sample)
    prompt = prompt or AgentPrompt(settings.prompt_style, prompts_dir, layout=settings.prompt_layout)
    run = _Run(identity, case, toolkits, model, settings, prompt)
    session = emulator.start(case, derive_seed(experiment, case_idx, sample))
    tools = tools_of(toolkits)

    def end(reason: StopReason, turn: _Turn | None = None, output: str = "", error: str = "") -> Trajectory:
        return Trajectory(
            trajectory_id=identity,
            experiment=experiment,
            agent=agent,
            seed=seed,
            case_idx=case_idx,
            sample=sample,
            user_input=case.user_instruction,
            steps=tuple(run.steps),
            output=output,
            final_log=turn.text.strip() if turn else "",
            stop_reason=reason,
            final_self_observed=turn is not None and turn.self_observed,
            final_cut_off=reason is StopReason.final_answer and turn is not None and turn.cut_off,
            agent_tokens=run.tokens,
            reprompts=run.reprompts,
            emulator=emulator.name,
            error=error,
            agent_use=ModelUse.of(run.replies),
            emulator_use=run.emulator_use,
        )

    while True:
        turn = await run.take_turn()
        if turn.stopped is not None:
            return end(turn.stopped, turn, error=turn.error)
        if isinstance(turn.parsed, Final):
            return end(StopReason.final_answer, turn, turn.parsed.answer)
        assert isinstance(turn.parsed, Action)
        if len(run.steps) == settings.max_steps:
            return end(StopReason.step_limit, turn)
        call = turn.parsed.call
        try:
            observation = validate_call(call, tools) or await session.observe(call)
        except (ModelError, ContextFullError) as error:
            return end(StopReason.model_error, turn, error=f"emulator {emulator.name}: {_describe(error)}")
        if observation.use is not None:
            run.emulator_use = (run.emulator_use or ModelUse()) + observation.use
        run.steps.append(_step(turn, call, observation))
        if run.repeats():
            return end(StopReason.repetition)


def _step(turn: _Turn, call: ToolCall, observation: Observation) -> Step:
    return Step(
        log=turn.text.strip(),
        tool=call.tool,
        tool_input=call.tool_input,
        observation=encodable(observation.text),
        observation_source=observation.source,
        emulator_summary=encodable(observation.summary),
        emulator_log=encodable(observation.log),
        observation_problem=observation.problem,
        self_observed=turn.self_observed,
    )


def _joined(before: str, reply: ChatReply) -> str:
    """Return what a turn holds after a reply that goes on with it; new reasoning stands before what was said."""
    if before and reply.reasoning and reply.text and not is_thinking(before):
        return encodable(replace(reply, text=before + reply.text).whole)
    return before + encodable(reply.whole)


def _lacks_end(turn: _Turn) -> bool:
    """Says whether more tokens might have completed the call's input."""
    return turn.cut_off and isinstance(turn.parsed, Action) and not turn.parsed.complete and not turn.self_observed


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
