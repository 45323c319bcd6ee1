"""TRL's DPO trainer and collator, taught to take tokens as they are and to mask what the agent did not write.

The log-probabilities of completions come from two methods of `PreparedDPOTrainer` and nowhere else: `score`, the
policy's of a batch, and `reference`, the base's of single conversations. Another way to compute them replaces these.

Imports torch: import this module only where training happens.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import Sampler
from trl import DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dagster_project.training.conversations import TokenPair, Tokens
from toolemu.errors import FrontierError

MEGA_BATCHES = 50
"""Pairs are sorted by length within so many batches at a time."""


def pair_dataset(pairs: Sequence[TokenPair]) -> Dataset:
    """Returns pairs as the data set that `PreparedDPOTrainer` takes: one column a field, and each pair's number."""
    return Dataset.from_list([{**pair._asdict(), "pair": number} for number, pair in enumerate(pairs)])


class MaskedPreferenceCollator(DataCollatorForPreference):  # type: ignore[misc]
    """Pads pairs as TRL does, then counts only the agent's tokens: the loss reads `completion_mask`."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the batch; rows are all chosen sides, then all rejected ones. `pair` holds the pairs' numbers."""
        batch: dict[str, Any] = super().torch_call(examples)
        for side, name in enumerate(("chosen", "rejected")):
            for row, example in enumerate(examples):
                start = len(example["prompt_ids"])
                mask = torch.tensor(example[f"{name}_mask"])
                batch["completion_mask"][side * len(examples) + row, start : start + len(mask)] = mask
        if "pair" in examples[0]:
            batch["pair"] = torch.tensor([example["pair"] for example in examples])
        return batch


class LengthGroups(Sampler[int]):
    """Pairs in an order in which every batch holds pairs of about the same length; another order every epoch.

    It depends on seed, epoch and lengths alone, so that a resumed training goes on in the order it began with.

    Args:
        lengths: The pairs' lengths.
        batch_size: Pairs an optimiser step: what a card takes at once changes nothing.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + 1_000_003 * self._epoch)
        order: list[int] = torch.randperm(len(self), generator=generator).tolist()
        batches: list[list[int]] = []
        for some in _chunks(order, MEGA_BATCHES * self._batch_size):
            batches += _chunks(sorted(some, key=self._lengths.__getitem__, reverse=True), self._batch_size)
        short = [batches.pop()] if batches and len(batches[-1]) < self._batch_size else []  # it can only come last
        shuffled = [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]
        return iter([pair for batch in shuffled + short for pair in batch])


def _chunks(values: list[int], size: int) -> list[list[int]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """A DPO trainer whose data set is tokenized already: training and inference then share one rendering."""

    length_grouping = False
    plain_tokens = 0
    """Larger micro-batches, in tokens with padding, have their activations recomputed, if checkpointing is on."""
    train_dataset: Dataset
    tokens = recomputed_tokens = 0
    _pairs_in_step = 0

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def score(self, model: Any, **inputs: Any) -> Any:
        """Returns the policy's log-probabilities of a batch, the place for another way to compute them.

        Args:
            model: The policy, as wrapped for training.
            inputs: `input_ids`, `attention_mask` and `labels` (-100 where a token does not count), each of shape
                (2 · pairs, length), chosen sides first; and TRL's flags.

        Returns:
            TRL's `FusedCausalLMOutput`: `log_probs` and the quantities it logs, each of shape (2 · pairs, length - 1)
            and 0 where a token does not count. Their sums over a row are the completion's.
        """
        return model(**inputs)

    def reference(self, conversations: Mapping[str, Tokens]) -> dict[str, float]:
        """Returns the base's log-probability of each conversation, summed over the tokens that count; by its key.

        One conversation is computed at a time, without padding, so that what it gets does not depend on which others
        are computed with it: stored ones and new ones mix. Several processes share the work.
        """
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        mine = list(conversations)[rank::processes]
        model = self.accelerator.unwrap_model(self.model).eval()
        found = []
        with torch.no_grad(), self.accelerator.autocast(), model.disable_adapter():
            for key in mine:
                inputs = _alone(conversations[key], self.accelerator.device)
                output = model(**inputs, use_cache=False, fused_lm_head=True)
                found.append((key, float(output.log_probs.double().sum())))
        return dict(gather_object(found) if processes > 1 else found)

    def use_reference(self, log_probabilities: Mapping[str, float]) -> None:
        """Takes the reference from now on from `log_probabilities`, by conversation, and not from the model.

        TRL silently leaves such columns alone unless its flag is set, and setting it at construction computes them.
        """
        for side in ("chosen", "rejected"):
            values = [log_probabilities[identity] for identity in self.train_dataset[f"{side}_id"]]
            self.train_dataset = self.train_dataset.add_column(f"ref_{side}_logps", values)
        self.precompute_ref_logps = True

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Returns an optimiser step's micro-batches, and notes how many pairs they hold."""
        samples, items = super().get_batch_samples(*args, **kwargs)
        self._pairs_in_step = sum(len(sample["input_ids"]) // 2 for sample in samples)
        return samples, items

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        inputs = dict(inputs)
        numbers = inputs.pop("pair", None)
        size = inputs["input_ids"].numel()
        keep = size <= self.plain_tokens or not self.args.gradient_checkpointing
        self.tokens += size
        self.recomputed_tokens += 0 if keep else size
        with (
            disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
            if keep and self.args.gradient_checkpointing
            else contextlib.nullcontext()
        ):
            loss = super()._compute_loss(functools.partial(self.score, model), inputs, return_outputs)
        if not return_outputs and not torch.isfinite(loss):
            raise FrontierError(self._not_a_number(loss, numbers))
        return loss

    def _not_a_number(self, loss: torch.Tensor, numbers: torch.Tensor | None) -> str:
        pairs = self.train_dataset.select([] if numbers is None else numbers.tolist())
        named = "; ".join(f"{pair['chosen_id']} over {pair['rejected_id']}" for pair in pairs)
        return (
            f"The loss is {loss.item()} in step {self.state.global_step + 1}, on the pairs {named}. Lower the learning "
            "rate, or look at these conversations."
        )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighs micro-batches by their pairs: at an epoch's end they differ, and a step's loss is its pairs' mean."""
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if return_outputs or not self._pairs_in_step:
            return loss
        share = len(inputs["input_ids"]) // 2 / self._pairs_in_step
        return loss * (share * self.current_gradient_accumulation_steps)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        if not self.length_grouping:
            theirs: Sampler[int] = super()._get_train_sampler(train_dataset)
            return theirs
        lengths = [
            len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
            for pair in self.train_dataset
        ]
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes
        return LengthGroups(lengths, step, self.args.seed)


def _alone(tokens: Tokens, device: torch.device) -> dict[str, torch.Tensor]:
    """Returns one conversation as a batch of one row."""
    ids = [*tokens.prompt_ids, *tokens.completion_ids]
    counted = zip(tokens.completion_ids, tokens.agent_mask, strict=True)
    labels = [-100] * len(tokens.prompt_ids) + [token if counts else -100 for token, counts in counted]
    rows = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
    return {name: torch.tensor([row], device=device) for name, row in rows.items()}
