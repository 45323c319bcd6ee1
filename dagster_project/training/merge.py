"""Merging an adapter into its base, checked on logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolemu.errors import FrontierError

TOLERANCE = 1e-3
"""Largest difference of logits between merged and adapter-applied model, float32; 2e-5 is usual for small models."""


def merge_adapter(base: Path, adapter: Path, out: Path, probe: Sequence[int]) -> float:
    """Merges `adapter` into `base` in float32 and writes weights and tokenizer below `out`.

    Merging in bfloat16 would lose small deltas.

    Args:
        base: Directory of the base's weights and tokenizer.
        adapter: Directory of the adapter.
        out: Where the merged model goes.
        probe: Token ids on which merged and adapter-applied model are compared.

    Returns:
        The largest absolute difference of their logits.

    Raises:
        FrontierError: They differ by more than `TOLERANCE`.
    """
    import torch
    from peft import PeftModel

    from dagster_project.training.dpo import load_model

    model, tokenizer = load_model(base, "float32")
    adapted = PeftModel.from_pretrained(model, adapter).eval()
    ids = torch.tensor([list(probe)])
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        merged = adapted.merge_and_unload()
        difference = float((merged(input_ids=ids).logits - expected).abs().max())
    if not difference <= TOLERANCE:
        raise FrontierError(f"Merging {adapter} changed logits by {difference:.2g}; at most {TOLERANCE} is rounding.")
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return difference
