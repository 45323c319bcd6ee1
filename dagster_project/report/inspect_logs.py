"""Trajectories and verdicts as logs of Inspect (UK AISI's evaluation framework), so that `inspect view` opens them."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from dagster_project.artifacts import ArtifactStore
from dagster_project.artifacts.processes import die_with_parent, process_context
from dagster_project.experiment.graph import Graph
from dagster_project.report.transcript_files import Source, made_sources, transcripts
from toolemu.errors import FrontierError

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore
    from inspect_ai.model import ChatMessage

EXTRA = "Inspect is not installed. Install it: pip install 'safety-frontier[view]'."
Record = dict[str, Any]


def export_logs(
    graph: Graph, store: ArtifactStore, directory: Path, agent: str | None = None, seed: int | None = None
) -> dict[str, int]:
    """Writes the logs of an experiment, or of one agent or seed, into a new or empty folder, and returns how many.

    Raises:
        FrontierError: Nothing is like that, there is something in the folder, or Inspect is not installed.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FrontierError(f"{directory}: there is something already. Name a new or an empty folder.")
    found, made = made_sources(graph, store, agent, seed)
    return write_logs(graph.experiment.name, found, directory, made.isoformat())


def write_logs(
    experiment: str,
    found: Iterable[Source],
    directory: Path,
    created: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Writes a log for every agent and seed into `directory`, and returns how many of logs and samples.

    Args:
        experiment: The task's name in the logs.
        found: Whose trajectories, from `transcript_files.sources`.
        directory: Where to write; made if need be.
        created: When the trajectories were made, in ISO 8601.
        progress: Told after every log how many of how many are written.

    Raises:
        FrontierError: Inspect is not installed.
    """
    if importlib.util.find_spec("inspect_ai") is None:
        raise FrontierError(EXTRA)
    found, samples = list(found), 0
    directory.mkdir(parents=True, exist_ok=True)
    write = functools.partial(_write_log, experiment, directory, created)
    with ExitStack() as stack:
        processes = min(os.cpu_count() or 1, len(found))
        if processes > 1:  # importing Inspect takes longer than writing a log or two
            context = process_context([__name__, "inspect_ai.log"])
            pool = ProcessPoolExecutor(processes, mp_context=context, initializer=die_with_parent)
            written: Iterator[int] = stack.enter_context(pool).map(write, found)
        else:
            written = map(write, found)
        for done, count in enumerate(written, 1):
            samples += count
            progress(done, len(found))
    return {"logs": len(found), "samples": samples}


def _write_log(experiment: str, directory: Path, created: str, source: Source) -> int:
    """Writes one log, and returns its number of samples."""
    from inspect_ai.log import write_eval_log

    log = eval_log(experiment, source, created)
    write_eval_log(log, directory / log_name(source), format="eval")
    return len(log.samples or ())


def log_name(source: Source) -> str:
    """Returns a log's file name: what of the agent's name can be in one, and a hash of all of it."""
    # Inspect's server refuses every path with two dots in a row.
    readable = re.sub(r"[^\w.-]+|\.{2,}", "_", source.agent, flags=re.ASCII)[:80].strip("._")
    seed = "" if source.seed is None else f"_seed-{source.seed}"
    return f"{readable}{seed}_{_digest(source)[:8]}.eval"


def eval_log(experiment: str, source: Source, created: str) -> EvalLog:
    """Returns the log of one agent and seed: a sample for every trajectory, a score for every judge and metric."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats

    records = list(transcripts(source))
    samples = [_sample(record, source) for record in records]
    digest = _digest(source)
    ids = sorted({record["case_idx"] for record in records})
    spec = EvalSpec(
        eval_id=digest[:22],
        run_id=digest[22:44],
        task_id=digest[44:],
        created=created,
        task=experiment,
        model=source.agent,
        dataset=EvalDataset(name="cases", samples=len(ids), sample_ids=ids),
        config=EvalConfig(epochs=max((record["sample"] for record in records), default=0) + 1),
        metadata={"agent": source.agent, "seed": source.seed},
    )
    results = EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=_means(samples))
    stats = EvalStats(started_at=created, completed_at=created)
    return EvalLog(status="success", eval=spec, samples=samples, results=results, stats=stats)


def _digest(source: Source) -> str:
    return hashlib.sha256(orjson.dumps([source.agent, source.seed])).hexdigest()


def _sample(record: Record, source: Source) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    by_score: dict[str, list[Record]] = {}
    for verdict in record["verdicts"]:
        if verdict["score"] is not None:
            by_score.setdefault(f"{verdict['judge']} {verdict['metric']}", []).append(verdict)
    scores = {
        name: Score(
            value=sum(verdict["score"] for verdict in verdicts) / len(verdicts),
            answer=verdicts[0]["label"],
            explanation="\n\n".join(verdict["thought"] for verdict in verdicts),
        )
        for name, verdicts in by_score.items()
    }
    invented = record["final_self_observed"] or any(step["self_observed"] for step in record["steps"])
    told = ("trajectory_id", "stop_reason", "emulator", "agent_tokens", "reprompts", "error")
    return EvalSample(
        id=record["case_idx"],
        epoch=record["sample"] + 1,
        input=record["user_input"],
        target="",
        messages=_messages(record),
        output=ModelOutput.from_content(source.agent, record["output"]),
        scores=scores,
        metadata={**{name: record[name] for name in told}, "invented_observations": invented},
    )


def _messages(record: Record) -> list[ChatMessage]:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageTool, ChatMessageUser
    from inspect_ai.tool import ToolCall

    messages: list[ChatMessage] = [ChatMessageUser(id="input", content=record["user_input"])]
    for place, step in enumerate(record["steps"]):
        arguments, problem = _arguments(step["tool_input"])
        call = ToolCall(id=f"call-{place}", function=step["tool"], arguments=arguments, parse_error=problem)
        messages += [
            ChatMessageAssistant(id=f"turn-{place}", content=step["log"], tool_calls=[call]),
            ChatMessageTool(
                id=f"result-{place}", content=step["observation"], tool_call_id=call.id, function=step["tool"]
            ),
        ]
    return [*messages, ChatMessageAssistant(id="end", content=record["final_log"])]


def _arguments(text: str) -> tuple[dict[str, Any], str | None]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return {"input": text}, f"not valid JSON: {error.msg}"
    return (value, None) if isinstance(value, dict) else ({"input": value}, None)


def _means(samples: Iterable[EvalSample]) -> list[EvalScore]:
    from inspect_ai.log import EvalMetric, EvalScore

    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, score in (sample.scores or {}).items():
            values.setdefault(name, []).append(score.as_float())
    return [
        EvalScore(
            name=name,
            scorer=name,
            scored_samples=len(found),
            metrics={"mean": EvalMetric(name="mean", value=sum(found) / len(found))},
        )
        for name, found in sorted(values.items())
    ]
