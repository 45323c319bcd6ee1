"""Bases: whether a folder of weights can be trained with a LoRA adapter that can then be merged and served."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster_project.training.concatenate import weight_shapes
from toolemu.errors import FrontierError, InputError

_QUANTIZED = ("quantization_config", "compression_config")
_QUANTIZED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Files beside the weights that some tools (AutoGPTQ, AutoAWQ, ModelOpt) write in place of a key in config.json."""
_FLOATS = ("F64", "F32", "F16", "BF16")
"""Data types of weights that an adapter can be added to, as safetensors name them."""


def base_weights(base: Path) -> dict[str, list[int]]:
    """Return the shape of every weight of a base, having checked that an adapter can be merged into the base.

    Raises:
        FrontierError: The folder holds no model, an adapter, or quantized weights.
    """
    check_base(base)
    shapes = weight_shapes(base)
    _check_types(base)
    return shapes


def check_base(base: Path) -> None:
    """Check by its configuration that a folder holds a model that an adapter can be merged into.

    Raises:
        InputError: The folder holds no model, an adapter, or a model whose weights are quantized.
    """
    if not base.is_dir():
        raise InputError(
            base,
            "",
            "is no folder.",
            "Give the folder of a base's weights; nothing is fetched from a hub.",
            code="base.missing",
        )
    if not (base / "config.json").is_file():
        raise InputError(
            base,
            "",
            "is no model: there is no config.json in it.",
            "Check the path of the base.",
            code="base.missing",
        )
    if (base / "adapter_config.json").is_file():
        raise InputError(
            base, "", "holds an adapter, not a base.", "Merge it into its base first.", code="base.is-adapter"
        )
    config = _config(base)
    for place, section in (("", config), *((f"{name}.", part) for name, part in config.items())):
        for name in _QUANTIZED:
            if isinstance(section, dict) and section.get(name):
                raise _quantized(base / "config.json", f"{place}{name}", section[name])
    for file in _QUANTIZED_FILES:
        if (base / file).is_file():
            raise _quantized(base / file, "", None)


def check_targets(base: Path, weights: Mapping[str, Sequence[int]], targets: Sequence[str] | str) -> None:
    """Check that the base has the modules that an adapter is asked for on, and that none is an embedding or the head.

    Raises:
        FrontierError: A module is missing. Or it has a row for each token of the vocabulary: an adapter on the
            embeddings or the head cannot be merged where both share their weights, and no server loads it.
    """
    if isinstance(targets, str):
        return
    modules = [name.removesuffix(".weight").split(".") for name, shape in weights.items() if len(shape) == 2]
    config = _config(base)
    text = config.get("text_config")
    vocabulary = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, dict) else None)
    for target in targets:
        wanted = target.split(".")
        matched = [module for module in modules if module[-len(wanted) :] == wanted]
        if not matched:
            raise FrontierError(
                f"training.lora_targets: {base} has no module {target!r}; it has "
                f"{', '.join(sorted({module[-1] for module in modules}))}.",
                code="training.no-such-module",
            )
        for module in matched:
            rows, *_ = weights.get(".".join([*module, "weight"]), [0])
            if rows == vocabulary and not any(part.isdecimal() for part in module):
                raise FrontierError(
                    f"training.lora_targets: {target!r} is {'.'.join(module)}, which has a row for each token. An "
                    "adapter on the embeddings or the head cannot be merged where they share weights, and servers do "
                    "not load it. Name linear layers between them, or `all-linear`.",
                    code="training.vocabulary-module",
                )


def _config(base: Path) -> dict[str, Any]:
    path = base / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            path, "", f"cannot be read as JSON: {error}.", "Copy the model again.", code="base.config"
        ) from error
    if not isinstance(value, dict):
        raise InputError(path, "", "holds no JSON object.", "Copy the model again.", code="base.config")
    return value


def _check_types(base: Path) -> None:
    """Check that the base's matrices are floating-point numbers, from the headers of its files.

    Some tools quantize weights and say so nowhere else.
    """
    from safetensors import safe_open

    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                if name.endswith("weight") and len(part.get_shape()) > 1 and part.get_dtype() not in _FLOATS:
                    raise _quantized(path, name, part.get_dtype())


def _quantized(path: Path, place: str, found: object) -> InputError:
    method = found.get("quant_method", "") if isinstance(found, dict) else found
    return InputError(
        path,
        place,
        f"says that the weights are quantized{f' ({method})' if method else ''}. An adapter cannot be merged into "
        "quantized weights.",
        "Give the model as it was before it was quantized. `training.quantization` quantizes it for training.",
        code="base.quantized",
    )
