"""Several adapters as one, without any training: the stages of an agent over its original base, or a mixture of agents.

LoRA adds ``scale · B A`` to a weight. Stacked along their ranks, ``[w₁s₁A₁; w₂s₂A₂]`` and ``[B₁ B₂]`` add
``w₁s₁B₁A₁ + w₂s₂B₂A₂``: for weights of 1 that is what merging one after the other adds, so a two-stage agent is its
source model with one adapter of twice the rank. PEFT's `cat` does the same, but needs the base in memory and takes
another scale with rsLoRA.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_project.experiment.training import VOCABULARY_MODULES
from toolemu.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"
AGAIN = "Was it copied or fetched to its end? Do that again."
PREFIX = "base_model.model."
"""What PEFT puts before a base's own names of its weights."""
_PLAIN = {"use_dora": False, "bias": "none", "modules_to_save": None, "fan_in_fan_out": False}
_PATTERNS = ("rank_pattern", "alpha_pattern", "target_parameters", "layer_replication", "trainable_token_indices")


class Adapter(NamedTuple):
    """A LoRA adapter on disk: its configuration, and each module's two matrices.

    Attributes:
        config: PEFT's `adapter_config.json`.
        down: By module, A of shape (rank, inputs).
        up: By module, B of shape (outputs, rank).
    """

    config: dict[str, Any]
    down: dict[str, Tensor]
    up: dict[str, Tensor]

    @property
    def scale(self) -> float:
        """What its product of matrices is multiplied by."""
        rank = self.config["r"]
        return float(self.config["lora_alpha"] / (math.sqrt(rank) if self.config.get("use_rslora") else rank))


def read_adapter_config(path: Path) -> dict[str, Any]:
    """Returns an adapter's configuration.

    Raises:
        InputError: There is none, or it is not of plain LoRA on linear layers.
    """
    try:
        config: dict[str, Any] = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(path, "", f"is no adapter: it holds no {CONFIG}.", "Give the folder PEFT saved.") from error
    except json.JSONDecodeError as error:
        raise InputError(path / CONFIG, f"line {error.lineno}", f"not valid JSON: {error.msg}.") from error
    if config.get("peft_type") != "LORA":
        raise InputError(path / CONFIG, "'peft_type'", f"expected LORA, found {config.get('peft_type')!r}.")
    odd = [name for name, value in _PLAIN.items() if config.get(name, value) not in (value, [])]
    odd += [name for name in _PATTERNS if config.get(name)]
    if odd:
        raise InputError(
            path / CONFIG,
            f"{odd[0]!r}",
            f"{config[odd[0]]!r} is more than plain LoRA, which cannot be merged or served.",
            "Train the adapter without it.",
            code="adapter.not-plain",
        )
    return config


