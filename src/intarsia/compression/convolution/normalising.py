"""Batch norms told anew what they normalise. Whatever changes weights moves the mean and the spread of what follows;
the running statistics of the old network then spoil the new one, often more than the change itself.

Source: the statistics are those of Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 2; taking them again after weights
were rounded: Sun et al. 2019, arXiv 1906.00625 (hybrid 8-bit training), and, after pruning, Li et al. 2020 (EagleEye),
arXiv 2007.02491, section 3.3."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from intarsia.compression.convolution.networks import BATCH, answers, mode

INPUTS = 1000
"""So many pictures are enough: the mean of a channel is over every place of each."""


def norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def reestimate(network: nn.Module, pixels: Tensor, batch: int = BATCH, most: int = INPUTS) -> int:
    """Reset every batch norm's running mean and variance and take them again, in place, in one pass.

    - pixels [picture, channel, height, width]: at most `most` of them are read, in batches of nearly equal size, and
      a norm's statistics are the mean of the batches' (variances unbiased, as torch keeps them). Norms see what the
      norms below give with their batch's own statistics. Nothing else of the network runs as in training (dropout).

    Gives the number of norms; 0: there are none and nothing was done."""
    found = norms(network)
    if not found:
        return 0
    pixels = pixels[:most]
    parts = max(1, -(-len(pixels) // batch))
    momenta = [norm.momentum for norm in found]
    with mode(network, training=False):
        for norm in found:
            norm.reset_running_stats()
            norm.momentum = None  # torch's way to say: the cumulative average
            norm.training = True
        try:
            for part in pixels.tensor_split(parts):
                answers(network, part)
        finally:
            for norm, momentum in zip(found, momenta, strict=True):
                norm.momentum = momentum
    return len(found)
