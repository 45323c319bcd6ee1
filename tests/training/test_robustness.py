from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dagster_project.artifacts.snapshots import MARK, last_complete
from dagster_project.experiment.training import Trainer, Training
from dagster_project.training import dpo
from dagster_project.training.concatenate import weight_shapes
from dagster_project.training.dpo import Listener, TrainingResult, train_adapter
from dagster_project.training.estimate import adapter_parameters, base_shape, checkpoint_bytes
from dagster_project.training.job import write_job
from dagster_project.training.trainer import LengthGroups, PreparedDPOTrainer
from tests.conftest import ROOT
from toolemu.errors import FrontierError

from .toy import FAST, Corpus, files_of

# Several epochs whose last batch is short, dropout, groups by length: whatever a wrong resume would get wrong.
LONG = FAST.model_copy(
    update={"max_steps": None, "batch_size": 4, "lora_dropout": 0.1, "length_grouping": True, "learning_rate": 1e-3}
)
EVERY_2 = Trainer(checkpoint_every=2)


class Killed(BaseException):
    """The process ends here."""


def train(corpus: Corpus, base: Path, out: Path, training: Training = LONG, **fields: Any) -> TrainingResult:
    killed_at = fields.pop("killed_at", None)

    def progress(done: int, total: int) -> None:
        if done == killed_at:
            raise Killed

    return train_adapter(corpus.job(base, out, training, **{"epochs": 2, **fields}), Listener(progress=progress))


