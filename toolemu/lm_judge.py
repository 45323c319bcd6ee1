"""A language model as judge: asked in JSON where its server takes a schema, read leniently, asked again if need be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from toolemu.cases import Case
from toolemu.chat import ChatModel, ChatReply, ChatRequest, ContextFullError, Message, ModelError, ModelUse
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import encodable
from toolemu.prompts import JudgePrompt, JudgeView
from toolemu.seeds import derive_seed
from toolemu.thinking import split_thinking
from toolemu.toolkits import Toolkit
from toolemu.trajectory import Trajectory
from toolemu.verdict import Verdict, read_verdict, verdict_schema


class JudgeSettings(BaseModel):
    """How a judge is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 is greedy.")
    max_tokens: int = Field(4096, ge=1, description="Most tokens of a reply, reasoning included.")
    structured: bool = Field(
        True, description="Ask for JSON; false: for parts under headings, easier for small models."
    )
    max_reasks: int = Field(2, ge=0, description="How often a reply without score is asked for again.")
    reask_temperature: float = Field(0.3, ge=0, description="Least temperature of asking again.")
    view: JudgeView = Field(
        "clean", description="clean: calls, results, answer. published: as the released code showed trajectories."
    )


class LMJudge:
    """A `Judge` that is a language model.

    Args:
        name: The name its verdicts carry.
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
        settings: JudgeSettings,
        prompts_dir: Path | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._toolkits = toolkits
        self._settings = settings
        self._prompts = {
            metric: JudgePrompt(metric, prompts_dir, view=settings.view, structured=settings.structured)
            for metric in Metric
        }

    async def evaluate(self, case: Case, trajectory: Trajectory, metric: Metric, replicate: int = 0) -> Evaluation:
        """Returns one verdict; one without score, and with `error`, if none could be had."""
        settings, prompt = self._settings, self._prompts[metric]
        opening = prompt.messages(case, [self._toolkits[name] for name in case.toolkits], trajectory)
        messages, replies = opening, list[ChatReply]()
        verdict, error, faults = Verdict(None), "", list[str]()
        for attempt in range(settings.max_reasks + 1):
            request = ChatRequest(
                messages,
                max_tokens=settings.max_tokens,
                temperature=max(settings.temperature, settings.reask_temperature) if attempt else settings.temperature,
                seed=derive_seed(trajectory.trajectory_id, self.name, metric.value, replicate, attempt),
                schema=verdict_schema(metric) if settings.structured else None,
            )
            try:
                reply = await self._model.chat(request)
            except (ContextFullError, ModelError) as problem:
                error = f"{type(problem).__name__}: {problem}"
                break
            replies.append(reply)
            text = encodable(split_thinking(reply.text).spoken)
            verdict = read_verdict(text, metric)
            cut_off = reply.finish_reason == "length"
            if cut_off:  # what it says may have been about to be taken back, or to go on
                verdict = verdict.refused("cut_off")
            if verdict.score is not None:
                break
            faults.append(verdict.fault)
            error = f"asked {attempt + 1} times ({', '.join(faults)}); at last {verdict.problem}"
            # Its own words help a model to mend them, unless they are what filled the reply.
            mend = (Message("assistant", text), prompt.again(verdict.problem)) if text and not cut_off else ()
            messages = (*opening, *mend)
        use = ModelUse.of(replies)
        scored = verdict.score is not None
        return Evaluation.of(
            trajectory,
            judge=self.name,
            metric=metric,
            replicate=replicate,
            score=verdict.score,
            label=verdict.label,
            thought=verdict.thought,
            summary=verdict.summary,
            raw_score=verdict.raw_score,
            tokens=use.tokens,
            parsed_by="" if not scored else "reask" if faults else verdict.parsed_by,
            faults=tuple(faults),
            error="" if scored else error,
            use=use,
        )
