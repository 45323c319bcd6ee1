"""Records of the released runs to our records and back: pure, one record at a time.

Nothing of a record is lost on the way in that the way out would need, so that a released file, imported and exported,
comes out as it was (its case apart, which is stored once and not with every trajectory).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from dagster_project.published.names import SCORE_KEYS
from toolemu.cases import Case
from toolemu.errors import FrontierError, shorten, validation_problem
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import MAX_LEVELS, is_deeper
from toolemu.react import invents_observation
from toolemu.trajectory import ObservationSource, Step, StopReason, Trajectory, trajectory_id

LIMIT = "Agent stopped: token limit exceeded"
OUT_OF_MEMORY = "Agent stopped: OOM"
ITERATIONS = "Agent stopped due to iteration limit or time limit."
ENDINGS = {
    LIMIT: StopReason.limit,
    OUT_OF_MEMORY: StopReason.out_of_memory,
    ITERATIONS: StopReason.step_limit,
}
"""What `output` says where it is no answer. The first also stands where re-prompts ran out."""
REFUSED = '{"error": "InvalidRequestException'
OOM_MARK = "[OOM]"
MAX_TOKENS = 2**53
"""A number of tokens that a table can hold."""


class RecordError(FrontierError):
    """A record is not as its format says; the message says which key, what was found and what was expected."""


class Origin(NamedTuple):
    """Whose record it is."""

    experiment: str
    agent: str
    seed: int | None
    sample: int
    emulator: str


def _text(record: Mapping[str, Any], key: str, *, nullable: bool = False) -> str:
    value = record.get(key)
    if isinstance(value, str):
        return value
    if value is None and nullable:
        return ""
    raise RecordError(f"'{key}': expected text, found {shorten(value)}")


def _texts(values: object, place: str) -> list[str]:
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(value, str) for value in values):
        raise RecordError(f"{place}: expected three texts, found {shorten(values)}")
    return values


def case_index(record: object) -> int:
    """Returns a record's `case_idx`, having checked that it is a trajectory at all."""
    if not isinstance(record, dict):
        raise RecordError(f"expected a JSON object, found {shorten(record)}")
    if "error" in record:
        raise RecordError(f"a failed run, not a trajectory: {shorten(record['error'])}")
    index = record.get("case_idx")
    if type(index) is not int or index < 0:
        raise RecordError(f"'case_idx': expected a whole number, found {shorten(index)}")
    return index


def read_trajectory(record: Mapping[str, Any], origin: Origin) -> Trajectory:
    """Returns the trajectory that a released record holds.

    Raises:
        RecordError: Something in it is missing or of another type.
    """
    index = case_index(record)
    steps = record.get("intermediate_steps")
    if not isinstance(steps, list) or not steps:
        raise RecordError(f"'intermediate_steps': expected a list of at least one step, found {shorten(steps)}")
    output = _text(record, "output")
    stop = ENDINGS.get(output, StopReason.final_answer)
    case = record.get("case")
    if not isinstance(case, dict) or not isinstance(case.get("User Instruction"), str):
        raise RecordError(f"'case': expected a case with its 'User Instruction', found {shorten(case)}")
    _check_case(case)
    if stop is not StopReason.out_of_memory and _text(record, "input") != case["User Instruction"]:
        raise RecordError(f"'input': expected the case's instruction, found {shorten(record['input'])}")
    parsed = [_read_step(step, number) for number, step in enumerate(steps[:-1])]
    final_log = _read_final(steps[-1], output, len(steps) - 1, out_of_memory=stop is StopReason.out_of_memory)
    return Trajectory(
        trajectory_id=trajectory_id(origin.experiment, origin.agent, origin.seed, index, origin.sample),
        experiment=origin.experiment,
        agent=origin.agent,
        seed=origin.seed,
        case_idx=index,
        sample=origin.sample,
        user_input=case["User Instruction"],
        steps=tuple(parsed),
        output=output if stop is StopReason.final_answer else "",
        final_log=final_log,
        stop_reason=stop,
        final_self_observed=invents_observation(final_log, final_anywhere=True),
        final_cut_off=None,
        agent_tokens=None,
        emulator=origin.emulator,
    )


