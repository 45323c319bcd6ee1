from __future__ import annotations

import copy
import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn.attention import flex_attention
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations.flex_attention import WrappedFlexAttention
from trl import DPOConfig
from trl.trainer.utils import add_fused_lm_head

from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.training import shared_text
from dagster_project.training.chat_template import Tokens
from dagster_project.training.conversations import TokenPair
from dagster_project.training.grouping import group_by_prompt
from dagster_project.training.shared_text import in_blocks, score, score_apart, share_text, tree_of
from dagster_project.training.trainer import MaskedPreferenceCollator, PreparedDPOTrainer, pair_dataset
from toolemu.errors import FrontierError

from .toy import Corpus

VOCABULARY = 48
ARCHITECTURES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.3,
}  # fmt: skip

# What the paper's released runs give (gpt-5-mini, help, seed 0): deciles of words in a prompt and in a response.
PROMPTS = (754, 1224, 1462, 1485, 1746, 1899, 2120, 2261, 2625, 2771, 3604)
RESPONSES = (0, 243, 324, 393, 465, 554, 668, 804, 1024, 1423, 9872)
SCALE = 24


def base_model(architecture: str, **shape: Any) -> Any:
    torch.manual_seed(0)
    config, model = ARCHITECTURES[architecture]
    return model(config(**{**SHAPE, **shape}))


def adapt(model: Any) -> Any:
    """Returns a model with an adapter."""
    add_fused_lm_head(model)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    let_it_act(adapted)
    return adapted


def let_it_act(model: Any) -> None:
    """Gives an adapter weights: a fresh one does nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.05 * torch.randn(weight.shape, generator=generator))


def shared(model: Any) -> Any:
    share_text(model.get_base_model())
    return model


@functools.cache
def models(architecture: str) -> tuple[Any, Any]:
    """Returns the same weights twice: as they come, and taught to share."""
    model = adapt(base_model(architecture))
    return model, shared(copy.deepcopy(model))


def shared_score(model: Any, **inputs: Any) -> Any:
    return score(model, tree_of(inputs["input_ids"], inputs["attention_mask"]), **inputs)


def batch_of(sequences: Sequence[Sequence[int]], masks: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Pads sequences; `labels` are the tokens whose mask is 1."""
    width = max(map(len, sequences))
    rows = {name: torch.zeros(len(sequences), width, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    labels = torch.full((len(sequences), width), -100)
    for place, (sequence, mask) in enumerate(zip(sequences, masks, strict=True)):
        rows["input_ids"][place, : len(sequence)] = torch.tensor(sequence)
        rows["attention_mask"][place, : len(sequence)] = 1
        labels[place, : len(sequence)] = torch.tensor(sequence).masked_fill(torch.tensor(mask) == 0, -100)
    return {**rows, "labels": labels}


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Asserts that gradients are equal but for 1e-4 of their tensor's largest; what should be 0 has rounding left."""
    assert one.keys() == other.keys()
    rounding = 1e-5 * max(float(expected.abs().max()) for expected in other.values())
    for name, expected in other.items():
        assert (one[name] - expected).abs().max() <= 1e-4 * expected.abs().max() + rounding, name


def losses(model: Any, how: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns every sequence's sum, weighed differently so that no error cancels."""
    sums = how(model, **batch, fused_lm_head=True, use_cache=False).log_probs.sum(1)
    return (sums * torch.linspace(0.5, 1.5, len(sums))).sum()


TREES = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 2**12 - 1)), min_size=1, max_size=7
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=60, deadline=None)
@given(rows=TREES, repeat=st.booleans())
def test_any_batch_scores_as_without_sharing(
    architecture: str, rows: list[tuple[list[int], int]], repeat: bool
) -> None:
    plain, sharing = models(architecture)
    rows = [*rows, *rows[:2]] if repeat else rows
    sequences = [sequence for sequence, _ in rows]
    batch = batch_of(sequences, [[bits >> place & 1 for place in range(len(sequence))] for sequence, bits in rows])
    expected = plain(**batch, fused_lm_head=True)
    found = shared_score(sharing, **batch, fused_lm_head=True)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=1e-5, atol=1e-5)
    theirs, ours = losses(plain, lambda model, **inputs: model(**inputs), batch), losses(sharing, shared_score, batch)
    assert_equal(gradients(sharing, ours), gradients(plain, theirs))


