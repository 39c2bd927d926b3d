"""Adam over tensors of a part's state, so that its moments are saved and restored with them."""

from __future__ import annotations

import torch
from torch import Tensor


def adam(state: dict[str, Tensor], gradients: dict[str, Tensor], rate: float) -> None:
    """One step (Kingma & Ba 2015, with its default decay rates), in place. The count and moments stand in `state`."""
    state["count"] = state.get("count", torch.zeros((), dtype=torch.int64)) + 1
    n = int(state["count"])
    for name, gradient in gradients.items():
        first = state.setdefault(f"{name}.first", torch.zeros_like(gradient))
        second = state.setdefault(f"{name}.second", torch.zeros_like(gradient))
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.001)
        with torch.no_grad():
            step = (first / (1 - 0.9**n)) / ((second / (1 - 0.999**n)).sqrt_() + 1e-8)
            state[name].sub_(step, alpha=rate)
