"""A small world for the tests: one toolkit, cases that use it, models that say what they are told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from toolemu.agent import AgentSettings, run_agent
from toolemu.cases import Case, Underspecifications
from toolemu.chat import ChatReply, ChatRequest
from toolemu.toolkits import Parameter, Return, Tool, ToolException, Toolkit
from toolemu.trajectory import Observation, ToolCall, Trajectory


def parameter(name: str, kind: str, required: bool | None = True) -> Parameter:
    return Parameter(name=name, type=kind, description=f"The {name}.", required=required)


LIGHTS = Toolkit(
    toolkit="Lights",
    name_for_model="Lights",
    name_for_human="Lights",
    description_for_model="Switches lamps.",
    description_for_human="Switches lamps.",
    tools=(
        Tool(
            name="Switch",
            summary="Switch a lamp.",
            parameters=(
                parameter("lamp", "string"),
                parameter("on", "boolean"),
                parameter("delay", "integer", False),
                parameter("level", "number", False),
                parameter("colours", "array", False),
                parameter("options", "object", False),
                parameter("unclear", "string", None),
                parameter("odd", "colour", False),
            ),
            returns=(Return(name="success", type="boolean", description="Whether it worked."),),
            exceptions=(ToolException(name="NotFoundException", description="There is no such lamp."),),
        ),
        Tool(name="List", summary="List the lamps.", parameters=(), returns=()),
    ),
)
TOOLS = LIGHTS.tools_by_name


def case(number: int = 0) -> Case:
    return Case(
        name=f"case_{number}",
        toolkits=("Lights",),
        user_instruction=f"Switch lamp {number} on.",
        underspecifications=Underspecifications(task=(), safety=()),
        expected_achievements=("The lamp is on.",),
        risky_outcomes=("It gets dark.",),
        risky_actions=("Switching it off.",),
    )


def switch(lamp: str = "a", thought: str = "I switch it.") -> str:
    return f'Thought: {thought}\nAction: LightsSwitch\nAction Input: {{"lamp": "{lamp}", "on": true}}'


def final(answer: str = "Done.") -> str:
    return f"Thought: That is all.\nFinal Answer: {answer}"


class EchoEmulator:
    """Answers every call with its number in the session and the session's seed."""

    name = "echo"

    def __init__(self, fault: Exception | None = None, constant: bool = False) -> None:
        self.calls: list[ToolCall] = []
        self.seeds: list[int] = []
        self.fault = fault
        self.constant = constant

    def start(self, case: Case, seed: int) -> EchoEmulator:
        self.seeds.append(seed)
        return self

    async def observe(self, call: ToolCall) -> Observation:
        if self.fault is not None:
            raise self.fault
        self.calls.append(call)
        number = 0 if self.constant else len(self.calls)
        return Observation(json.dumps({"success": True, "call": number}), summary="echoed", log="raw")


class ScriptedChat:
    """Replies what its script says, in order; a script's exception is raised, a callable is asked."""

    name = "scripted"

    def __init__(self, *script: str | ChatReply | BaseException | Callable[[ChatRequest], str]) -> None:
        self.script = list(script)
        self.requests: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        await asyncio.sleep(0)
        line = self.script[0] if len(self.script) == 1 else self.script.pop(0)
        if isinstance(line, BaseException):
            raise line
        if isinstance(line, ChatReply):
            return line
        text = line if isinstance(line, str) else line(request)
        return ChatReply(text, "stop", 10, len(text.split()))


def act(
    model: ScriptedChat,
    emulator: EchoEmulator | None = None,
    *,
    sample: int = 0,
    agent: str = "tester",
    prompts_dir: Path | None = None,
    toolkits: Sequence[Toolkit] = (LIGHTS,),
    **settings: object,
) -> Trajectory:
    """Lets `model` act on the first case."""
    return asyncio.run(
        run_agent(
            case(),
            0,
            toolkits,
            model,
            emulator or EchoEmulator(),
            AgentSettings(**settings),
            experiment="test",
            agent=agent,
            seed=None,
            sample=sample,
            prompts_dir=prompts_dir,
        )
    )
