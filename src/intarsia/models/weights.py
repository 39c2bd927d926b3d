"""A key of a network's weights: what is stored for one model is never taken for another's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intarsia.models.model import Model


def weights_key(model: Model) -> str:
    """Of the weights: two models share what is stored only where every weight is the same.

    The sum over all bits, as whole numbers, does not depend on the order of summing, and so not on threads."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    for name, value in model.network.state_dict().items():
        flat = value.detach().flatten()
        if flat.element_size() in (1, 2, 4, 8) and flat.dtype is not torch.bool and not flat.is_complex():
            flat = flat.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
        some = flat[:: max(1, len(flat) // 64)].tolist()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} {int(flat.sum(dtype=torch.int64))} {some}".encode())
    return digest.hexdigest()
