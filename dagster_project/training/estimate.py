"""What a training takes: memory, operations, disk. Arithmetic on shapes and lengths, before any card is touched.

Operations follow Kaplan et al. 2020 (section 2.1): two a weight and token going forward, and, since the base is frozen,
two more going back (the gradient of activations; that of weights is the adapter's alone and below 1%). Recomputing
activations adds another two. Attention adds 4 · layers · width · context going forward, half of it masked.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dagster_project.experiment.training import Trainer, Training
from toolemu.errors import FrontierError, InputError
from toolemu.jsonl import read_json

PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 6000 Ada": 364e12,
    "A10": 125e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 operations a second by a part of a card's name, from NVIDIA's data sheets; the first match counts."""
USABLE = 0.92
"""Share of a card's free memory to plan with; the rest is the allocator's."""
RESERVE = 2 * 2**30
"""Bytes for the context, kernels' workspace and the head's tiles."""
MOST_TOKENS = 32_768
"""Tokens at once beyond which a larger micro-batch no longer speeds anything up."""
USUAL = 0.9
"""Share of the pairs whose micro-batches should not need recomputing."""
UNLIMITED = 2**62
EXPECTED_MFU = 0.4
"""For time estimates."""
KEPT_CHECKPOINTS = 2
"""The last of a training; a half-written one is passed over."""
REFERENCE_BYTES = 50
"""Of a conversation's stored reference log-probability: 43 in a file of 2,000, 87 in one of 20."""
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_QUANTIZED = {"int8": 1.0, "int4": 0.55}


class Shape(NamedTuple):
    """What a base's size follows from.

    Attributes:
        parameters: All weights.
        active: Weights that a token is multiplied with: all but the embeddings, unless they are the head, too.
        kept: Weights that quantisation leaves alone: embeddings and head.
        layers: Number of layers.
        width: Size of the residual stream.
        inner: Size inside the feed-forward block.
        keys: Size of a token's keys, and of its values.
        adapted: Sum of (inputs + outputs) over all linear layers of one base, for `all-linear` adapters.
    """

    parameters: int
    active: int
    kept: int
    layers: int
    width: int
    inner: int
    keys: int
    adapted: int


class Card(NamedTuple):
    """A GPU as the driver describes it; bytes."""

    name: str
    total: int
    free: int

    @property
    def peak(self) -> float | None:
        """Dense bfloat16 operations a second; None for a card that is not in `PEAK_FLOPS`."""
        return next((peak for part, peak in PEAK_FLOPS.items() if part in self.name), None)


class Plan(NamedTuple):
    """How a training is cut up for the hardware.

    Attributes:
        micro_batch: Pairs on a card at once.
        accumulation: Micro-batches an optimiser step, on each card.
        tokens: Tokens on a card with the largest micro-batch, padding included, shared ones once.
        plain_tokens: Micro-batches of at most so many tokens keep their activations.
        checkpointing: Whether there may be larger ones, whose activations are computed again going back.
        memory: Estimated peak on each card in bytes.
    """

    micro_batch: int
    accumulation: int
    tokens: int
    plain_tokens: int
    checkpointing: bool
    memory: int


