"""Log-probabilities of a batch in which what its sequences begin with alike is computed once.

A batch becomes one row, its token trees one after the other, in which every token attends to what leads to it in its
tree. Nothing is padded, and equal sequences are one. The model's other parts never learn of it: they look at one token
at a time, and are told each token's position.

Imports torch: import this module only where training happens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


def share_text(model: PreTrainedModel) -> None:
    """Gives a model the attention that `score` needs; without a tree it is transformers' `sdpa`.

    Raises:
        FrontierError: The model's attention is not plain causal attention, so that trees would be silently wrong.
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
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


def score(
    model: Callable[..., Any],
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    **flags: Any,
) -> Any:
    """Returns what `model(...)` would, with the text that the batch's sequences share computed once.

    Args:
        model: A model, wrapped or not, whose base went through `share_text` and has TRL's fused head.
        input_ids: Tokens, shape (sequences, length), padded on the right.
        attention_mask: 1 for tokens and 0 for padding, same shape.
        labels: `input_ids` where a token's log-probability is wanted, else -100; same shape.
        flags: Further arguments of the model.

    Returns:
        TRL's `FusedCausalLMOutput`: its quantities of single tokens, each of shape (sequences, length - 1), 0 where the
        label is -100; no `loss`, which would count shared tokens once.
    """
    tree = build_tree(_sequences(input_ids, attention_mask))
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


def _sequences(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[Any]:
    rows, lengths = input_ids.cpu().numpy(), attention_mask.sum(1).tolist()
    if not all(bool(mask[:length].all()) for mask, length in zip(attention_mask, lengths, strict=True)):
        raise ValueError("padding goes on the right")
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def tree_attention(tree: TokenTree, device: torch.device) -> Attention:
    """Returns causal attention within trees, to be called as transformers calls attention, without a mask.

    On a CUDA device it is FlexAttention, which skips blocks in which nothing attends to anything. That has no backward
    pass on a CPU, where every run attends on its own to what leads to it and to itself.
    """
    if device.type == "cuda":
        size = len(tree.ends)
        mask = create_block_mask(tree_mask(tree, device), None, None, size, size, device, _compile=True)
        return functools.partial(flex_attention_forward, attention_mask=mask)
    return functools.partial(_attend_run_by_run, runs=[_with_mask(run, device) for run in tree.runs])


def tree_mask(tree: TokenTree, device: torch.device) -> Callable[..., torch.Tensor]:
    """Returns which node attends to which, as FlexAttention asks for it."""
    ends = torch.from_numpy(tree.ends).to(device)

    def attends(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (query < ends[key])

    return attends


class _MaskedRun(NamedTuple):
    """A run; and the mask, shape (1, 1, run, before + run), None at a root, where plain causal attention does."""

    run: Run
    mask: torch.Tensor | None


def _with_mask(run: Run, device: torch.device) -> _MaskedRun:
    if not run.before:
        return _MaskedRun(run, None)
    length, before = run.stop - run.start, sum(stop - start for start, stop in run.before)
    mask = torch.ones(length, before + length, dtype=torch.bool, device=device).tril(before)
    return _MaskedRun(run, mask[None, None])


def _attend_run_by_run(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    runs: Sequence[_MaskedRun],
    **options: Any,
) -> tuple[torch.Tensor, None]:
    parts = []
    for (start, stop, before), mask in runs:
        stretches = [*before, (start, stop)]
        keys, values = (torch.cat([all_[:, :, a:b] for a, b in stretches], dim=2) for all_ in (key, value))
        parts.append(sdpa_attention_forward(module, query[:, :, start:stop], keys, values, mask, **options)[0])
    return torch.cat(parts, dim=1), None


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
