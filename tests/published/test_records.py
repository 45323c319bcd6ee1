"""Released records to ours and back."""

from __future__ import annotations

from typing import Any

import pytest

from dagster_project.published.records import (
    Origin,
    RecordError,
    read_evaluations,
    read_trajectory,
    write_evaluation,
    write_trajectory,
)
from tests.published.tree import case, trajectory, verdict
from toolemu.evaluation import Metric
from toolemu.trajectory import ObservationSource, StopReason, Trajectory

ORIGIN = Origin("published", "m", None, 0, "emu")


def read(record: dict[str, Any]) -> Trajectory:
    return read_trajectory(record, ORIGIN)


@pytest.mark.parametrize("kind", range(6))
def test_a_record_comes_out_as_it_went_in(kind: int) -> None:
    record = trajectory(3, "agent", kind)
    written = write_trajectory(read(record), case(3))
    assert written == record
    assert list(written) == list(record), "keys in the released order"


def test_what_a_record_means() -> None:
    assert read(trajectory(3, "a", 0)).stop_reason is StopReason.final_answer
    invented = read(trajectory(3, "a", 1))
    assert (len(invented.steps), invented.self_observed, invented.agent_tokens) == (0, 1, None)
    refused = read(trajectory(3, "a", 2))
    assert [step.observation_source for step in refused.steps] == [
        ObservationSource.validation,
        ObservationSource.emulator,
    ]
    limited = read(trajectory(3, "a", 4))
    assert (limited.stop_reason, limited.output) == (StopReason.limit, "")
    lost = read(trajectory(3, "a", 5))
    assert (lost.stop_reason, lost.final_log, lost.user_input) == (
        StopReason.out_of_memory,
        "half a th",
        "Switch on lamp 3.",
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"case_idx": "3"}, "case_idx"),
        ({"case_idx": True}, "case_idx"),
        ({"intermediate_steps": []}, "at least one step"),
        ({"intermediate_steps": "x"}, "intermediate_steps"),
        ({"intermediate_steps": [["a", "b"], [{"return_values": {"output": ": It is on."}, "log": ""}, ""]]}, r"\[0\]"),
        ({"intermediate_steps": [[["t", "i", 5], ["", "", ""]], [{}, ""]]}, "three texts"),
        ({"output": None}, "output"),
        ({"output": "another"}, "differs from the record"),
        ({"input": "Switch off."}, "the case's instruction"),
        ({"input": 7}, "input"),
        ({"case": None}, "'case'"),
        ({"error": "timeout"}, "a failed run"),
    ],
)
def test_a_wrong_record_is_an_error_that_names_the_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read({**trajectory(3, "a"), **change})


def test_a_record_without_input_is_one_rescued_from_memory_exhaustion_only() -> None:
    record = trajectory(3, "a")
    del record["input"]
    with pytest.raises(RecordError, match="'input'"):
        read(record)


@pytest.mark.parametrize("score", [0, 3, None])
def test_a_verdict_comes_out_as_it_went_in(score: int | None) -> None:
    record = verdict(4, "agent_safe", score)
    found = read_evaluations(record, 4, Metric.safe, "j", read(trajectory(3, "a")))
    assert [(item.score, item.parsed_by, item.case_idx) for item in found] == [(score, "import", 3)]
    assert write_evaluation(found, 4) == record


def test_a_repaired_verdict_says_so() -> None:
    record = verdict(0, "agent_safe", 2, repaired=True)
    found = read_evaluations(record, 0, Metric.safe, "j", read(trajectory(3, "a")))
    assert (found[0].parsed_by, found[0].raw_score, found[0].label) == ("repair", "2", "")
    assert write_evaluation(found, 0) == record


def test_replicates_are_verdicts_of_their_own() -> None:
    replicates = [{**verdict(0, "agent_safe", 1)}, {"error": "timeout"}, {**verdict(0, "agent_safe", 3)}]
    for replicate in replicates:
        replicate.pop("eval_id", None)
    record = {"eval_id": 2, "replicates": replicates, "consistency": None}
    found = read_evaluations(record, 2, Metric.safe, "j", read(trajectory(3, "a")))
    assert [(item.replicate, item.score) for item in found] == [(0, 1.0), (1, None), (2, 3.0)]
    assert "timeout" in found[1].error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"eval_id": 1}, "eval_id"),
        ({"eval_id": True}, "eval_id"),
        ({"eval_scores": {"Helpfulness": 2}}, "ToolCallRisk"),
        ({"eval_scores": {"ToolCallRisk": 4}}, "0 to 3"),
        ({"eval_scores": {"ToolCallRisk": True}}, "0 to 3"),
        ({"eval_scores": {"ToolCallRisk": "2"}}, "0 to 3"),
        ({"eval_scores": None}, "eval_scores"),
        ({"Evaluator Thought": 5}, "Evaluator Thought"),
        ({"Overall Quantitative Score": [2]}, "Quantitative"),
        ({"efficiency": "many"}, "efficiency"),
        ({"replicates": []}, "replicates"),
        ({"replicates": ["x"]}, "replicates"),
    ],
)
def test_a_wrong_verdict_is_an_error_that_names_the_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read_evaluations({**verdict(0, "agent_safe", 2), **change}, 0, Metric.safe, "j", read(trajectory(3, "a")))


def test_a_failed_verdict_has_no_place() -> None:
    with pytest.raises(RecordError, match="failed verdict"):
        read_evaluations({"error": "timeout"}, 0, Metric.safe, "j", read(trajectory(3, "a")))
