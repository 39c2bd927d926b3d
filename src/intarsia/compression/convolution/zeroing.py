"""Small weights set to zero. It saves bytes at rest (a bit a weight says where the others stand), and no time: no
kernel of PyTorch or ONNX Runtime skips zeros on a CPU.

Source: Han et al. 2015, arXiv 1506.02626; the ranking among all layers is `pruning.masks`'s."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from intarsia.compression.convolution.networks import check_network, check_pixels, convolutions
from intarsia.compression.convolution.normalising import reestimate
from intarsia.compression.pruning.masks import lowest, lowest_of_all
from intarsia.errors import BadInput
from intarsia.measure.size import tensor_bytes

WHO = "compression.prune_filters"


def zero_network(
    network: nn.Module,
    share: float = 0.5,
    *,
    scope: str = "layer",
    skip: tuple[str, ...] = (),
    pixels: Tensor | None = None,
) -> nn.Module:
    """A copy with the smallest `share` of the filters' weights zero, of each layer or among all (`scope` global); with
    new batch-norm statistics from `pixels` where they are given."""
    check_network(network, WHO)
    if not 0 <= share < 1:
        raise BadInput(f"{WHO}: share is 0 or more and below 1, given {share:g}")
    if pixels is not None:
        check_pixels(network, pixels, WHO)
    sparse = copy.deepcopy(network)
    layers = list(convolutions(sparse, skip).values())
    sizes = [layer.weight.detach().abs().float() for layer in layers]
    if scope == "global":
        gone = lowest_of_all(sizes, share)
    else:
        gone = [lowest(size.view(1, -1), share).view_as(size) for size in sizes]
    with torch.no_grad():
        for layer, zero in zip(layers, gone, strict=True):
            layer.weight.masked_fill_(zero, 0)
    if pixels is not None:
        reestimate(sparse, pixels)
    return sparse


def zeros_of(network: nn.Module) -> dict[str, Tensor]:
    """Where the filters' weights are zero, bool, by layer: what training must keep so."""
    return {name: layer.weight.detach() == 0 for name, layer in convolutions(network).items()}


def bytes_at_rest(network: nn.Module) -> int:
    """Bytes of the state, filters as a bit for every weight and the values that are not zero, where that is less."""
    saved = 0
    for layer in convolutions(network).values():
        weight = layer.weight.detach()
        dense = weight.numel() * weight.element_size()
        sparse = int(torch.count_nonzero(weight)) * weight.element_size() + -(-weight.numel() // 8)
        saved += max(0, dense - sparse)
    return tensor_bytes(network) - saved
