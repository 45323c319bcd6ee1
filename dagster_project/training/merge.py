"""Merging an adapter into its base, file by file, checked on logits of real conversations."""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from dagster_project.training.concatenate import PREFIX, Adapter, check_fits, read_adapter
from dagster_project.training.preflight import require_disk
from toolemu.errors import FrontierError

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-3
"""Largest difference of logits between merged and adapter-applied model where weights are float32; 2e-5 is usual."""
ROUNDED_TOLERANCE = 0.25
"""Where weights are rounded to fewer bits: the difference's share of what the adapter changes, root mean squares."""
COMPANIONS = (".json", ".jinja", ".txt", ".model")
"""Files beside the weights that make a model, by their endings."""


class MergeReport(NamedTuple):
    """How well a merge went.

    Attributes:
        max_logit_difference: Largest absolute difference of logits to the model with the adapter applied, computed in
            float32.
        logit_difference: Root mean square of that difference.
        effect: Root mean square of what the adapter changes of the logits.
        delta_lost: Norm of what rounding to the base's precision took of the change of weights, by that change's.
    """

    max_logit_difference: float
    logit_difference: float
    effect: float
    delta_lost: float


def merge_adapter(base: Path, adapter: Path, out: Path, probes: Sequence[Sequence[int]]) -> MergeReport:
    """Merges `adapter` into `base` and writes a model in the base's files and precision below `out`.

    Sums are float32 (adding in bfloat16 would lose small changes twice), one file of the base at a time in memory.

    Args:
        base: Directory of the base's weights and tokenizer.
        adapter: Directory of the adapter.
        out: Where the merged model goes; not there if this fails.
        probes: Conversations as token ids, on which merged and adapter-applied model are compared.

    Raises:
        FrontierError: The adapter is of another base, memory or disk are too small, or the two differ by more than
            rounding can explain.
    """
    part = read_adapter(adapter)
    check_fits(base, adapter)
    require_memory(base)
    require_disk(out, sum(path.stat().st_size for path in base.glob("*.safetensors")), "the merged model")
    out.mkdir(parents=True, exist_ok=True)
    try:
        lost, rounded = _merge_files(base, {name.removeprefix(PREFIX): name for name in part.down}, part, out)
        for path in sorted(base.iterdir()):
            if path.suffix in COMPANIONS:
                shutil.copyfile(path, out / path.name)
        report = MergeReport(*_compare(base, adapter, out, probes), lost)
        worst = ROUNDED_TOLERANCE * report.effect if rounded else TOLERANCE
        found = report.logit_difference if rounded else report.max_logit_difference
        if not found <= worst:
            raise FrontierError(
                f"Merging {adapter} changed logits by {found:.2g}; at most {worst:.2g} is rounding"
                + (f", which took {lost:.0%} of the change of weights." if rounded else ".")
            )
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return report


def require_memory(base: Path) -> None:
    """Check that the base fits into memory in float32, in which the merge is verified, one model at a time.

    Args:
        base: Directory of the base's weights.

    Raises:
        FrontierError: `merge.memory`: It does not.
    """
    from safetensors import safe_open

    needed = 0
    for path in base.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            needed += 4 * sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    available = psutil.virtual_memory().available
    if available < needed:
        raise FrontierError(
            f"Verifying a merge into {base} needs {needed / 2**30:.1f} GiB of memory, and {available / 2**30:.1f} GiB "
            "are available. Free some, or merge on a larger machine.",
            code="merge.memory",
        )


def _merge_files(base: Path, modules: dict[str, str], part: Adapter, out: Path) -> tuple[float, bool]:
    """Writes the base's files with the adapter added; returns what rounding took of it, and whether any was rounded."""
    import torch
    from safetensors.torch import load_file, save_file

    change, error, rounded = 0.0, 0.0, False
    for path in sorted(base.glob("*.safetensors")):
        weights = load_file(path)
        for name, weight in weights.items():
            module = modules.get(name.removesuffix(".weight"))
            if module is None:
                continue
            delta = part.scale * (part.up[module] @ part.down[module])
            merged = weight.to(torch.float32) + delta
            weights[name] = merged.to(weight.dtype)
            change += float(delta.double().square().sum())
            error += float((weights[name].to(torch.float32) - merged).double().square().sum())
            rounded |= weight.dtype != torch.float32
        save_file(weights, out / path.name, metadata={"format": "pt"})
    return math.sqrt(error / change) if change else 0.0, rounded


def _compare(base: Path, adapter: Path, merged: Path, probes: Sequence[Sequence[int]]) -> tuple[float, float, float]:
    """Returns the largest and the mean difference of logits, and what the adapter changes; one model at a time."""
    import torch
    from peft import PeftModel

    from dagster_project.training.dpo import load_model

    def logits(path: Path, applied: Path | None = None) -> tuple[list[Tensor], list[Tensor]]:
        model, _ = load_model(path, "float32")
        with torch.no_grad():
            plain = [model.eval()(input_ids=torch.tensor([list(ids)])).logits for ids in probes]
            if applied is None:
                return plain, plain
            adapted = PeftModel.from_pretrained(model, applied).eval()
            return plain, [adapted(input_ids=torch.tensor([list(ids)])).logits for ids in probes]

    plain, expected = logits(base, adapter)
    gc.collect()
    found, _ = logits(merged)
    errors = torch.cat([(one - other).flatten() for one, other in zip(found, expected, strict=True)])
    effects = torch.cat([(one - other).flatten() for one, other in zip(plain, expected, strict=True)])
    return float(errors.abs().max()), float(errors.square().mean().sqrt()), float(effects.square().mean().sqrt())
