"""Attention that the interface of transformers does not see: BLIP's, fused in the vision tower and crossing in text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.sites.attention import AttentionCall, biased
from intarsia.sites.recomposing.flow import Flow


def is_fused(module: nn.Module) -> bool:
    """Whether it is an attention with one projection for queries, keys and values, and the scale and output
    projection by their usual names (BLIP's vision tower)."""
    return all(hasattr(module, name) for name in ("qkv", "projection", "num_heads", "scale"))


def fused_attention(
    module: Any, hidden: Tensor, handler: Callable[[AttentionCall], None], dropout: float = 0.0
) -> tuple[Tensor, None]:
    """Such an attention over `hidden` [batch, token, width], through PyTorch's kernels and with a look from `handler`.

    The probabilities are not made, so the second output is None."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch, tokens, width = hidden.shape
    qkv = module.qkv(hidden).reshape(batch, tokens, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    call = AttentionCall(module, *qkv, None, {"scaling": module.scale, "is_causal": False, "dropout": dropout})
    handler(call)
    if call.bias is not None:
        mixed, _ = biased(call, sdpa_attention_forward)
    else:
        mixed, _ = sdpa_attention_forward(module, call.q, call.k, call.v, call.mask, **call.kwargs)
    return module.projection(mixed.reshape(batch, tokens, width)), None


def crossing_attentions(network: nn.Module) -> list[nn.Module]:
    """Cross-attentions that take a mask over what they read as `encoder_attention_mask` and are called without one
    (BLIP's text towers: the layer above never passes it on)."""
    import inspect

    found = []
    for path, module in network.named_modules():
        if not path.endswith("crossattention.self"):
            continue
        if "encoder_attention_mask" in inspect.signature(type(module).forward).parameters:
            found.append(module)
    return found


def size_mask(flows: Iterable[Flow], states: Tensor | None) -> Tensor | None:
    """[batch, 1, 1, row] log sizes of the reduced rows that `states` [batch, row, width] holds, or None where it holds
    none of them. Beams are repeated rows."""
    if states is None:
        return None
    for flow in flows:
        given, bias = flow.given, flow.bias()
        if given is None or bias is None or given.shape[1:] != states.shape[1:]:
            continue
        repeats, odd = divmod(len(states), len(given))
        if odd or not (states is given or torch.equal(states[0, 0], given[0, 0])):
            continue
        return bias.repeat_interleave(repeats, dim=0)[:, None, None, :].to(states.dtype)
    return None
