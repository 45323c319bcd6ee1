"""Names of the released runs, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.experiment.agents import PAPER_METRICS, TrainedMetric
from dagster_project.published.export import emulator_name
from dagster_project.published.names import (
    BadNameError,
    FileName,
    StageName,
    agent_name,
    canonical_name,
    file_name,
    parse_agent_name,
    parse_file_name,
)
from toolemu.evaluation import Metric

WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,9}", fullmatch=True)
FIELDS = st.builds(
    FileName,
    WORD,
    WORD,
    WORD,
    st.sampled_from(["", "int4", "bf16"]),
    st.just(3),
    st.just(9),
    st.sampled_from(["", "0102_030405"]),
    st.sampled_from([None, *Metric]),
    st.none(),
)


@given(FIELDS)
def test_what_is_written_is_read_again(fields: FileName) -> None:
    assert parse_file_name(file_name(fields)) == fields


def test_every_part_of_a_name_is_a_field() -> None:
    name = "org_Model-1_emu-org_Emu_eval-org_Judge-2_int4_r15-30_2601_115149_eval_agent_help_ignore_safety_t0.3.jsonl"
    assert parse_file_name(name) == FileName(
        "org_Model-1", "org_Emu", "org_Judge-2", "int4", 15, 30, "2601_115149", Metric.help, 0.3
    )


@pytest.mark.parametrize(
    "name",
    [
        "notes.jsonl",
        "a_emu-b.jsonl",
        "_emu-b_eval-c.jsonl",
        "a_emu-b_eval-c_r5.jsonl",
        "a_emu-b_eval-c_r5-_0102_030405.jsonl",
        "a_emu-b_eval-c_r9-3_0102_030405.jsonl",
        "a_emu-b_eval-c_r3-3.jsonl",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BadNameError, match=r"expected|empty"):
        parse_file_name(name)


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,9}", fullmatch=True),
    st.lists(
        st.builds(
            StageName,
            st.sampled_from(PAPER_METRICS),
            st.from_regex(r"[A-Za-z0-9.]{1,6}", fullmatch=True),
            st.sampled_from([0.1, 0.05, 0.5, 1.0]),
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 99),
)
def test_a_trained_agents_stages_are_fields(model: str, stages: list[StageName], seed: int) -> None:
    found = parse_agent_name(agent_name(model, tuple(stages), seed))
    assert (found.stages, found.seed) == (tuple(stages), seed)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("dpo_Phi-4_help-safe_q32_s1", [(TrainedMetric.both, 0.1)]),
        ("dpo_Phi-4_int4_safe_q32_b-4_ml-4096_beta-0.05_s1", [(TrainedMetric.safe, 0.05)]),
        ("dpo_Phi-4_safe_q32_s1_int4_help_q32_s1", [(TrainedMetric.safe, 0.1), (TrainedMetric.help, 0.1)]),
        ("dpo_Phi-4_safe_q32_msd3_avg_lr-1e-5_s1", [(TrainedMetric.safe, 0.1)]),
    ],
)
def test_marks_of_a_stage(name: str, stages: list[tuple[TrainedMetric, float]]) -> None:
    assert [(stage.metric, stage.beta) for stage in parse_agent_name(name).stages] == stages


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dpo_Phi-4", "expected dpo_"),
        ("dpo_Phi-4_safe_q32", "expected dpo_"),
        ("dpo_Phi-4_safe_q32_s1_rest", "expected dpo_"),
        ("dpo_Phi-4_safe_q32_s1_help_q32_s2", r"seeds \[1, 2\]"),
    ],
)
def test_names_that_begin_like_a_trained_agents(name: str, said: str) -> None:
    with pytest.raises(BadNameError, match=said):
        parse_agent_name(name)


@pytest.mark.parametrize(
    ("directory", "nickname"),
    [
        ("meta-llama_Llama-3.1-8B-Instruct", "Llama3.1-8B"),
        ("microsoft_phi-4", "Phi-4"),
        ("Qwen_Qwen2.5-7B-Instruct", "Qwen2.5-7B"),
    ],
)
def test_spellings_of_one_model_meet(directory: str, nickname: str) -> None:
    assert canonical_name(directory) == canonical_name(nickname)


def test_different_models_do_not_meet() -> None:
    names = [
        "Llama-3.1-8B",
        "Llama-3.1-70B",
        "Llama-3.3-70B",
        "Qwen3-32B",
        "Qwen3-32Bnt",
        "gpt-5",
        "gpt-5-mini",
        "gpt-5.1",
    ]
    assert len({canonical_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "model",
    [
        "../../planted",
        "/etc/planted",
        "a/b",
        "a\\b",
        "..",
        "x_eval-y",
        "x_emu-y",
        "m\x1b[31m",
        "m\n",
        "",
        "..." * 9,
        "é" * 99,
        "m" * 500,
        "x_r0-5",
        "x_0102_030405",
    ],
)
def test_an_emulators_name_cannot_lead_an_export_elsewhere(model: str) -> None:
    name = file_name(FileName("agent", emulator_name(model), "judge", start=0, end=3))
    assert "/" not in name and "\\" not in name and ".." not in name and name.isprintable() and len(name) < 200
    fields = parse_file_name(name)
    assert (fields.agent, fields.judge, fields.start, fields.end) == ("agent", "judge", 0, 3)


@pytest.mark.parametrize("model", ["org_Emu", "Qwen_Qwen3-8B", "gpt-5-mini", "none"])
def test_a_released_emulators_name_stays(model: str) -> None:
    assert emulator_name(model) == model
