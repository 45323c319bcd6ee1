"""Log-probabilities of a batch in which what its sequences begin with alike is computed once.

A batch becomes one row, its token trees one after the other, in which every token attends to what leads to it in its
tree. Nothing is padded, and equal sequences are one. The model's other parts never learn of it: they look at one token
at a time, and are told each token's position.

Imports torch: import this module only where training happens.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dagster_project.training.token_tree import Run, TokenTree, build_tree
from toolemu.errors import FrontierError

Attention = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
ATTENTION = "token_tree"
"""Name of the attention that knows trees, among those of transformers."""
SHORT = 128
"""Runs of together so many nodes attend in one go on a CPU: measured; a tenth of a tiny model's step."""


def share_text(model: PreTrainedModel) -> None:
    """Gives a model the attention that `score` needs; without a tree it is transformers' `sdpa`.

    Raises:
        FrontierError: See `check_can_share`.
    """
    check_can_share(model)
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


def check_can_share(model: PreTrainedModel) -> None:
    """Checks that what is shared can be computed once for a model, whose weights are not looked at.

    Raises:
        FrontierError: Its attention is not plain causal attention, so that trees would be silently wrong.
    """
    config = model.config.get_text_config()
    reason = ""
    if not model._supports_sdpa or not model._can_set_attn_implementation():
        reason = "its attention cannot be replaced"
    elif set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        reason = "some layers do not attend to everything before a token"
    elif getattr(config, "sliding_window", None) is not None:
        reason = "it attends to a window"
    elif getattr(config, "attn_logit_softcapping", None) is not None:
        reason = "it caps attention scores"
    elif getattr(config, "output_router_logits", False):
        reason = "its loss counts how often each expert is used, and shared tokens would count once"
    if reason:
        raise FrontierError(
            f"What is shared cannot be computed once for {type(model).__name__}: {reason}. Set trainer.shared_text to "
            "false."
        )


def tree_of(input_ids: torch.Tensor, attention_mask: torch.Tensor, sequences: torch.Tensor | None = None) -> TokenTree:
    """Return the trees of a batch's sequences.

    Args:
        input_ids: Tokens, shape (rows, length).
        attention_mask: 1 for tokens and 0 for padding, which is on the right; same shape.
        sequences: Which sequence of its row each token belongs to, same shape; None: each row is one.

    Returns:
        Trees whose `paths` have a row for each of the batch; there is no node between two sequences of a row.

    Raises:
        ValueError: There is padding on the left, or in between.
    """
    if (attention_mask.diff(dim=1) > 0).any():
        raise ValueError("padding goes on the right")
    rows = input_ids.cpu().numpy()
    if sequences is None:
        lengths = attention_mask.sum(1).tolist()
        return build_tree([row[:length] for row, length in zip(rows, lengths, strict=True)])
    stretches = stretches_of(sequences, attention_mask)
    tree = build_tree([rows[row][start:stop] for row, start, stop in stretches])
    paths = np.full((len(rows), rows.shape[1] - 1), -1, dtype=np.int64)
    for path, (row, start, stop) in zip(tree.paths, stretches, strict=True):
        paths[row, start : stop - 1] = path[: stop - 1 - start]
    return tree._replace(paths=paths)


class Stretch(NamedTuple):
    """A sequence's place in a batch: columns `start` … `stop` - 1 of a row."""

    row: int
    start: int
    stop: int