@settings(max_examples=15, deadline=None)
@given(rows=TREES, sizes=st.lists(st.integers(1, 3), min_size=7, max_size=7))
def test_rows_of_several_sequences_score_as_the_sequences_by_themselves(
    rows: list[tuple[list[int], int]], sizes: list[int]
) -> None:
    plain, sharing = models("llama")
    sequences = [sequence for sequence, _ in rows]
    # As in `Tokens`, no first token of a sequence counts.
    masks = [[place and bits >> place & 1 for place in range(len(sequence))] for sequence, bits in rows]
    alone = plain(**batch_of(sequences, masks), fused_lm_head=True).log_probs
    groups = [list(range(sum(sizes[:at]), sum(sizes[: at + 1]))) for at in range(7)]
    groups = [found for group in groups if (found := [place for place in group if place < len(sequences)])]
    batch = batch_of(*([[token for at in group for token in of[at]] for group in groups] for of in (sequences, masks)))
    numbers = torch.zeros_like(batch["input_ids"])
    for row, group in enumerate(groups):
        places = [number for number, at in enumerate(group) for _ in sequences[at]]
        numbers[row, : len(places)] = torch.tensor(places)
    apart = score_apart(plain, numbers, **batch, fused_lm_head=True).log_probs
    tree = tree_of(batch["input_ids"], batch["attention_mask"], numbers)
    shared_once = score(sharing, tree, **batch, fused_lm_head=True).log_probs
    for found in (apart, shared_once):
        assert found.shape == batch["input_ids"][:, 1:].shape
        for row, group in enumerate(groups):
            expected = sum(float(alone[at].sum()) for at in group)
            assert float(found[row].sum()) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def published_pairs(rng: random.Random, count: int) -> list[TokenPair]:
    """Returns pairs of random tokens with lengths as published, scaled down; sides may begin alike and share text."""

    def length(deciles: Sequence[int]) -> int:
        place = rng.random() * 10
        low, high = deciles[int(place)], deciles[min(int(place) + 1, 10)]
        return int((low + (place % 1) * (high - low)) / SCALE)

    def tokens(size: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(size)]

    def mask(size: int) -> list[int]:
        """Returns turns of an agent, observations in between."""
        agent = [int(place // 9 % 3 != 1) for place in range(size)]
        return agent

    system = tokens(20)
    pairs = []
    for _ in range(count):
        prompt, begun = system + tokens(length(PROMPTS)), tokens(rng.choice((0, 0, 12)))
        chosen, rejected = (begun + tokens(1 + length(RESPONSES)) for _ in range(2))
        pairs.append(TokenPair(prompt, chosen, rejected, mask(len(chosen)), mask(len(rejected))))
        if rng.random() < 0.4:  # one conversation in two pairs
            other = begun + tokens(1 + length(RESPONSES))
            pairs.append(TokenPair(prompt, chosen, other, mask(len(chosen)), mask(len(other))))
    return pairs[:count]


def trainer_of(architecture: str, pairs: list[TokenPair], out: Path) -> Any:
    """Returns a trainer with an adapter that does something."""
    config = DPOConfig(
        output_dir=str(out), beta=0.3, max_length=None, bf16=False, gradient_checkpointing=False,
        remove_unused_columns=False, report_to="none", use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = PreparedDPOTrainer(
        model=base_model(architecture),
        args=config,
        train_dataset=pair_dataset(pairs),
        processing_class=build_tokenizer(),
        data_collator=MaskedPreferenceCollator(pad_token_id=0),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    let_it_act(trainer.model)
    return trainer


def shares(trainer: Any) -> Any:
    share_text(trainer.model.get_base_model())
    trainer.shared_text = True
    return trainer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("seed", range(3))
def test_published_lengths_give_the_loss_and_the_gradients_of_the_plain_trainer(
    architecture: str, seed: int, tmp_path: Path
) -> None:
    pairs = published_pairs(random.Random(seed), 5)
    trainer = trainer_of(architecture, pairs, tmp_path)
    batch = trainer.data_collator([pair._asdict() for pair in pairs])
    theirs = trainer.compute_loss(trainer.model, batch)
    expected = gradients(trainer.model, theirs)
    assert trainer.tokens == batch["input_ids"].numel()
    trainer.tokens = 0
    ours = shares(trainer).compute_loss(trainer.model, batch)
    assert abs(theirs.item() - 0.6931) > 1e-3  # not the loss of an adapter that does nothing
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert_equal(gradients(trainer.model, ours), expected)
    assert all("lora_" in name for name in expected)
    assert 0 < trainer.tokens < int(batch["attention_mask"].sum())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [300, 10**6])
def test_the_reference_of_a_prompt_together_is_that_of_each_conversation(
    architecture: str, budget: int, tmp_path: Path
) -> None:
    pairs = published_pairs(random.Random(7), 6)
    conversations = {
        f"{place} {side}": Tokens(pair.prompt_ids, *ids)
        for place, pair in enumerate(pairs)
        for side, ids in (
            ("chosen", (pair.chosen_ids, pair.chosen_mask)),
            ("rejected", (pair.rejected_ids, pair.rejected_mask)),
        )
    }
    trainer = trainer_of(architecture, pairs, tmp_path)
    alone = trainer.reference(group_by_prompt(conversations, 0))
    groups = group_by_prompt(conversations, budget)
    assert len(groups) < len(conversations)
    together = shares(trainer).reference(groups)
    assert together == pytest.approx(alone, rel=1e-5)
    assert trainer.tokens == 0  # the policy's only


def test_the_model_computes_shared_text_once(corpus: Corpus) -> None:
    _, sharing = models("llama")
    pairs = [pair for pair in corpus.tokens() if pair.prompt_ids == corpus.tokens()[0].prompt_ids]
    sequences = [pair.prompt_ids + side for pair in pairs for side in (pair.chosen_ids, pair.rejected_ids)]
    sequences = [[token % VOCABULARY for token in sequence] for sequence in sequences]
    seen: list[int] = []
    handle = (
        sharing.get_base_model()
        .model.layers[0]
        .register_forward_hook(lambda _, __, output: seen.append(output.shape[0] * output.shape[1]))
    )
    try:
        shared_score(
            sharing, **batch_of(sequences, [[1] * len(sequence) for sequence in sequences]), fused_lm_head=True
        )
    finally:
        handle.remove()
    beginnings = {tuple(sequence[:stop]) for sequence in sequences for stop in range(2, len(sequence) + 1)}
    assert seen == [len(beginnings)]
    assert 2 * len(beginnings) < sum(map(len, sequences))


def test_gradient_checkpointing_changes_nothing() -> None:
    _, sharing = models("llama")
    checkpointed = copy.deepcopy(sharing)
    checkpointed.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed.train()
    rng = random.Random(0)
    sequences = [[1, 2, 3] + [rng.randrange(VOCABULARY) for _ in range(8)] for _ in range(4)]
    batch = batch_of(sequences, [[1] * 11] * 4)
    one = gradients(sharing, losses(sharing, shared_score, batch))
    assert_equal(gradients(checkpointed, losses(checkpointed, shared_score, batch)), one)


def test_sequences_without_a_next_token_score_nothing() -> None:
    _, sharing = models("llama")
    for sequences in ([[1]], [[1], [2, 3]]):
        output = shared_score(sharing, **batch_of(sequences, [[1] * len(one) for one in sequences]), fused_lm_head=True)
        assert output.log_probs.shape == (len(sequences), max(map(len, sequences)) - 1)
        assert output.log_probs[0].sum() == 0


def test_ordinary_passes_are_as_before() -> None:
    plain, sharing = models("qwen2")
    batch = batch_of([[1, 2, 3, 4], [5, 6]], [[1] * 4, [1] * 2])
    batch.pop("labels")
    torch.testing.assert_close(sharing(**batch).logits, plain(**batch).logits)


def test_padding_on_the_left_is_refused() -> None:
    _, sharing = models("llama")
    batch = batch_of([[1, 2, 3], [4, 5]], [[1] * 3, [1] * 2])
    batch["attention_mask"] = batch["attention_mask"].flip(1)
    with pytest.raises(ValueError, match="right"):
        shared_score(sharing, **batch, fused_lm_head=True)


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has trees attend as on a GPU, traced and differentiated likewise, with PyTorch's reference for the kernels."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(WrappedFlexAttention, "_instance", None)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)  # refuses gradients on a CPU
    monkeypatch.setattr(shared_text, "tree_attention", in_blocks)


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_a_card")
def test_what_runs_on_a_card_gives_the_loss_and_the_gradients_of_the_plain_trainer(tmp_path: Path) -> None:
    pairs = published_pairs(random.Random(4), 12)
    trainer = trainer_of("llama", pairs, tmp_path)
    batches = [trainer.data_collator([pair._asdict() for pair in pairs[start:]]) for start in range(10)]
    plain = []
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch)
        plain.append((loss.item(), gradients(trainer.model, loss)))
    shares(trainer)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # it would fall back, silently and slowly
        for batch, (theirs, expected) in zip(batches, plain, strict=True):
            ours = trainer.compute_loss(trainer.model, batch)
            assert ours.item() == pytest.approx(theirs, rel=1e-5)
            assert_equal(gradients(trainer.model, ours), expected)


@pytest.mark.parametrize(
    "model",
    [
        lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
        lambda: base_model("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1),
    ],
    ids=["mistral with a window", "qwen2 with windows in some layers"],
)
def test_a_model_that_does_not_attend_to_everything_is_refused(model: Any) -> None:
    with pytest.raises(FrontierError, match=r"Set trainer\.shared_text to false"):
        share_text(model())
