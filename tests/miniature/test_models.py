import asyncio
import hashlib
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


@pytest.mark.slow
def test_a_trained_model_acts_in_format_on_cases_it_never_saw(tmp_path) -> None:
    train_source_model("balanced", 0, tmp_path)
    trajectories: list[Trajectory] = asyncio.run(
        rollout(
            dict(enumerate(make_cases(60, 0))),
            toolkits(),
            LocalChatModel(tmp_path, "balanced"),
            RuleEmulator(),
            AgentSettings(prompt_style="brief", temperature=1.0, max_tokens_per_turn=60, max_steps=8),
            experiment="test",
            agent="balanced",
            seed=None,
            samples=2,
            journal=tmp_path / "journal.jsonl",
        )
    )
    assert sum(one.stop_reason is StopReason.final_answer for one in trajectories) >= 0.95 * len(trajectories)
    assert any(one.steps for one in trajectories)
