"""TRL's DPO trainer and collator, taught to take tokens as they are and to mask what the agent did not write.

The log-probabilities of completions come from two methods of `PreparedDPOTrainer` and nowhere else: `score`, the
policy's of a batch, and `reference`, the base's of conversations. Both can compute what is shared once.

Imports torch: import this module only where training happens.
"""

from __future__ import annotations

import contextlib
import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from trl import DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dagster_project.training import shared_text
from dagster_project.training.chat_template import Tokens
from dagster_project.training.conversations import TokenPair
from dagster_project.training.grouping import Group, PairOf, order_by_case
from dagster_project.training.token_tree import TokenTree
from toolemu.errors import FrontierError

MEGA_BATCHES = 50
"""Pairs are sorted by length within so many batches at a time."""


def pair_dataset(pairs: Sequence[TokenPair]) -> Dataset:
    """Returns pairs as the data set that `PreparedDPOTrainer` takes: one column a field, and each pair's number."""
    return Dataset.from_list([{**pair._asdict(), "pair": number} for number, pair in enumerate(pairs)])


class MaskedPreferenceCollator(DataCollatorForPreference):  # type: ignore[misc]
    """Pads pairs as TRL does, then counts only the agent's tokens: the loss reads `completion_mask`.

    A conversation of several sequences is one row, so that all that TRL sums over a row is the conversation's.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch; rows are all chosen sides, then all rejected ones.

        `pair` holds the pairs' numbers. `sequences` (if a row has several) says of each token which one it belongs to.
        """
        batch: dict[str, Any] = super().torch_call(examples)
        for side, name in enumerate(("chosen", "rejected")):
            for row, example in enumerate(examples):
                start = len(example["prompt_ids"])
                mask = torch.tensor(example[f"{name}_mask"])
                batch["completion_mask"][side * len(examples) + row, start : start + len(mask)] = mask
        starts = [
            [len(example["prompt_ids"]) + start for start in example[f"{name}_starts"]]
            for name in ("chosen", "rejected")
            for example in examples
        ]
        batch |= _numbered(starts, batch["input_ids"])
        if "pair" in examples[0]:
            batch["pair"] = torch.tensor([example["pair"] for example in examples])
        return batch


class _EpochOrder(Sampler[int], ABC):
    """Pairs in an order that is another one every epoch.

    It depends on seed, epoch and pairs alone, so that a resumed training goes on in the order it began with.

    Args:
        size: How many pairs there are.
        batch_size: Pairs an optimiser step: what a card takes at once changes nothing.
        seed: Of the order.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self._size, self._batch_size, self._seed, self._epoch = size, batch_size, seed, 0

    def __len__(self) -> int:
        return self._size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        self._epoch = epoch

    @abstractmethod
    def __iter__(self) -> Iterator[int]: ...


class LengthGroups(_EpochOrder):
    """An order in which every batch holds pairs of about the same length."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(len(lengths), batch_size, seed)
        self._lengths = list(lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + 1_000_003 * self._epoch)
        order: list[int] = torch.randperm(len(self), generator=generator).tolist()
        batches: list[list[int]] = []
        for some in _chunks(order, MEGA_BATCHES * self._batch_size):
            batches += _chunks(sorted(some, key=self._lengths.__getitem__, reverse=True), self._batch_size)
        short = [batches.pop()] if batches and len(batches[-1]) < self._batch_size else []  # it can only come last
        shuffled = [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]
        return iter([pair for batch in shuffled + short for pair in batch])


class CaseGroups(_EpochOrder):
    """An order in which every batch holds pairs of one case, or of few, with conversations in common."""

    def __init__(self, pairs: Sequence[PairOf], batch_size: int, seed: int) -> None:
        super().__init__(len(pairs), batch_size, seed)
        self._pairs = list(pairs)

    def __iter__(self) -> Iterator[int]:
        return iter(order_by_case(self._pairs, self._batch_size, random.Random(f"{self._seed} {self._epoch}")))


