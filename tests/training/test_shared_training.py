from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from dagster_project.experiment.training import Trainer, Training
from dagster_project.training.dpo import TrainingResult, train_adapter
from dagster_project.training.trainer import PreparedDPOTrainer

from .test_trainer import make_trainer
from .toy import FAST, Corpus, files_of

SHARED = Trainer(shared_text=True)


def train(corpus: Corpus, base: Path, out: Path, training: Training = FAST, **fields: Any) -> TrainingResult:
    return train_adapter(corpus.job(base, out, training, **fields))


@pytest.mark.parametrize("changes", [{}, {"batch_size": 4}, {"mask_observations": False, "loss": "sigmoid_norm"}])
def test_a_training_with_shared_text_comes_out_as_without(
    corpus: Corpus, base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    training = FAST.model_copy(update=changes)
    plain = train(corpus, base, tmp_path / "plain", training)
    shared = train(corpus, base, tmp_path / "shared", training, trainer=Trainer(shared_text=True, micro_batch_size=2))
    assert len(shared.steps) == len(plain.steps) == 3
    for one, other in zip(shared.steps, plain.steps, strict=True):
        # While the adapter does nothing yet, rounding decides which side it prefers.
        found, expected = (step.model_dump(exclude={"reward_accuracy"}) for step in (one, other))
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)
    assert shared.steps[0].loss == pytest.approx(plain.steps[0].loss, rel=1e-5)
    assert shared.computed_tokens < 0.9 * plain.computed_tokens == 0.9 * plain.steps[-1].tokens
    assert shared.kl == pytest.approx(plain.kl, rel=1e-2)
    assert (shared.attention, plain.attention) == ("token_tree", "sdpa")
    weights, others = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("shared", "plain"))
    for name, other in others.items():
        # Adam's first steps are of the learning rate's size whichever way a tiny gradient's sign is rounded.
        assert (weights[name] - other).abs().mean() <= 0.02 * other.abs().mean() + 1e-4


def test_stored_references_are_those_that_would_be_computed_again(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    n = train(corpus, base, tmp_path / "without", trainer=SHARED).conversations
    assert train(corpus, base, tmp_path / "first", trainer=SHARED, references=store).references_reused == 0
    assert train(corpus, base, tmp_path / "again", trainer=SHARED, references=store).references_reused == n
    assert files_of(tmp_path / "without") == files_of(tmp_path / "first") == files_of(tmp_path / "again")
    few = corpus._replace(pairs=corpus.pairs[1:])
    reused = train(few, base, tmp_path / "fewer", trainer=SHARED, references=store).references_reused
    assert 0 < reused < n  # of the case that lost a pair, what is computed together is another
    train(few, base, tmp_path / "fewer without", trainer=SHARED)
    assert files_of(tmp_path / "fewer") == files_of(tmp_path / "fewer without")
    assert train(corpus, base, tmp_path / "plain", references=store).references_reused == 0


def test_batches_by_case_hold_one_case_each_and_another_choice_every_epoch(corpus: Corpus, tmp_path: Path) -> None:
    pairs = corpus.tokens() * 2
    trainer = make_trainer(pairs, tmp_path)
    trainer.args.per_device_train_batch_size = 2
    trainer.batch_by_case = True
    sampler = trainer._get_train_sampler()
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(len(pairs)))
        batches = [orders[-1][start : start + 2] for start in range(0, len(pairs), 2)]
        assert all(len({tuple(pairs[at].prompt_ids) for at in batch}) == 1 for batch in batches)
    assert orders[0] != orders[1]
    sampler.set_epoch(0)
    assert list(sampler) == orders[0]


def test_batches_by_case_compute_less_and_make_another_agent(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    training = FAST.model_copy(update={"batch_size": 6})
    by_pair = train(corpus, base, tmp_path / "pair", training, trainer=SHARED)
    by_case = train(corpus, base, tmp_path / "case", training.model_copy(update={"batch_by": "case"}), trainer=SHARED)
    share = [result.computed_tokens / result.steps[-1].tokens for result in (by_case, by_pair)]
    assert share[0] < 0.8 * share[1]
    assert files_of(tmp_path / "pair") != files_of(tmp_path / "case")


def test_a_killed_training_by_case_goes_on_where_it_was(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = FAST.model_copy(update={"batch_by": "case", "max_steps": 6})
    trainer = Trainer(shared_text=True, checkpoint_every=2)
    whole = train(corpus, base, tmp_path / "whole", training, trainer=trainer)
    compute = PreparedDPOTrainer.score
    calls = 0

    def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += self.model.training
        if calls == 4:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(PreparedDPOTrainer, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        train(corpus, base, tmp_path / "killed", training, trainer=trainer)
    monkeypatch.undo()
    resumed = train(corpus, base, tmp_path / "killed", training, trainer=trainer)
    assert resumed.resumed_at == 2
    assert resumed.steps == whole.steps
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_sharing_brings_its_own_attention() -> None:
    with pytest.raises(ValidationError, match="leave out attention: eager"):
        Trainer(shared_text=True, attention="eager")
