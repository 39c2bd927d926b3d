"""Guesses of what an architecture is worth without training or testing it. They tell the hopeless from the rest and not
the good from the better: used to discard candidates, never to rank those that are left.

- `synflow`: sum of |weight * dR/dweight|, R the sum of the outputs for a picture of ones with all weights at their
  size (Tanaka et al. 2020, arXiv 2006.05467, eq. 4); its logarithm.
- `naswot`: log |det K|, K the agreement of the pictures' codes of active units (Mellor et al. 2021, arXiv 2006.04647,
  section 3). A code is the signs of what batch norms give."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from intarsia.compression.convolution.networks import answers, mode
from intarsia.compression.convolution.normalising import norms
from intarsia.errors import BadInput
from intarsia.sites import watching


def synflow(network: nn.Module, pixels: Tensor) -> float:
    """Of a network for pictures of the shape of `pixels` [picture, channel, height, width]. In float64: products of
    many layers are large."""
    silent = copy.deepcopy(network).double().eval()
    parameters = [p for p in silent.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in parameters:
            parameter.abs_()
        for norm in norms(silent):  # statistics would bring signs back
            norm.running_mean.zero_()  # type: ignore[union-attr]
            norm.running_var.fill_(1.0)  # type: ignore[union-attr]
    total = answers(silent, torch.ones_like(pixels[:1], dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    flow = sum((p * g).detach().abs().sum() for p, g in zip(parameters, gradients, strict=True) if g is not None)
    return float(torch.as_tensor(flow).clamp(min=1e-300).log())


@torch.no_grad()
def naswot(network: nn.Module, pixels: Tensor) -> float:
    """On some pictures [picture, channel, height, width]; -inf where two of them have the same code."""
    codes: list[Tensor] = []
    watched = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if not watched:
        raise BadInput("naswot reads what batch norms give, and this network has none; synflow does without")
    said = watching(network, watched, lambda name, given, gave: codes.append((gave > 0).flatten(1).double()))
    with mode(network, training=False), said:
        answers(network, pixels)
    code = torch.cat(codes, 1)
    agreement = code @ code.T + (1 - code) @ (1 - code).T
    return float(torch.linalg.slogdet(agreement)[1])