def stretches_of(sequences: torch.Tensor, attention_mask: torch.Tensor) -> list[Stretch]:
    """Return where a batch's sequences stand, row by row; the arguments are those of `tree_of`."""
    found = []
    for row, (numbers, length) in enumerate(zip(sequences.cpu(), attention_mask.sum(1).tolist(), strict=True)):
        sizes = torch.unique_consecutive(numbers[:length], return_counts=True)[1].tolist()
        stops = list(itertools.accumulate(sizes))
        found += [Stretch(row, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
    return found


def score_apart(
    model: Callable[..., Any],
    sequences: torch.Tensor,
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    **flags: Any,
) -> Any:
    """Return what `model(...)` would for rows of several sequences, each of which is computed by itself.

    Args:
        model: A model, wrapped or not, that has TRL's fused head.
        sequences: Which sequence of its row each token belongs to, shape (rows, length).
        input_ids: Tokens, same shape.
        attention_mask: 1 for tokens and 0 for padding, same shape.
        labels: `input_ids` where a token's log-probability is wanted, else -100; same shape.
        flags: Further arguments of the model.

    Returns:
        As `score` does: quantities of single tokens, each of shape (rows, length - 1), and no `loss`.
    """
    stretches = stretches_of(sequences, attention_mask)
    shape = (len(stretches), max(stop - start for _, start, stop in stretches))
    alone = {
        name: torch.full(shape, filler, dtype=value.dtype, device=value.device)
        for name, value, filler in (
            ("input_ids", input_ids, 0),
            ("attention_mask", attention_mask, 0),
            ("labels", labels, -100),
        )
    }
    places = torch.zeros_like(labels[:, 1:])
    for number, (row, start, stop) in enumerate(stretches):
        for name, value in (("input_ids", input_ids), ("attention_mask", attention_mask), ("labels", labels)):
            alone[name][number, : stop - start] = value[row, start:stop]
        first = number * (shape[1] - 1)
        places[row, start : stop - 1] = torch.arange(first, first + stop - 1 - start, device=places.device)
    output = model(**alone, **flags)
    for name, value in list(output.items()):
        if name == "loss":
            output[name] = None
        elif value.shape == (shape[0], shape[1] - 1):
            output[name] = value.flatten()[places].masked_fill(labels[:, 1:] == -100, 0)
    return output


def score(
    model: Callable[..., Any],
    tree: TokenTree,
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    **flags: Any,
) -> Any:
    """Returns what `model(...)` would, with the text that the batch's sequences share computed once.

    Args:
        model: A model, wrapped or not, whose base went through `share_text` and has TRL's fused head.
        tree: What `tree_of` says of the batch.
        input_ids: Tokens, shape (sequences, length).
        attention_mask: 1 for tokens and 0 for padding, same shape.
        labels: `input_ids` where a token's log-probability is wanted, else -100; same shape.
        flags: Further arguments of the model.

    Returns:
        TRL's `FusedCausalLMOutput`: its quantities of single tokens, each of shape (sequences, length - 1), 0 where the
        label is -100; no `loss`, which would count shared tokens once.
    """
    if not len(tree.tokens):
        return model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **flags)
    device = input_ids.device
    paths = torch.from_numpy(tree.paths).to(device)
    wanted = labels[:, 1:]
    counted = wanted != -100
    next_tokens = torch.full((len(tree.tokens),), -100, device=device)
    next_tokens[paths[counted]] = wanted[counted]
    output = model(
        input_ids=torch.from_numpy(tree.tokens).to(device)[None],
        position_ids=torch.from_numpy(tree.positions).to(device)[None],
        # Nothing reads it: without one, transformers would build a mask over the whole row, nodes by nodes.
        attention_mask=torch.ones((1, 1, 1, 1), dtype=torch.bool, device=device),
        shift_labels=next_tokens[None],
        tree_attention=tree_attention(tree, device),
        **flags,
    )
    places = paths.clamp(min=0)
    for name, value in list(output.items()):
        if name == "loss":
            output[name] = None
        elif value.shape == (1, len(tree.tokens)):
            output[name] = value[0][places].masked_fill(~counted, 0)
    return output


def tree_attention(tree: TokenTree, device: torch.device) -> Attention:
    """Returns causal attention within trees, to be called as transformers calls attention, without a mask.

    On a CUDA device it is FlexAttention, which skips blocks in which nothing attends to anything. That has no backward
    pass on a CPU, where stretches of nodes attend one after the other to what leads to them and to themselves.
    """
    return in_blocks(tree, device) if device.type == "cuda" else in_parts(tree, device)


def in_blocks(tree: TokenTree, device: torch.device) -> Attention:
    """Returns `tree_attention` by FlexAttention; on a CPU it runs, too, where no gradient is wanted."""
    size = len(tree.ends)
    mask = torch.compile(create_block_mask)(tree_mask(tree, device), None, None, size, size, device)
    return functools.partial(flex_attention_forward, attention_mask=mask)


def in_parts(tree: TokenTree, device: torch.device) -> Attention:
    """Returns `tree_attention` run by run, on any device."""
    return functools.partial(_attend_in_parts, parts=_parts(tree, device))


def tree_mask(tree: TokenTree, device: torch.device) -> Callable[..., torch.Tensor]:
    """Returns which node attends to which, as FlexAttention asks for it."""
    ends = torch.from_numpy(tree.ends).to(device)

    def attends(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (query < ends[key])

    return attends


class _Part(NamedTuple):
    """Nodes that attend in one go.

    Attributes:
        start: The first of them.
        stop: One past the last.
        keys: Stretches of nodes to which any of them attends.
        mask: Which attends to which, shape (1, 1, nodes, keys); None where each attends to all before it and itself.
    """

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]
    mask: torch.Tensor | None


def _parts(tree: TokenTree, device: torch.device) -> list[_Part]:
    """Returns the runs as parts, short neighbours together."""
    runs: list[Run] = []
    for run in tree.runs:
        if runs and run.stop - runs[-1].start <= SHORT:
            runs[-1] = runs[-1]._replace(stop=run.stop)
        else:
            runs.append(run)
    roots = {(run.start, run.stop) for run in tree.runs if not run.before}
    attends = tree_mask(tree, device)
    parts = []
    for start, stop, before in runs:
        keys = (*before, (start, stop))
        mask = None
        if (start, stop) not in roots:
            nodes = torch.cat([torch.arange(*stretch, device=device) for stretch in keys])
            mask = attends(None, None, torch.arange(start, stop, device=device)[:, None], nodes[None])[None, None]
        parts.append(_Part(start, stop, keys, mask))
    return parts


def _attend_in_parts(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    parts: Sequence[_Part],
    **options: Any,
) -> tuple[torch.Tensor, None]:
    found = []
    for start, stop, stretches, mask in parts:
        keys, values = (torch.cat([all_[:, :, a:b] for a, b in stretches], dim=2) for all_ in (key, value))
        found.append(sdpa_attention_forward(module, query[:, :, start:stop], keys, values, mask, **options)[0])
    return torch.cat(found, dim=1), None


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    tree_attention: Attention | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if tree_attention is not None:
        return tree_attention(module, query, key, value, **options)
    result: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return result
