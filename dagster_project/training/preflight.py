"""Everything that can be wrong with a training, looked at before a card is taken; and what the training will take."""

from __future__ import annotations

import importlib.util
import math
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dagster_project.training.bases import base_weights, check_targets
from dagster_project.training.chat_template import Tokens, end_tokens
from dagster_project.training.conversations import TokenPair, has_words, tokenize_pairs
from dagster_project.training.estimate import (
    EXPECTED_MFU,
    Card,
    Plan,
    Shape,
    adapter_parameters,
    base_shape,
    checkpoint_bytes,
    find_card,
    flops_per_token,
    plan_batches,
)
from dagster_project.training.grouping import PairOf, order_by_case
from dagster_project.training.job import TrainingJob, read_pairs
from toolemu.errors import FrontierError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRACKERS = {"tensorboard": ("tensorboardX", "tensorboard"), "wandb": ("wandb",)}
"""Packages of which a tracker needs one."""
SPARE_DISK = 2**30
"""Bytes that must stay free."""


class Prepared(NamedTuple):
    """A training that can begin.

    Attributes:
        tokenizer: The base's.
        conversations: The distinct conversations of the pairs that are used, by id.
        pairs: The pairs that are used.
        too_long: How many were left out for their length.
        without_words: How many were left out because the agent says nothing on one side.
        shape: The base's.
        card: The GPU; None without one.
        plan: How batches are cut up.
        steps: Optimiser steps.
        tokens: Tokens that all steps together go over, padding left out, shared ones as often as they are there.
        context: Mean tokens of a sequence.
        flops: Operations of that, shared ones once with `shared_text`; see `estimate`.
        disk: Bytes of the adapter and its checkpoints.
    """

    tokenizer: PreTrainedTokenizerBase
    conversations: dict[str, Tokens]
    pairs: list[TokenPair]
    too_long: int
    without_words: int
    shape: Shape
    card: Card | None
    plan: Plan
    steps: int
    tokens: int
    context: float
    flops: float
    disk: float

    def summary(self) -> str:
        """Returns what the training will take, as a line for a log."""
        where = self.card.name if self.card else "the CPU"
        room = f" of {self.card.free / 2**30:.0f} free" if self.card else ""
        peak = self.card.peak if self.card else None
        hours = f"about {self.flops / (EXPECTED_MFU * peak) / 3600:.1f} h" if peak else "unknown time"
        return (
            f"{len(self.pairs)} pairs (left out: {self.too_long} too long, {self.without_words} without a word of the "
            f"agent on one side), {len(self.conversations)} conversations as {self.sequences} sequences, "
            f"{self.steps} steps, {self.tokens:,} tokens, {self.flops:.2g} operations: {hours} on {where}; at most "
            f"{self.plan.memory / 2**30:.1f} GiB{room} and {self.disk / 2**30:.2f} GiB of disk, with "
            f"{self.plan.micro_batch} pairs at once and "
            f"{'recomputing activations where memory needs it' if self.plan.checkpointing else 'nothing recomputed'}."
        )

    @property
    def sequences(self) -> int:
        """Sequences of tokens that the conversations are; more if the chat template rewrites earlier turns."""
        return sum(1 + len(tokens.starts) for tokens in self.conversations.values())


def prepare(job: TrainingJob) -> Prepared:
    """Checks a training and tokenizes its pairs; touches no GPU.

    Raises:
        FrontierError: The base, its tokenizer, the pair file, a setting or the disk will not do; says which and why.
    """
    card = find_card()
    _check_settings(job, card)
    weights = base_weights(job.base)
    check_targets(job.base, weights, job.training.lora_targets)
    shape = base_shape(job.base, weights)
    if job.trainer.shared_text:
        _check_sharing(job.base)
    tokenizer = load_tokenizer(job.base)
    file = read_pairs(job)
    tokens, everything = tokenize_pairs(
        tokenizer,
        file,
        mask_observations=job.training.mask_observations,
        train_on_reasoning=job.training.train_on_reasoning,
        arguments=job.chat_template,
        ends=end_tokens(job.base),
    )
    limit, prompts = job.training.max_length, job.training.max_prompt_length
    spoken = [
        pair
        for pair in everything
        if all(has_words(file.conversations[side]) for side in (pair.chosen_id, pair.rejected_id))
    ]
    pairs = [
        pair
        for pair in spoken
        if pair.length <= limit and len(pair.prompt_ids) <= (limit if prompts is None else prompts)
    ]
    if not pairs:
        raise _no_pairs(job, len(everything), len(spoken))
    used = dict.fromkeys(side for pair in pairs for side in (pair.chosen_id, pair.rejected_id))
    micro_batches = _micro_batches(job, pairs)
    plan = plan_batches(shape, job.training, job.trainer, micro_batches, card)
    steps = job.training.max_steps or math.ceil(math.ceil(len(pairs) / job.training.batch_size) * job.epochs)
    mean = sum(pair.tokens for pair in pairs) / len(pairs)
    context = mean * len(pairs) / sum(pair.sequences for pair in pairs)
    total = int(mean * steps * job.training.batch_size)
    found = micro_batches(plan.micro_batch)
    again = sum(tokens > plan.plain_tokens for tokens in found) / len(found)
    computed = sum(found) / len(found) / plan.micro_batch / mean if job.trainer.shared_text else 1.0
    flops = computed * total * flops_per_token(shape, context, recomputed=again)
    disk = _check_disk(job, shape, steps)
    conversations = {identity: tokens[identity] for identity in used}
    return Prepared(
        tokenizer,
        conversations,
        pairs,
        len(spoken) - len(pairs),
        len(everything) - len(spoken),
        shape,
        card,
        plan,
        steps,
        total,
        context,
        flops,
        disk,
    )