def _chunks(values: list[int], size: int) -> list[list[int]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """A DPO trainer whose data set is tokenized already: training and inference then share one rendering."""

    length_grouping = False
    plain_tokens = 0
    """Micro-batches that compute more tokens, padding included, recompute activations, if checkpointing is on."""
    batch_by_case = False
    shared_text = False
    tokens = recomputed_tokens = 0
    """Tokens that this process computed for the policy, padding included and shared ones once; and those of them whose
    activations it computed again."""
    train_dataset: Dataset
    _pairs_in_step = 0
    _numbers_in_step: Sequence[Any] = ()

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def score(self, model: Any, tree: TokenTree | None = None, **inputs: Any) -> Any:
        """Returns the log-probabilities of a batch.

        Args:
            model: The policy, as wrapped for training.
            tree: What `tree_of` says of the batch; None: it is computed without sharing.
            inputs: `input_ids`, `attention_mask` and `labels` (-100 where a token does not count), each of shape
                (2 · pairs, length), chosen sides first; `sequences`, of the same shape, if a conversation is several;
                and TRL's flags.

        Returns:
            TRL's `FusedCausalLMOutput`: `log_probs` and the quantities it logs, each of shape (2 · pairs, length - 1)
            and 0 where a token does not count. Their sums over a row are the conversation's.
        """
        sequences = inputs.pop("sequences", None)
        if tree is not None:
            return shared_text.score(model, tree, **inputs)
        return model(**inputs) if sequences is None else shared_text.score_apart(model, sequences, **inputs)

    def tree_of(self, inputs: Mapping[str, Any]) -> TokenTree | None:
        """Return the trees of a batch, if what is shared is computed once."""
        if not self.shared_text:
            return None
        return shared_text.tree_of(inputs["input_ids"], inputs["attention_mask"], inputs.get("sequences"))

    def reference(self, groups: Sequence[Group]) -> dict[str, float]:
        """Returns the base's log-probability of each conversation, summed over the tokens that count; by its id.

        Groups are computed one at a time, so that what a conversation gets depends on its group alone: stored groups
        and new ones mix. Several processes share the work.
        """
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        model = self.accelerator.unwrap_model(self.model).eval()
        found: list[tuple[str, float]] = []
        with torch.no_grad(), self.accelerator.autocast(), model.disable_adapter():
            for group in groups[rank::processes]:
                inputs = _padded(list(group.values()), self.accelerator.device)
                output = self.score(model, self.tree_of(inputs), **inputs, use_cache=False, fused_lm_head=True)
                found += zip(group, output.log_probs.double().sum(1).tolist(), strict=True)
        return dict(gather_object(found) if processes > 1 else found)

    def use_reference(self, log_probabilities: Mapping[str, float]) -> None:
        """Takes the reference from now on from `log_probabilities`, by conversation, and not from the model.

        TRL silently leaves such columns alone unless its flag is set, and setting it at construction computes them.
        """
        for side in ("chosen", "rejected"):
            values = [log_probabilities[identity] for identity in self.train_dataset[f"{side}_id"]]
            self.train_dataset = self.train_dataset.add_column(f"ref_{side}_logps", values)
        self.precompute_ref_logps = True

    def take_up(self, checkpoint: Path) -> None:
        """Takes adapter and curve from a checkpoint of the last step; `train` would add a step to it."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))

    def weights(self) -> Mapping[str, torch.Tensor] | None:
        """Returns the model's weights where no process has all of them; None elsewhere. All processes must ask."""
        return self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Returns an optimiser step's micro-batches, and notes how many pairs they hold."""
        samples, items = super().get_batch_samples(*args, **kwargs)
        self._pairs_in_step = sum(len(sample["input_ids"]) // 2 for sample in samples)
        self._numbers_in_step = [number for sample in samples for number in sample.get("pair", [])]
        return samples, items

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        inputs = dict(inputs)
        numbers = inputs.pop("pair", None)
        tree = self.tree_of(inputs)
        size = _padded_tokens(inputs) if tree is None else len(tree.tokens)
        keep = size <= self.plain_tokens or not self.args.gradient_checkpointing
        self.tokens += size
        self.recomputed_tokens += 0 if keep else size
        with (
            disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
            if keep and self.args.gradient_checkpointing
            else contextlib.nullcontext()
        ):
            alone = "sequences" in inputs and not self.precompute_ref_logps
            if alone:  # TRL would give the columns to the model itself
                inputs |= self._reference_of(inputs, tree)
            self.precompute_ref_logps |= alone
            try:
                loss = super()._compute_loss(functools.partial(self.score, model, tree), inputs, return_outputs)
            finally:
                self.precompute_ref_logps &= not alone
        if not return_outputs:
            self._check_finite("loss", loss, [] if numbers is None else numbers)
        return loss

    def _reference_of(self, inputs: Mapping[str, Any], tree: TokenTree | None) -> dict[str, torch.Tensor]:
        """Return the reference of a batch as the columns of `use_reference`."""
        sides = self.compute_ref_log_probs(functools.partial(self.score, self.model, tree), inputs)
        return dict(zip(("ref_chosen_logps", "ref_rejected_logps"), sides, strict=True))

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self._check_finite("gradient's norm", torch.as_tensor(norm), self._numbers_in_step)
        return norm

    def _check_finite(self, what: str, value: torch.Tensor, numbers: Iterable[Any]) -> None:
        """Stops before weights are spoilt, and names the pairs it came from.

        Args:
            what: What should be a number.
            value: It.
            numbers: The pairs that it is of.

        Raises:
            FrontierError: It is none, or infinite.
        """
        if torch.isfinite(value):
            return
        pairs = self.train_dataset.select([int(number) for number in numbers])
        named = "; ".join(f"{pair['chosen_id']} over {pair['rejected_id']}" for pair in pairs)
        raise FrontierError(
            f"The {what} is {value.item()} in step {self.state.global_step + 1}, on the pairs {named}. Lower the "
            "learning rate, or look at these conversations."
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
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes
        if self.batch_by_case:
            sides = ("prompt_ids", "chosen_ids", "rejected_ids")
            places = [PairOf(*(tuple(pair[side]) for side in sides)) for pair in self.train_dataset]
            return CaseGroups(places, step, self.args.seed)
        if self.length_grouping:
            lengths = [
                len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
                for pair in self.train_dataset
            ]
            return LengthGroups(lengths, step, self.args.seed)
        theirs: Sampler[int] = super()._get_train_sampler(train_dataset)
        return theirs


def _padded(conversations: Sequence[Tokens], device: torch.device) -> dict[str, torch.Tensor]:
    """Return conversations as a batch, padded on the right, a row each."""
    longest = max(len(tokens.ids) for tokens in conversations)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for tokens in conversations:
        labels = [token if counts else -100 for token, counts in zip(tokens.ids, tokens.mask, strict=True)]
        padding = longest - len(labels)
        rows["input_ids"].append(tokens.ids + [0] * padding)
        rows["attention_mask"].append([1] * len(labels) + [0] * padding)
        rows["labels"].append(labels + [-100] * padding)
    batch = {name: torch.tensor(values, device=device) for name, values in rows.items()}
    starts = [[stretch.start for stretch in tokens.stretches()[1:]] for tokens in conversations]
    return batch | _numbered(starts, batch["input_ids"])


def _numbered(starts: Sequence[Sequence[int]], like: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the column `sequences` of a batch of the shape of `like`; none if each row is one sequence.

    Args:
        starts: Of each row, where its further sequences begin.
        like: Any tensor of shape (rows, length).
    """
    if not any(starts):
        return {}
    numbers = torch.zeros_like(like)
    for row, places in enumerate(starts):
        numbers[row, list(places)] = 1
    return {"sequences": numbers.cumsum(1)}


def _padded_tokens(inputs: Mapping[str, torch.Tensor]) -> int:
    """Return the tokens that a batch puts on a card without sharing, padding included."""
    if "sequences" not in inputs:
        return inputs["input_ids"].numel()
    stretches = shared_text.stretches_of(inputs["sequences"], inputs["attention_mask"])
    return len(stretches) * max(stop - start for _, start, stop in stretches)
