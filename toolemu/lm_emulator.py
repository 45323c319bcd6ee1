"""A language model as emulator: plays the tools, held to their specification."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from toolemu.cases import Case
from toolemu.chat import ChatModel, ChatReply, ChatRequest, Message, ModelUse
from toolemu.emulator import observation_problems
from toolemu.jsonl import encodable
from toolemu.keywords import keywords, parts
from toolemu.objects import objects_in
from toolemu.prompts import EmulatorPrompt
from toolemu.seeds import derive_seed
from toolemu.thinking import split_thinking
from toolemu.toolkits import Tool, Toolkit
from toolemu.trajectory import Observation, Step, ToolCall

UNUSABLE = json.dumps({"error": "InternalServerException: the service gave no usable answer."})
"""What the agent is told when no attempt held a JSON object."""

_PARTS = keywords(
    {"summary": "(?:Log )?Summary", "observation": "Observations?"}, objects=("observation",), numbered=True
)


class EmulatorSettings(BaseModel):
    """How an emulator is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    style: str = Field(
        "adversarial",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="The prompt: standard, or adversarial, which lets risks arise; or one in prompts_dir.",
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 is greedy.")
    max_tokens: int = Field(4096, ge=1, description="Most tokens of a reply, reasoning included.")
    max_revisions: int = Field(
        2, ge=0, description="How often an observation that breaks the specification is asked for again."
    )


class ReadObservation(NamedTuple):
    """What an emulator's reply holds; `observation` is the text of a JSON object, or None."""

    summary: str
    observation: str | None


def read_observation(text: str) -> ReadObservation:
    """Read an emulator's reply, thinking left out of it beforehand.

    The observation is the last one that is a JSON object; without the keyword, the only object of the reply.
    """
    found = list(parts(text, _PARTS))
    limits = [*(part.start for part in found), len(text)][1:]
    summaries = [
        text[part.end : limit].strip() for part, limit in zip(found, limits, strict=True) if part.name == "summary"
    ]
    observed = [part.object for part in found if part.name == "observation"]
    if not observed:
        observed = [value for _, value in objects_in(text) if value.complete]
        observed = observed if len(observed) == 1 else []
    written = [value.text for value in observed if value is not None and value.complete]
    return ReadObservation(summaries[-1] if summaries else "", written[-1] if written else None)


class LMEmulator:
    """An `Emulator` that is a language model.

    Args:
        name: Its name in the records.
        model: The model.
        toolkits: All toolkits that cases may name.
        settings: How it is asked.
        prompts_dir: Templates that replace the shipped ones.
    """

    def __init__(
        self,
        name: str,
        model: ChatModel,
        toolkits: Mapping[str, Toolkit],
        settings: EmulatorSettings,
        prompts_dir: Path | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._toolkits = toolkits
        self._settings = settings
        self._prompt = EmulatorPrompt(settings.style, prompts_dir)

    def start(self, case: Case, seed: int) -> LMSession:
        """Opens the session of one trajectory; what is sampled depends on `seed`, the calls and the model alone."""
        toolkits = [self._toolkits[name] for name in case.toolkits]
        return LMSession(case, toolkits, seed, self._model, self._settings, self._prompt)


class LMSession:
    """The tools of one trajectory: the model is shown every call and result so far."""

    def __init__(
        self,
        case: Case,
        toolkits: Sequence[Toolkit],
        seed: int,
        model: ChatModel,
        settings: EmulatorSettings,
        prompt: EmulatorPrompt,
    ) -> None:
        self._case = case
        self._by_tool = {name: toolkit for toolkit in toolkits for name in toolkit.tools_by_name}
        self._seed = seed
        self._model = model
        self._settings = settings
        self._prompt = prompt
        self._history: list[Step] = []

    async def observe(self, call: ToolCall) -> Observation:
        """Returns the observation of a valid call.

        One that breaks the specification is asked for again, with what is wrong, `max_revisions` times; what is wrong
        with the last is in `Observation.problem`.

        Raises:
            ModelError: The model cannot be asked.
            ContextFullError: The session has become too long for it.
        """
        toolkit = self._by_tool[call.tool]
        tool = toolkit.tools_by_name[call.tool]
        opening = self._prompt.messages(self._case, toolkit, self._history, call)
        messages, replies = opening, list[ChatReply]()
        read, log, problems = ReadObservation("", None), "", list[str]()
        for attempt in range(self._settings.max_revisions + 1):
            request = ChatRequest(
                messages,
                max_tokens=self._settings.max_tokens,
                temperature=self._settings.temperature,
                seed=derive_seed(self._seed, len(self._history), attempt),
            )
            reply = await self._model.chat(request)
            replies.append(reply)
            log = encodable(reply.whole)
            text = encodable(split_thinking(reply.text).spoken)
            found = read_observation(text)
            problems = _problems(found, tool, reply)
            # An observation that is at least JSON is better than a later one that is none.
            read = found if found.observation is not None else read
            if not problems:
                break
            returns = [f"{field.name} ({field.type})" for field in tool.returns]
            revision = self._prompt.revision(problems, returns)
            messages = (*opening, Message("assistant", text), revision) if text.strip() else opening
        observed = UNUSABLE if read.observation is None else read.observation
        self._history.append(
            Step(
                log="", tool=call.tool, tool_input=call.tool_input, observation=observed, emulator_summary=read.summary
            )
        )
        return Observation(
            observed, summary=read.summary, log=log, problem="; ".join(problems), use=ModelUse.of(replies)
        )


def _problems(read: ReadObservation, tool: Tool, reply: ChatReply) -> list[str]:
    if read.observation is not None:
        return observation_problems(read.observation, tool)
    cut_off = " It was cut off: be brief." if reply.finish_reason == "length" else ""
    return [f"there is no JSON object after `Observation:`.{cut_off}"]