def base_shape(base: Path, shapes: Mapping[str, Sequence[int]]) -> Shape:
    """Returns the shape of a base from its configuration and the shapes of its weights.

    Raises:
        InputError: Its configuration lacks a size.
    """
    config = read_json(base / "config.json")
    assert isinstance(config, dict)
    text = config.get("text_config", config)
    try:
        layers, width, inner = (text[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size"))
        heads = text["num_attention_heads"]
    except KeyError as error:
        raise InputError(base / "config.json", str(error), "is missing; training needs to know the size.") from error
    keys = (text.get("num_key_value_heads") or heads) * (text.get("head_dim") or width // heads)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    embeddings = sum(size for name, size in sizes.items() if "embed" in name)
    head = sum(size for name, size in sizes.items() if "lm_head" in name)
    total = sum(sizes.values())
    linear = [shape for name, shape in shapes.items() if len(shape) == 2 and "embed" not in name and "head" not in name]
    return Shape(
        parameters=total,
        active=total - (embeddings if head else 0),
        kept=embeddings + head,
        layers=layers,
        width=width,
        inner=inner,
        keys=keys,
        adapted=sum(sum(shape) for shape in linear),
    )


def weight_bytes(shape: Shape, training: Training) -> int:
    """Returns what the base takes in memory."""
    full = _BYTES[training.dtype]
    if training.quantization == "none":
        return int(shape.parameters * full)
    return int((shape.parameters - shape.kept) * _QUANTIZED[training.quantization] + shape.kept * full)


def adapter_parameters(shape: Shape, training: Training) -> int:
    """Returns the adapter's parameters; an upper bound where it is on some modules only."""
    return training.lora_rank * shape.adapted


def writes_checkpoints(trainer: Trainer, steps: int) -> bool:
    """Whether a training of so many steps comes to a checkpoint."""
    return trainer.checkpoint_every is not None and trainer.checkpoint_every < steps


def checkpoint_bytes(parameters: float, trainer: Trainer, steps: int) -> float:
    """Returns what a training's checkpoints take on disk at most, one being written beside those that are kept.

    A checkpoint is the adapter and AdamW's two moments, in 4 bytes each.
    """
    return (KEPT_CHECKPOINTS + 1) * 12 * parameters if writes_checkpoints(trainer, steps) else 0


def activation_bytes(shape: Shape, training: Training, tokens: int, *, checkpointing: bool) -> int:
    """Returns what is kept of `tokens` tokens for going back.

    Counted for a block of RMS norm, attention without its matrix, and a gated feed-forward layer, with an adapter on
    every linear layer: in 2-byte numbers, norms keep their input as 4 bytes twice (8 · width), the adapters a copy of
    their inputs (q, k, v, o, gate and up: 12 · width; down: 2 · inner), attention its operands before and after the
    rotation (6 · width + 6 · keys), the gate its operands (6 · inner). With checkpointing, a layer's input is all.
    """
    scale = _BYTES[training.dtype] / 2
    block = scale * (26 * shape.width + 6 * shape.keys + 8 * shape.inner)
    each = 2 * scale * shape.width * shape.layers + block if checkpointing else block * shape.layers
    return int(each * tokens)


def memory_bytes(shape: Shape, training: Training, tokens: int, *, checkpointing: bool, shards: int = 1) -> int:
    """Returns the estimated peak on a card with `tokens` tokens, padding included, on it at once.

    The adapter counts 16 bytes a parameter: itself, its gradient and AdamW's two moments, in 4 bytes each.
    """
    fixed = (weight_bytes(shape, training) + 16 * adapter_parameters(shape, training)) / shards
    return int(fixed + activation_bytes(shape, training, tokens, checkpointing=checkpointing) + RESERVE)


def flops_per_token(shape: Shape, context: float, *, recomputed: float = 0.0) -> float:
    """Returns the operations of training a token in a sequence of `context` tokens; see the module's docstring.

    `recomputed` is the share of tokens whose activations are computed again.
    """
    return (2 + recomputed) * (2 * shape.active + 2 * shape.layers * shape.width * context)


def plan_batches(
    shape: Shape, training: Training, trainer: Trainer, micro_batches: Callable[[int], Sequence[int]], card: Card | None
) -> Plan:
    """Returns how to cut a batch up so that it fits and as little as possible is computed again.

    Most micro-batches are much smaller than the largest. So it is nearly all of them that should fit without
    recomputing, and the few larger ones are recomputed.

    Args:
        shape: The base's.
        training: What is trained.
        trainer: What the experiment file asks for; it goes before any estimate.
        micro_batches: Returns, for a number of pairs, the tokens that each micro-batch of so many puts on a card.
        card: The GPU; without one everything is done at once.

    Raises:
        FrontierError: The batch cannot be shared out evenly, or the base alone does not fit.
    """
    each, rest = divmod(training.batch_size, trainer.processes)
    if rest or (trainer.micro_batch_size and each % trainer.micro_batch_size):
        raise FrontierError(
            f"training.batch_size is {training.batch_size}, which {trainer.processes} processes with micro-batches of "
            f"{trainer.micro_batch_size or 1} cannot share evenly. Change one of them."
        )
    shards = trainer.processes if trainer.sharding == "fsdp" else 1
    sizes = [trainer.micro_batch_size] if trainer.micro_batch_size else divisors(each)

    def memory(tokens: int, checkpointing: bool) -> int:
        return memory_bytes(shape, training, tokens, checkpointing=checkpointing, shards=shards)

    def plan(size: int, plain: int) -> Plan:
        tokens = max(micro_batches(size))
        peak = max(memory(tokens, tokens > plain), memory(min(tokens, plain), False))
        return Plan(size, each // size, tokens, plain, tokens > plain, peak)

    if card is None:
        return plan(sizes[0], 0 if trainer.gradient_checkpointing == "always" else UNLIMITED)
    if weight_bytes(shape, training) / shards > card.free:
        raise FrontierError(
            f"The base takes {_gib(weight_bytes(shape, training) / shards)} of a card and {card.name} has "
            f"{_gib(card.free)} free. Quantise it (training.quantization), or share it out (trainer.sharding: fsdp)."
        )
    room = USABLE * card.free - memory(0, False)
    fits = max(0, int(room / activation_bytes(shape, training, 1, checkpointing=False)))
    plain = {"always": 0, "never": UNLIMITED, "auto": fits}[trainer.gradient_checkpointing]
    most = min(MOST_TOKENS, plain or MOST_TOKENS)
    for size in sizes:
        found = sorted(micro_batches(size))
        if memory(found[-1], found[-1] > plain) <= USABLE * card.free and found[int(USUAL * (len(found) - 1))] <= most:
            return plan(size, plain)
    return plan(sizes[-1], plain)


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number, the largest first."""
    return [size for size in range(number, 0, -1) if number % size == 0]


def find_card() -> Card | None:
    """Returns the first GPU that this process may use, without touching it; None if there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    if visible is not None:
        query += ["-i", visible.split(",")[0]]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    if not lines:
        return None
    name, total, free = (part.strip() for part in lines[0].split(","))
    return Card(name, int(total) * 2**20, int(free) * 2**20)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
