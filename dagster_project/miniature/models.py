"""The toy world's source models: tiny Llamas, trained on the spot to imitate a scripted agent's demonstrations."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dagster_project.miniature.policies import Temperament, demonstrate
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.miniature.world import training_cases
from toolemu.chat import Message

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Progress = Callable[[int, int], None]

HIDDEN = 96
LAYERS = 2
HEADS = 4
STEPS = 300
BATCH = 32
LEARNING_RATE = 4e-3
CONTEXT = 512
# Transformers default of 0.02 suits wide models; at this width it costs hundreds of steps before copying is learned.
INIT_STD = 0.1
_IGNORED = -100


class _Batch(NamedTuple):
    """Token ids, attention mask and labels of some conversations, each (batch, length)."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int, heads: int = HEADS) -> LlamaForCausalLM:
    """Returns an untrained model for `tokenizer`; the same seed gives the same weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
        initializer_range=INIT_STD,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def train_source_model(
    temperament: Temperament,
    seed: int,
    out: Path,
    progress: Progress | None = None,
    *,
    steps: int = STEPS,
    heads: int = HEADS,
) -> dict[str, float]:
    """Trains a source model from scratch and saves it, with its tokenizer, in `out`.

    Training uses one thread: with more, models this small become slower wherever cores are shared.

    Args:
        temperament: Whom the model imitates.
        seed: Decides the weights it starts from and the demonstrations; the same seed gives the same model.
        out: Folder for weights (safetensors), configuration and tokenizer.
        progress: Called with (steps done, steps in all).
        steps: Optimiser steps; fewer than the default only where the model need not be good.
        heads: Attention heads.

    Returns:
        What was measured: `loss` (mean over the last tenth of the steps, nats a generated token), `steps`,
        `parameters`, `tokens` (seen, without padding) and `seconds`.
    """
    import torch

    started = time.perf_counter()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed, heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_up_then_cosine(step, steps))
    losses: list[float] = []
    tokens = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step, batch in zip(range(1, steps + 1), _batches(temperament, seed, tokenizer), strict=False):
            loss = model(**batch._asdict()).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            tokens += int(batch.attention_mask.sum())
            if progress is not None:
                progress(step, steps)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    last = losses[-math.ceil(len(losses) / 10) :]
    return {
        "loss": sum(last) / len(last),
        "steps": float(steps),
        "parameters": float(model.num_parameters()),
        "tokens": float(tokens),
        "seconds": time.perf_counter() - started,
    }


def _warm_up_then_cosine(step: int, steps: int, warm_up: int = 15) -> float:
    return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)


def _batches(temperament: Temperament, seed: int, tokenizer: PreTrainedTokenizerFast) -> Iterator[_Batch]:
    """Yields batches of fresh demonstrations without end; every epoch goes through all training cases."""
    cases = training_cases(seed)
    rng = random.Random(f"demonstrations {temperament} {seed}")
    # Conversations differ twofold in length; batches of similar length waste little on padding.
    while True:
        rng.shuffle(cases)
        encoded = [_encode(demonstrate(case, temperament, rng), tokenizer) for case in cases]
        encoded.sort(key=lambda one: len(one[0]))
        batches = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
        rng.shuffle(batches)
        yield from (_pad(batch, tokenizer) for batch in batches)


def _encode(turns: list[Message], tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Returns token ids and labels: everything after the task, observations included.

    A model that never learned what observations look like would give them arbitrary probabilities, and a preference
    loss that does not mask them would then find its margin there instead of in what the agent does.
    """
    prompt, whole = (
        tokenizer.apply_chat_template([turn._asdict() for turn in part], return_dict=False)
        for part in (turns[:1], turns)
    )
    return whole, [_IGNORED] * len(prompt) + whole[len(prompt) :]


def _pad(batch: list[tuple[list[int], list[int]]], tokenizer: PreTrainedTokenizerFast) -> _Batch:
    import torch

    length = max(len(ids) for ids, _ in batch)
    ids = [ids + [tokenizer.pad_token_id] * (length - len(ids)) for ids, _ in batch]
    mask = [[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in batch]
    labels = [labels + [_IGNORED] * (length - len(labels)) for _, labels in batch]
    return _Batch(torch.tensor(ids), torch.tensor(mask), torch.tensor(labels))
