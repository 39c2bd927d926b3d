"""Shared by the tests of the engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from intarsia.sites import SiteMap


def output(result) -> Tensor:
    """The tensor a network's output is judged by."""
    for key in ("logits", "last_hidden_state", "logits_per_text"):
        if getattr(result, key, None) is not None:
            return getattr(result, key)
    raise AssertionError(f"no tensor in {type(result).__name__}")


def plain(model, x) -> Tensor:
    """The bare network's output."""
    with torch.no_grad():
        return output(model.network(**x))


def hooks(network: nn.Module) -> int:
    """How many hooks and patched forwards there are."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    count = sum(len(getattr(m, kind)) for m in network.modules() for kind in kinds)
    return count + sum("forward" in m.__dict__ for m in network.modules())


def attention_names(network: nn.Module) -> list:
    """The attention implementation every module's config names."""
    return [m.config._attn_implementation_internal for m in network.modules() if hasattr(m, "config")]


def writable(sites: SiteMap) -> list[str]:
    return [name for name, tap in sites.taps.items() if tap.writable]