def check_servable(path: Path) -> None:
    """Check that a server can load an adapter: that it changes linear layers and nothing else.

    Raises:
        InputError: The adapter trains whole modules (`modules_to_save`), tokens or embeddings, or is no plain LoRA.
    """
    read_adapter_config(path)
    if not (path / WEIGHTS).is_file():
        raise InputError(path, "", f"is no adapter: it holds no {WEIGHTS}.", "Give the folder PEFT saved.")
    from safetensors import safe_open

    with safe_open(path / WEIGHTS, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            module, _, side = name.removesuffix(".weight").rpartition(".")
            if side not in ("lora_A", "lora_B") or module.rpartition(".")[2] in VOCABULARY_MODULES:
                raise InputError(
                    path / WEIGHTS,
                    repr(name),
                    "is no matrix of LoRA on a linear layer between embeddings and head, so no server loads it.",
                    "Train the adapter without modules_to_save, and with target_modules that are linear layers.",
                    code="adapter.not-servable",
                )


def read_adapter(path: Path) -> Adapter:
    """Returns an adapter, its weights in float32.

    Raises:
        InputError: It is none, or holds something else than LoRA's two matrices of linear layers.
    """
    import torch
    from safetensors.torch import load_file

    config = read_adapter_config(path)
    if not (path / WEIGHTS).is_file():
        raise InputError(path, "", f"is no adapter: it holds no {WEIGHTS}.", "Give the folder PEFT saved.")
    sides: dict[str, dict[str, Tensor]] = {".lora_A.weight": {}, ".lora_B.weight": {}}
    for name, weight in load_file(path / WEIGHTS).items():
        suffix = next((suffix for suffix in sides if name.endswith(suffix)), None)
        if suffix is None:
            raise InputError(path / WEIGHTS, f"{name!r}", "is no matrix of LoRA on a linear layer.")
        sides[suffix][name.removesuffix(suffix)] = weight.to(torch.float32)
    return Adapter(config, *sides.values())


def check_fits(base: Path, adapter: Path) -> None:
    """Checks that an adapter's matrices fit the weights they are for, from the files' headers alone.

    What it holds besides LoRA's two matrices is passed over.

    Raises:
        InputError: A module is missing in the base or has another shape: the adapter is of another base.
    """
    from safetensors import safe_open

    shapes = weight_shapes(base)
    with safe_open(adapter / WEIGHTS, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            module, _, side = name.removesuffix(".weight").rpartition(".")
            if side not in ("lora_A", "lora_B"):
                continue
            weight = shapes.get(f"{module.removeprefix(PREFIX)}.weight")
            found = file.get_slice(name).get_shape()
            axis = 1 if side == "lora_A" else 0
            if weight is None or found[axis] != weight[axis]:
                expected = "which the base does not have" if weight is None else f"where the base has {weight}"
                raise InputError(
                    adapter,
                    module.removeprefix(PREFIX),
                    f"is an adapter of another base than {base}: it changes this module by {found}, {expected}.",
                    "Give the base that it was trained on.",
                )


def weight_shapes(base: Path) -> dict[str, list[int]]:
    """Returns the shape of every weight of a model by its name, from the headers of its safetensors files.

    Raises:
        InputError: There is no model in safetensors files, or not all of it.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(base.glob("*.safetensors"))
    if not files:
        raise InputError(base, "", "holds no model: there is no *.safetensors in it.", "Check the path of the base.")
    shapes = {}
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                shapes.update({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(path, "", f"cannot be read, or not to its end: {error}.", AGAIN) from error
    index = base / INDEX
    listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if index.is_file() else {}
    if absent := sorted({file for name, file in listed.items() if name not in shapes}):
        raise InputError(base, "", f"lacks weights that {INDEX} says are in {', '.join(absent)}.", AGAIN)
    return shapes


def concatenate_adapters(
    base: Path, adapters: Sequence[Path], out: Path, weights: Sequence[float] | None = None
) -> None:
    """Writes one adapter over `base` that does what all of `adapters` together do.

    Its rank is the sum of theirs, and its scale 1 (`lora_alpha` is the rank); weights are float32. What loads it needs
    room for that rank (vLLM: `max_lora_rank`).

    Args:
        base: The model that the first stage was trained on; later stages' are that model with earlier stages merged.
        adapters: The stages' adapters, in any order; ranks, scales and modules may differ.
        out: Folder of the result; made if need be.
        weights: How much of each adapter; all of each without.

    Raises:
        InputError: Something is no plain LoRA adapter, or of a model of another shape.
    """
    import torch
    from safetensors.torch import save_file

    parts = [read_adapter(path) for path in adapters]
    for path in adapters:
        check_fits(base, path)
    shares = [1.0] * len(parts) if weights is None else list(weights)
    rank = sum(part.config["r"] for part in parts)
    modules = sorted({module for part in parts for module in part.down})
    tensors: dict[str, Tensor] = {}
    for module in modules:
        shape = next((part.down[module].shape[1], part.up[module].shape[0]) for part in parts if module in part.down)
        downs, ups = [], []
        for part, share in zip(parts, shares, strict=True):
            ranks = part.config["r"]
            downs.append(share * part.scale * _matrix(part.down, module, (ranks, shape[0])))
            ups.append(_matrix(part.up, module, (shape[1], ranks)))
        tensors[f"{module}.lora_A.weight"] = torch.cat(downs, dim=0)
        tensors[f"{module}.lora_B.weight"] = torch.cat(ups, dim=1)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    config = parts[0].config | {
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": sorted({module.rpartition(".")[2] for module in modules}),
    }
    (out / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _matrix(matrices: Mapping[str, Tensor], module: str, shape: tuple[int, int]) -> Tensor:
    """Returns a module's matrix, of zeros where the adapter leaves the module alone."""
    import torch

    found = matrices.get(module)
    return torch.zeros(shape) if found is None else found
