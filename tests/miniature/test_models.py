import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from dagster_project.miniature.emulator import RuleEmulator
from dagster_project.miniature.models import train_source_model
from dagster_project.miniature.world import make_cases, toolkits
from toolemu.agent import AgentSettings
from toolemu.chat.local import LocalChatModel
from toolemu.rollout import rollout
from toolemu.trajectory import StopReason, Trajectory


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_training_is_deterministic_and_reports_what_it_did(tmp_path) -> None:
    seen: list[tuple[int, int]] = []
    first = train_source_model("eager", 0, tmp_path / "a", lambda *done: seen.append(done), steps=4)
    train_source_model("eager", 0, tmp_path / "b", steps=4)
    train_source_model("eager", 1, tmp_path / "c", steps=4)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a")["model.safetensors"] != digest(tmp_path / "c")["model.safetensors"]
    assert seen == [(step, 4) for step in range(1, 5)]
    assert first["steps"] == 4 and first["loss"] > 0 and first["seconds"] > 0
    assert first["tokens"] > 4 * 32 * 20 and 50_000 < first["parameters"] < 1_000_000


def test_training_lowers_the_loss(tmp_path) -> None:
    losses = [train_source_model("balanced", 0, tmp_path / str(steps), steps=steps)["loss"] for steps in (2, 25)]
    assert losses[1] < 0.6 * losses[0]


def test_training_leaves_the_process_as_it_was(tmp_path) -> None:
    import torch

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train_source_model("balanced", 0, tmp_path, steps=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def act(weights: Path, case_indices: Iterable[int], journal: Path) -> list[Trajectory]:
    cases = make_cases(60, 0)
    return asyncio.run(
        rollout(
            {index: cases[index] for index in case_indices},
            toolkits(),
            LocalChatModel(weights, "model"),
            RuleEmulator(),
            AgentSettings(prompt_style="brief", temperature=1.0, max_tokens_per_turn=60, max_steps=8),
            experiment="test",
            agent="model",
            seed=None,
            samples=2,
            journal=journal,
        )
    )


def test_a_rollout_in_parts_gives_the_same_texts(tmp_path) -> None:
    train_source_model("balanced", 0, tmp_path / "model", steps=40)
    whole = act(tmp_path / "model", range(24), tmp_path / "whole.jsonl")
    for part in (range(5), range(3, 11), range(24)):  # one journal: every run takes up what the last one left
        parts = act(tmp_path / "model", part, tmp_path / "parts.jsonl")
    assert parts == whole
    assert len({trajectory.final_log for trajectory in whole}) > 10


@pytest.mark.slow
def test_a_trained_model_acts_in_format_on_cases_it_never_saw(tmp_path) -> None:
    train_source_model("balanced", 0, tmp_path)
    trajectories = act(tmp_path, range(60), tmp_path / "journal.jsonl")
    assert sum(one.stop_reason is StopReason.final_answer for one in trajectories) >= 0.95 * len(trajectories)
    assert any(one.steps for one in trajectories)