def _check_case(case: Mapping[str, Any]) -> None:
    """Raise `RecordError` if a case is not as ToolEmu has them, which the report would find too late."""
    if is_deeper(case):
        raise RecordError(f"'case': its values lie more than {MAX_LEVELS} levels deep")
    try:
        Case.model_validate(case)
    except ValidationError as error:
        place, problem = validation_problem(error)
        raise RecordError(f"'case'.{place}: {problem}") from None


def _read_step(step: object, number: int) -> Step:
    place = f"'intermediate_steps'[{number}]"
    if not isinstance(step, list) or len(step) != 2:
        raise RecordError(f"{place}: expected a pair of call and observation, found {shorten(step)}")
    tool, tool_input, log = _texts(step[0], f"{place}[0]")
    observation, summary, emulator_log = _texts(step[1], f"{place}[1]")
    refused = observation.startswith(REFUSED) and observation == emulator_log and not summary
    return Step(
        log=log,
        tool=tool,
        tool_input=tool_input,
        observation=observation,
        observation_source=ObservationSource.validation if refused else ObservationSource.emulator,
        emulator_summary=summary,
        emulator_log=emulator_log,
        self_observed=invents_observation(log),
    )


def _read_final(step: object, output: str, number: int, *, out_of_memory: bool) -> str:
    place = f"'intermediate_steps'[{number}]"
    if not isinstance(step, list) or len(step) != 2:
        raise RecordError(f"{place}: expected a pair of turn and nothing, found {shorten(step)}")
    if out_of_memory and isinstance(step[0], list):
        return _texts(step[0], f"{place}[0]")[2]
    left = step[0]
    values = left.get("return_values") if isinstance(left, dict) else None
    if not isinstance(left, dict) or not isinstance(values, dict):
        raise RecordError(f"{place}: expected the final turn, found {shorten(left)}")
    if values.get("output") != output:
        raise RecordError(f"{place}: its output differs from the record's 'output' {shorten(output)}")
    return _text(left, "log")


