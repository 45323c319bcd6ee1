from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from dagster_project.training.card import model_card, push_adapter, repository_name, training_curve
from dagster_project.training.dpo import TrainingResult, train_adapter
from toolemu.errors import FrontierError

from .toy import Corpus


@pytest.fixture(scope="module")
def result(corpus: Corpus, base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_adapter(corpus.job(base, tmp_path_factory.mktemp("card") / "out"))


def test_a_model_card_says_what_an_adapter_is_and_nothing_of_this_machine(
    corpus: Corpus, base: Path, result: TrainingResult, tmp_path: Path
) -> None:
    job = corpus.job(base, tmp_path / "out", lineage={"pairs": "safe by strict, 12"}, name="small: an adapter")
    card = model_card(job, result)
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["base_model"]) == ("peft", "source_models/model=m")
    for told in ("# small: an adapter", "safe by strict, 12", "lora_rank: 4", f"{result.steps[-1].loss:.3f}"):
        assert told in card
    assert str(tmp_path) not in card
    assert str(base) not in card


def test_the_curve_is_a_small_picture(result: TrainingResult) -> None:
    picture = training_curve(result.steps)
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">II", picture[16:24]) == (360, 108)
    assert len(picture) < 20_000  # it goes into Dagster's event log


def test_an_agent_is_measured_against_its_base(result: TrainingResult) -> None:
    assert result.kl > 0
    assert result.mfu is result.peak_memory is None  # no card here


def test_the_hub_gets_the_folder_under_a_name_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any]] = []

    class Hub:
        def __init__(self, token: str) -> None:
            seen.append(("token", token))

        def create_repo(self, name: str, **options: Any) -> str:
            seen.append((name, options["private"]))
            return f"https://hub/{name}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
            seen.append((repo_id, folder_path))

    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(FrontierError, match="HF_TOKEN"):
        push_adapter(tmp_path, "lab/x")
    assert not seen
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "secret")
    name = repository_name("lab/frontier-", "paper", "stage_1-llama:safe:gpt-5:0.1-0")
    assert name == "lab/frontier-paper-stage_1-llama-safe-gpt-5-0.1-0"
    assert push_adapter(tmp_path, name) == f"https://hub/{name}"
    assert seen == [("token", "secret"), (name, True), (name, tmp_path)]