def _no_pairs(job: TrainingJob, found: int, spoken: int) -> FrontierError:
    """Return the error that says why no pair is left to train on."""
    limit, prompts = job.training.max_length, job.training.max_prompt_length
    if not found:
        return FrontierError(f"{job.pairs} holds no pair. Training needs at least one.", code="pairs.none")
    if not spoken:
        return FrontierError(
            f"{job.pairs}: in each of the {found} pairs the agent says nothing on one side. Give conversations with "
            "turns of the agent (assistant) on both sides.",
            code="pairs.without-words",
        )
    further = "" if prompts is None else f", and a prompt of at most max_prompt_length = {prompts}"
    return FrontierError(
        f"None of the {spoken} pairs has at most max_length = {limit} tokens{further}; raise it.", code="pairs.too-long"
    )


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Returns a base's tokenizer; nothing is fetched from a hub."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(base, "", f"holds no tokenizer that can be read: {error}") from error


def require_disk(folder: Path, needed: float, purpose: str) -> None:
    """Checks that there is room for `needed` bytes and a reserve below a folder, which need not be there yet.

    Raises:
        FrontierError: There is not.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(there).free, needed + SPARE_DISK
    if free < needed:
        raise FrontierError(
            f"{there} has {free / 2**30:.1f} GiB free, and {needed / 2**30:.1f} GiB are needed for {purpose} and a "
            "reserve. Free some, or choose another place ($FRONTIER_DATA)."
        )


def _check_settings(job: TrainingJob, card: Card | None) -> None:
    """Checks that what the settings ask for is installed and has the card it needs."""
    for name, value, package in (
        (
            "training.quantization",
            job.training.quantization if job.training.quantization != "none" else "",
            "bitsandbytes",
        ),
        ("trainer.liger", "true" if job.trainer.liger else "", "liger_kernel"),
        (
            "trainer.attention",
            "flash_attention_2" if job.trainer.attention == "flash_attention_2" else "",
            "flash_attn",
        ),
    ):
        if not value:
            continue
        if card is None:
            raise FrontierError(f"{name}: {value} needs an NVIDIA GPU, and this machine has none. Leave it out.")
        if importlib.util.find_spec(package) is None:
            raise FrontierError(f"{name}: {value} needs the package {package}, which is not installed.")
    if job.trainer.sharding == "fsdp" and card is None:
        raise FrontierError(
            "trainer.sharding: fsdp needs NVIDIA GPUs, and this machine has none: every process would hold the whole "
            "base, without a word. Leave it out."
        )
    for tracker in job.trainer.track:
        if not any(importlib.util.find_spec(package) for package in TRACKERS[tracker]):
            raise FrontierError(f"trainer.track: {tracker} needs the package {TRACKERS[tracker][0]}: install it.")


def _check_sharing(base: Path) -> None:
    """Checks that text can be shared with a base of this architecture, without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from dagster_project.training.shared_text import check_can_share

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        check_can_share(AutoModelForCausalLM.from_config(config, trust_remote_code=False))


def _check_disk(job: TrainingJob, shape: Shape, steps: int) -> float:
    """Checks that adapter and checkpoints fit on their disks, which may be one; returns their bytes."""
    parameters = adapter_parameters(shape, job.training)
    adapter, checkpoints = 4 * parameters, checkpoint_bytes(parameters, job.trainer, steps)
    require_disk(job.out, adapter + checkpoints, "the adapter, its checkpoints")
    require_disk(job.workspace, checkpoints, "checkpoints")
    return adapter + checkpoints


def _micro_batches(job: TrainingJob, pairs: Sequence[TokenPair]) -> Callable[[int], list[int]]:
    """Returns what gives the tokens that micro-batches of so many pairs put on a card.

    Without shared text that is a pair's sequences, padded to the longest. With it, what a pair's conversations
    have in common is there once; where batches are by case, also what those of a micro-batch have, in an epoch as it
    will be. What responses to one prompt begin with alike is counted as often as it is there, so a little too much.
    """
    if not job.trainer.shared_text:
        return lambda size: [size * pair.sequences * pair.length for pair in pairs]
    own: dict[str, int] = {}  # of each conversation, the tokens after its prompt
    for pair in pairs:
        for name, side in zip((pair.chosen_id, pair.rejected_id), pair.sides, strict=True):
            if name not in own:
                own[name] = side.own_tokens()

    def distinct(some: Iterable[TokenPair]) -> int:
        found = list(some)
        prompts = {tuple(pair.prompt_ids) for pair in found}
        names = {name for pair in found for name in (pair.chosen_id, pair.rejected_id)}
        return sum(map(len, prompts)) + sum(own[name] for name in names)

    if job.training.batch_by == "pair":
        return lambda size: [size * distinct([pair]) for pair in pairs]
    places = [PairOf(tuple(pair.prompt_ids), pair.chosen_id, pair.rejected_id) for pair in pairs]
    order = order_by_case(places, job.training.batch_size, random.Random(0))

    def micro_batches(size: int) -> list[int]:
        starts = range(0, len(order), size)
        return [distinct(pairs[place] for place in order[start : start + size]) for start in starts]

    return micro_batches
