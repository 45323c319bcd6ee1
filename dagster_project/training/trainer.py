"""TRL's DPO trainer and collator, taught to take tokens as they are and to mask what the agent did not write.

Imports torch: import this module only where training happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dagster_project.training.conversations import TokenPair


def pair_dataset(pairs: Sequence[TokenPair]) -> Dataset:
    """Returns pairs as the data set that `PreparedDPOTrainer` takes, one column a field."""
    return Dataset.from_list([pair._asdict() for pair in pairs])


class MaskedPreferenceCollator(DataCollatorForPreference):  # type: ignore[misc]
    """Pads pairs as TRL does, then counts only the agent's tokens: the loss reads `completion_mask`."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the batch; rows are all chosen sides, then all rejected ones."""
        batch: dict[str, Any] = super().torch_call(examples)
        for side, name in enumerate(("chosen", "rejected")):
            for row, example in enumerate(examples):
                start = len(example["prompt_ids"])
                mask = torch.tensor(example[f"{name}_mask"])
                batch["completion_mask"][side * len(examples) + row, start : start + len(mask)] = mask
        return batch


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """A DPO trainer whose data set is tokenized already: training and inference then share one rendering."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset
