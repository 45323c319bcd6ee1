from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from trl import DPOConfig

from dagster_project.miniature.models import build_model
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.training.conversations import TokenPair
from dagster_project.training.shared_text import share_text, tree_of
from dagster_project.training.trainer import MaskedPreferenceCollator, PreparedDPOTrainer, pair_dataset

from .toy import Corpus

BETA = 0.3


def make_trainer(pairs: list[TokenPair], out: Path) -> Any:
    """Returns a trainer whose adapter already does something: a fresh one is the reference, and its loss log 2."""
    tokenizer = build_tokenizer()
    config = DPOConfig(
        output_dir=str(out), beta=BETA, per_device_train_batch_size=len(pairs), max_length=None, bf16=False,
        gradient_checkpointing=False, remove_unused_columns=False, report_to="none", use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, save_strategy="no",
    )  # fmt: skip
    trainer = PreparedDPOTrainer(
        model=build_model(tokenizer, 0),
        args=config,
        train_dataset=pair_dataset(pairs),
        processing_class=tokenizer,
        data_collator=MaskedPreferenceCollator(pad_token_id=tokenizer.pad_token_id),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", bias="none", task_type="CAUSAL_LM"),
    )
    trainer.model.double()  # float32 rounds sums of hundreds of log-probabilities in the fifth digit
    generator = torch.Generator().manual_seed(1)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return trainer


def own_loss(model: Any, pairs: list[TokenPair]) -> torch.Tensor:
    """DPO's loss (Rafailov et al. 2023, equation 7), a trajectory at a time, without padding."""

    def log_probability(prompt: list[int], completion: list[int], mask: list[int]) -> torch.Tensor:
        ids = torch.tensor([prompt + completion])
        log_probabilities = model(input_ids=ids).logits[0].log_softmax(-1)
        return sum(
            (log_probabilities[len(prompt) + i - 1, token] * counts)
            for i, (token, counts) in enumerate(zip(completion, mask, strict=True))
        )  # type: ignore[return-value]

    def margin(pair: TokenPair) -> torch.Tensor:
        chosen = log_probability(pair.prompt_ids, pair.chosen_ids, pair.chosen_mask)
        return chosen - log_probability(pair.prompt_ids, pair.rejected_ids, pair.rejected_mask)

    losses = []
    for pair in pairs:
        with torch.no_grad(), model.disable_adapter():
            reference = margin(pair)
        losses.append(-torch.nn.functional.logsigmoid(BETA * (margin(pair) - reference)))
    return torch.stack(losses).mean()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def some_pairs(corpus: Corpus, *, mask_observations: bool) -> list[TokenPair]:
    """Returns pairs of different lengths, with observations in them."""
    pairs = corpus.tokens(mask_observations=mask_observations)
    return sorted(pairs, key=lambda pair: (len(pair.chosen_ids), len(pair.rejected_ids)))[-4:] + pairs[:1]


@pytest.mark.parametrize("mask_observations", [True, False])
def test_loss_and_gradients_are_those_of_dpo(corpus: Corpus, mask_observations: bool, tmp_path: Path) -> None:
    pairs = some_pairs(corpus, mask_observations=mask_observations)
    assert any(0 in pair.chosen_mask for pair in pairs) is mask_observations
    trainer = make_trainer(pairs, tmp_path)
    batch = trainer.data_collator([pair._asdict() for pair in pairs])
    theirs = trainer.compute_loss(trainer.model, batch)
    ours = own_loss(trainer.model, pairs)
    assert abs(ours.item() - 0.6931) > 1e-3  # not the loss of an adapter that does nothing
    assert theirs.item() == pytest.approx(ours.item(), abs=1e-5)
    found, expected = gradients(trainer.model, theirs), gradients(trainer.model, ours)
    assert found.keys() == expected.keys()
    assert all("lora_" in name for name in found)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)


def test_masking_changes_the_loss(corpus: Corpus, tmp_path: Path) -> None:
    losses = []
    for masked in (True, False):
        pairs = some_pairs(corpus, mask_observations=masked)
        trainer = make_trainer(pairs, tmp_path)
        batch = trainer.data_collator([pair._asdict() for pair in pairs])
        losses.append(trainer.compute_loss(trainer.model, batch).item())
    assert abs(losses[0] - losses[1]) > 1e-4


def test_nothing_flows_back_from_the_prediction_of_a_token_the_agent_did_not_write(
    corpus: Corpus, tmp_path: Path
) -> None:
    pairs = some_pairs(corpus, mask_observations=True)
    trainer = make_trainer(pairs, tmp_path)
    batch = trainer.data_collator([pair._asdict() for pair in pairs])
    last_states: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        if output.requires_grad:  # the reference's forward pass has none
            output.retain_grad()
            last_states.append(output)

    # What leaves the last norm at one position serves the prediction of the next token and nothing else.
    trainer.model.get_base_model().model.norm.register_forward_hook(keep)
    trainer.compute_loss(trainer.model, batch).backward()
    (states,) = last_states
    assert states.grad is not None
    arrives = states.grad.abs().sum(-1)[:, :-1] > 0
    agents = batch["completion_mask"][:, 1:].bool()
    assert torch.equal(arrives, agents)
    assert 0 < int(agents.sum()) < int(batch["attention_mask"].sum())


def test_the_collator_puts_each_mask_where_its_completion_is(corpus: Corpus) -> None:
    pairs = some_pairs(corpus, mask_observations=True)
    batch = MaskedPreferenceCollator(pad_token_id=0)([pair._asdict() for pair in pairs])
    rows = [(p.prompt_ids, p.chosen_ids, p.chosen_mask) for p in pairs]
    rows += [(p.prompt_ids, p.rejected_ids, p.rejected_mask) for p in pairs]
    for row, (prompt, completion, mask) in enumerate(rows):
        width = batch["input_ids"].shape[1]
        padding = [0] * (width - len(prompt) - len(completion))
        assert batch["input_ids"][row].tolist() == prompt + completion + padding
        assert batch["completion_mask"][row].tolist() == [0] * len(prompt) + mask + padding
        assert batch["attention_mask"][row].tolist() == [1] * (width - len(padding)) + padding


@pytest.mark.parametrize("shared", [False, True])
def test_larger_micro_batches_alone_are_recomputed_and_come_out_the_same(
    corpus: Corpus, tmp_path: Path, shared: bool
) -> None:
    pairs = some_pairs(corpus, mask_observations=True)
    trainer = make_trainer(pairs, tmp_path)
    batch = trainer.data_collator([pair._asdict() for pair in pairs])
    size = batch["input_ids"].numel()
    if shared:
        share_text(trainer.model.get_base_model())
        trainer.shared_text = True
        size = len(tree_of(batch["input_ids"], batch["attention_mask"]).tokens)
    plain = gradients(trainer.model, trainer.compute_loss(trainer.model, batch))
    trainer.args.gradient_checkpointing = True
    trainer.model.enable_input_require_grads()
    trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer.tokens = trainer.recomputed_tokens = 0
    for limit in (size - 1, size):
        trainer.plain_tokens = limit
        found = gradients(trainer.model, trainer.compute_loss(trainer.model, batch))
        for name in plain:
            torch.testing.assert_close(found[name], plain[name], atol=1e-9, rtol=1e-7)
    assert (trainer.recomputed_tokens, trainer.tokens) == (size, 2 * size)
    assert trainer.model.is_gradient_checkpointing
