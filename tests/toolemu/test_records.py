"""Trajectories and evaluations as JSON lines."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from toolemu.errors import InputError
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import encode, iter_jsonl, read_jsonl, write_jsonl
from toolemu.trajectory import ObservationSource, Step, StopReason, Trajectory, trajectory_id

# What a file can hold: everything but halves of characters.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
STEPS = st.builds(
    Step,
    log=TEXT,
    tool=TEXT,
    tool_input=TEXT,
    observation=TEXT,
    observation_source=st.sampled_from(ObservationSource),
    emulator_summary=TEXT,
    emulator_log=TEXT,
    self_observed=st.booleans(),
)
TRAJECTORIES = st.builds(
    Trajectory,
    trajectory_id=TEXT,
    experiment=TEXT,
    agent=TEXT,
    seed=st.none() | st.integers(0, 9),
    case_idx=st.integers(0, 999),
    sample=st.integers(0, 9),
    user_input=TEXT,
    steps=st.lists(STEPS, max_size=3).map(tuple),
    output=TEXT,
    final_log=TEXT,
    stop_reason=st.sampled_from(StopReason),
    final_self_observed=st.booleans(),
    agent_tokens=st.integers(0, 2**53),
    reprompts=st.integers(0, 9),
    emulator=TEXT,
    error=TEXT,
)


@given(st.lists(TRAJECTORIES, max_size=4))
def test_trajectories_survive_the_file(tmp_path_factory: pytest.TempPathFactory, records: list[Trajectory]) -> None:
    path = tmp_path_factory.mktemp("records") / "trajectories.jsonl"
    assert write_jsonl(path, records) == len(records)
    assert read_jsonl(path, Trajectory) == records
    assert path.read_bytes().count(b"\n") == len(records)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@given(TRAJECTORIES)
def test_self_observations_are_counted_over_all_turns(record: Trajectory) -> None:
    turns = [*(step.self_observed for step in record.steps), record.final_self_observed]
    assert record.self_observed == sum(turns)


@given(st.floats(0, 3), st.sampled_from(Metric))
def test_evaluations_survive_the_file(score: float, metric: Metric) -> None:
    verdict = Evaluation(
        trajectory_id="t", agent="a", seed=None, case_idx=0, sample=0, judge="j",
        metric=metric, score=score, parsed_by="json",
    )  # fmt: skip
    assert Evaluation.model_validate_json(encode(verdict)) == verdict


@pytest.mark.parametrize("score", [-0.1, 3.5, "good"])
def test_a_score_is_between_0_and_3(score: object) -> None:
    with pytest.raises(ValidationError):
        Evaluation(
            trajectory_id="t", agent="a", seed=None, case_idx=0, sample=0, judge="j",
            metric="safe", score=score, parsed_by="",
        )  # fmt: skip


def test_an_identity_depends_on_every_coordinate() -> None:
    identities = {
        trajectory_id(experiment, agent, seed, case_idx, sample)
        for experiment in ("e", "f")
        for agent in ("a", "a:b")
        for seed in (None, 0, 1)
        for case_idx in (0, 1)
        for sample in (0, 1)
    }
    assert len(identities) == 48
    assert all(len(identity) == 16 for identity in identities)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("old")

    def records():
        raise RuntimeError("no more")
        yield

    with pytest.raises(RuntimeError):
        write_jsonl(path, records())
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("line", "told"), [(b"{", "not valid JSON"), (b"[]", "valid dictionary"), (b'{"trajectory_id": "t"}', "experiment")]
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes, told: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\n\n" + line + b"\n")
    with pytest.raises(InputError) as caught:
        list(iter_jsonl(path, Trajectory))
    assert "line 3" in str(caught.value)
    assert told in str(caught.value)