def write_trajectory(trajectory: Trajectory, case: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trajectory as a released record; `case` is its case in ToolEmu's schema."""
    steps: list[list[Any]] = [
        [[step.tool, step.tool_input, step.log], [step.observation, step.emulator_summary, step.emulator_log]]
        for step in trajectory.steps
    ]
    output = {reason: text for text, reason in ENDINGS.items()}.get(trajectory.stop_reason, trajectory.output)
    if trajectory.stop_reason not in ENDINGS.values() and trajectory.stop_reason is not StopReason.final_answer:
        output = LIMIT  # the format has no other word for an ending without an answer
    if trajectory.stop_reason is StopReason.out_of_memory:
        steps.append([[OOM_MARK, "", trajectory.final_log], [OOM_MARK, "", OOM_MARK]])
        return {"intermediate_steps": steps, "output": output, "case": case, "case_idx": trajectory.case_idx}
    final = {"return_values": {"output": output}, "log": trajectory.final_log, "type": "AgentFinish"}
    return {
        "input": trajectory.user_input,
        **case_texts(case),
        "output": output,
        "intermediate_steps": [*steps, [final, ""]],
        "case": case,
        "case_idx": trajectory.case_idx,
    }


def case_texts(case: Mapping[str, Any]) -> dict[str, str]:
    """Returns the fields of a case that a released record repeats as text."""
    parsed = Case.model_validate(case)
    underspecified = {
        "Task Information Underspecifications": parsed.underspecifications.task,
        "Safety & Security Constraint Underspecifications": parsed.underspecifications.safety,
    }
    text = "".join(f"\n- {name}: {_bullets(items, '    ')}" for name, items in underspecified.items())
    return {
        "underspecifications": text,
        "risky_outcome": _bullets(parsed.risky_outcomes, ""),
        "risky_actions": _bullets(parsed.risky_actions, ""),
    }


def _bullets(items: tuple[str, ...], indent: str) -> str:
    return "".join(f"\n{indent}* {item}" for item in items) or "None"


def read_evaluations(record: object, line: int, metric: Metric, judge: str, of: Trajectory) -> list[Evaluation]:
    """Returns the verdicts in one released record, one for each replicate.

    Args:
        record: The record.
        line: Its position in its file, from 0, which `eval_id` must repeat.
        metric: What the file scores.
        judge: Whose verdicts they are.
        of: The trajectory on that line.

    Raises:
        RecordError: Something in it is missing, of another type or out of range.
    """
    if not isinstance(record, dict):
        raise RecordError(f"expected a JSON object, found {shorten(record)}")
    if "error" in record and "eval_id" not in record:
        raise RecordError(f"a failed verdict without 'eval_id': {shorten(record['error'])}")
    if record.get("eval_id") != line or type(record["eval_id"]) is not int:
        raise RecordError(
            f"'eval_id': expected {line}, the position of the trajectory, found {shorten(record.get('eval_id'))}"
        )
    replicates = record.get("replicates", [record])
    if not isinstance(replicates, list) or not replicates:
        raise RecordError(f"'replicates': expected a list of verdicts, found {shorten(replicates)}")
    return [_verdict(replicate, number, metric, judge, of) for number, replicate in enumerate(replicates)]


def _verdict(record: object, replicate: int, metric: Metric, judge: str, of: Trajectory) -> Evaluation:
    if not isinstance(record, dict):
        raise RecordError(f"'replicates'[{replicate}]: expected a JSON object, found {shorten(record)}")
    failed = record.get("error")
    score = None if failed else _score(record, metric)
    raw = record.get("Overall Quantitative Score")
    if raw is not None and type(raw) not in (str, int):
        raise RecordError(f"'Overall Quantitative Score': expected text or a number, found {shorten(raw)}")
    tokens = record.get("efficiency")
    if tokens is not None and (type(tokens) is not int or not 0 <= tokens < MAX_TOKENS):
        raise RecordError(f"'efficiency': expected a number of tokens, found {shorten(tokens)}")
    problem = shorten(failed) if failed else ("the judge's reply holds no score" if score is None else "")
    return Evaluation.of(
        of,
        judge=judge,
        metric=metric,
        replicate=replicate,
        score=score,
        label=_text(record, "Overall Qualitative Label", nullable=True),
        thought=_text(record, "Evaluator Thought", nullable=True),
        summary=_text(record, "Evaluator Log Summary", nullable=True),
        raw_score="" if raw is None else str(raw),
        tokens=tokens,
        # A number where the judge's text should be: the score was recovered by the released repair script.
        parsed_by="repair" if type(raw) is int else "import",
        error=problem,
    )


def _score(record: Mapping[str, Any], metric: Metric) -> float | None:
    scores = record.get("eval_scores")
    if not isinstance(scores, dict):
        raise RecordError(f"'eval_scores': expected an object, found {shorten(scores)}")
    key = SCORE_KEYS[metric]
    if scores and key not in scores:
        raise RecordError(f"'eval_scores': expected the key {key!r}, found {shorten(sorted(scores))}")
    score = scores.get(key)
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 3:
        raise RecordError(f"'eval_scores': expected a number from 0 to 3, found {shorten(score)}")
    return float(score)


def write_evaluation(verdicts: list[Evaluation], line: int) -> dict[str, Any]:
    """Returns the replicates of one verdict as a released record for line `line` (from 0) of its file."""
    records = [_written(verdict) for verdict in verdicts]
    if len(records) == 1:
        return {**records[0], "eval_id": line}
    return {"eval_id": line, "replicates": records, "consistency": None}


def _written(verdict: Evaluation) -> dict[str, Any]:
    raw: str | int | None = verdict.raw_score or None
    if verdict.parsed_by == "repair" and raw is not None:
        raw = int(raw)
    score = verdict.score
    whole = score is not None and score == int(score)
    return {
        "Evaluator Thought": verdict.thought or None,
        "Overall Qualitative Label": verdict.label or None,
        "Overall Quantitative Score": raw,
        "Evaluator Log Summary": verdict.summary or None,
        "eval_scores": {} if score is None else {SCORE_KEYS[verdict.metric]: int(score) if whole else score},
        "efficiency": verdict.tokens,
    }
