"""Float64 for all linear algebra, on any device."""

from __future__ import annotations

from torch import Tensor


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its own device, or on the CPU where that device has none (Apple's)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