@pytest.mark.parametrize("grouped", [True, False], ids=["grouped by length", "in random order"])
def test_a_killed_training_goes_on_as_if_it_had_not_been(
    corpus: Corpus, base: Path, grouped: bool, tmp_path: Path
) -> None:
    training = LONG.model_copy(update={"length_grouping": grouped})
    whole = train(corpus, base, tmp_path / "whole", training)
    assert len(whole.steps) > 6
    for step in (3, len(whole.steps) - 1):  # in either epoch
        with pytest.raises(Killed):
            train(corpus, base, tmp_path / "killed", training, trainer=EVERY_2, killed_at=step)
    resumed = train(corpus, base, tmp_path / "killed", training, trainer=EVERY_2)
    assert resumed.resumed_at == (len(whole.steps) - 2) // 2 * 2
    assert resumed.steps == whole.steps
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_half_written_checkpoint_is_passed_over(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(corpus, base, tmp_path / "out", trainer=EVERY_2, killed_at=5)
    (folder,) = (tmp_path / "out-work").glob("checkpoints-*")
    before, last = (folder / f"checkpoint-{step}" for step in (2, 4))
    assert last_complete(folder) == last
    for name in ("trainer_state.json", "optimizer.pt", "rng_state.pth", MARK):
        content = (last / name).read_bytes()
        (last / name).write_bytes(content[:-10])
        assert last_complete(folder) == before
        (last / name).unlink()
        assert last_complete(folder) == before
        (last / name).write_bytes(content)
        assert last_complete(folder) == last


def test_checkpoints_take_what_was_estimated(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    training = LONG.model_copy(update={"lora_rank": 64})
    with pytest.raises(Killed):
        train(corpus, base, tmp_path / "out", training, trainer=EVERY_2, killed_at=7)
    (folder,) = (tmp_path / "out-work").glob("checkpoints-*")
    kept = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert kept == ["checkpoint-4", "checkpoint-6"]
    parameters = adapter_parameters(base_shape(base, weight_shapes(base)), training)
    estimated = checkpoint_bytes(parameters, EVERY_2, steps=8)
    found = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert found < estimated < 1.5 * found, "a third one is counted, for when it is written"


def test_checkpoints_of_another_training_are_not_taken_up(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(corpus, base, tmp_path / "out", trainer=EVERY_2, killed_at=3)
    assert train(corpus, base, tmp_path / "out", trainer=EVERY_2, beta=0.2).resumed_at == 0
    other = shutil.copytree(base, tmp_path / "other")  # files of the same names and sizes
    weights = load_file(other / "model.safetensors")
    save_file({name: weight * 1.01 for name, weight in weights.items()}, other / "model.safetensors", {"format": "pt"})
    assert train(corpus, other, tmp_path / "out", trainer=EVERY_2).resumed_at == 0
    assert train(corpus, base, tmp_path / "out", trainer=EVERY_2).resumed_at == 2


@pytest.mark.parametrize("changes", [{"max_steps": 4}, {"max_steps": None}], ids=["steps", "epochs"])
def test_a_training_killed_after_its_last_step_takes_no_further_one(
    corpus: Corpus, base: Path, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = LONG.model_copy(update=changes)
    whole = train(corpus, base, tmp_path / "whole", training, epochs=1)

    def killed(*_: Any) -> float:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(dpo, "divergence", killed)
        with pytest.raises(Killed):
            train(corpus, base, tmp_path / "killed", training, epochs=1, trainer=EVERY_2)
    for _ in range(2):  # a job that is done again is no other training
        again = train(corpus, base, tmp_path / "killed", training, epochs=1, trainer=EVERY_2)
        assert again.resumed_at == len(whole.steps)
        assert (again.steps, again.kl, again.computed_tokens) == (whole.steps, whole.kl, 0)
        assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_training_killed_for_real_goes_on(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    training = LONG.model_copy(update={"max_steps": 60})
    whole = train(corpus, base, tmp_path / "whole", training)
    job = corpus.job(base, tmp_path / "killed", training, epochs=2, trainer=EVERY_2)
    write_job(job, tmp_path / "job.json")
    command = [sys.executable, "-m", "dagster_project.training.dpo", str(tmp_path / "job.json")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(job.workspace.glob(f"checkpoints-*/checkpoint-*/{MARK}")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed").exists()
    resumed = train_adapter(job)
    assert 0 < resumed.resumed_at < 60
    assert resumed.steps == whole.steps
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_card_without_memory_for_a_batch_gets_it_in_parts(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = LONG.model_copy(update={"lora_dropout": 0.0})
    whole = train(corpus, base, tmp_path / "whole", training, epochs=1)
    score = PreparedDPOTrainer.score

    def small(self: Any, model: Any, tree: Any, **inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return score(self, model, tree, **inputs)

    monkeypatch.setattr(PreparedDPOTrainer, "score", small)
    parts = train(corpus, base, tmp_path / "parts", training, epochs=1)
    assert parts.micro_batch == 1
    assert [note[:46] for note in parts.notes] == [
        "The card ran out of memory with 4 pairs at onc",
        "The card ran out of memory with 2 pairs at onc",
    ]
    assert len(corpus.pairs) % training.batch_size  # the last batch of an epoch is a short one
    assert [step.loss for step in parts.steps] == pytest.approx([step.loss for step in whole.steps], abs=2e-5)
    assert [step.tokens for step in parts.steps] == [step.tokens for step in whole.steps]


def test_a_card_without_memory_for_a_pair_is_an_error(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: Any, model: Any, tree: Any, **inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(PreparedDPOTrainer, "score", none)
    with pytest.raises(FrontierError, match=r"ran out of memory with 1 pairs at once.*max_length lower"):
        train(corpus, base, tmp_path / "out")


def test_a_loss_that_is_no_number_names_the_pairs_it_came_from(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = PreparedDPOTrainer.reference
    broken = corpus.pairs[2].chosen_trajectory_id

    def spoilt(self: Any, conversations: Any) -> dict[str, float]:
        return {**reference(self, conversations), broken: float("nan")}

    monkeypatch.setattr(PreparedDPOTrainer, "reference", spoilt)
    with pytest.raises(FrontierError, match=rf"The loss is nan in step \d+, on the pairs .*{broken}"):
        train(corpus, base, tmp_path / "out", epochs=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", [1, 3])
def test_a_gradient_that_is_no_number_stops_before_the_adapter_is_spoilt(
    corpus: Corpus, base: Path, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = PreparedDPOTrainer.compute_loss
    seen: list[list[int]] = []

    def spoilt(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(inputs["pair"].tolist())
        loss = compute(self, model, inputs, *args, **kwargs)
        weight = next(weight for weight in self.model.parameters() if weight.requires_grad)
        # its value is 0, its derivative is not a number
        return loss + torch.sqrt(0 * weight.sum()) if self.state.global_step + 1 == step else loss

    monkeypatch.setattr(PreparedDPOTrainer, "compute_loss", spoilt)
    with pytest.raises(FrontierError, match=rf"The gradient's norm is nan in step {step}, on the pairs ") as error:
        train(corpus, base, tmp_path / "out", FAST, trainer=Trainer(micro_batch_size=1))
    assert not (tmp_path / "out").exists()
    batch = [corpus.pairs[number] for micro_batch in seen[-FAST.batch_size :] for number in micro_batch]
    assert len(batch) == FAST.batch_size
    assert all(f"{pair.chosen_trajectory_id} over {pair.rejected_trajectory_id}" in str(error.value) for pair in batch)


def test_batches_hold_pairs_of_about_the_same_length() -> None:
    lengths = [n * 37 % 101 for n in range(98)]
    sampler = LengthGroups(lengths, 4, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(98))
    spread = [max(batch) - min(batch) for batch in ([lengths[i] for i in first[at : at + 4]] for at in range(0, 96, 4))]
    assert max(spread) <= 5
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(LengthGroups(lengths, 4, seed=2)) != first
