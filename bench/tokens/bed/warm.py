"""Where the words start: pointing at what the tower shows.

With random words, both answering models soon name things of the scene and then stay for long where they do not yet look
where the question says. So a concept's word starts as the direction in which the tower's patches show that concept, a
place's word as that of the place, and attention from words to patches as a comparison of the two: then it finds the
thing named, or the place, from the first step, and the rest is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.tokens.bed.concepts import NAMES, PLACES
from bench.tokens.bed.tower import WIDTH, Localiser
from bench.tokens.bed.words import IDS


@torch.no_grad()
def directions(localiser: Localiser, normed: bool) -> dict[int, Tensor]:
    """Token id -> unit vector [width] that grows with the concept's, or the place's, score.

    - normed: in the space after the tower's last layer norm; else before it."""
    gain = torch.ones(WIDTH) if normed else localiser.tower.post_layernorm.weight
    found = {}
    for names, head in ((NAMES, localiser.patches.weight[1:]), (PLACES, localiser.places.weight)):
        head = (head - head.mean(0)) * gain
        # The layer norm takes each row's mean away.
        head = head - head.mean(-1, keepdim=True)
        for name, row in zip(names, nn.functional.normalize(head, dim=-1), strict=True):
            found[IDS[name]] = row
    return found


@torch.no_grad()
def point(embedding: nn.Embedding | nn.Linear, vectors: dict[int, Tensor], size: float) -> None:
    """Give these tokens these directions; `size` is the root mean square of their values."""
    for token, vector in vectors.items():
        embedding.weight[token] = vector * size * WIDTH**0.5


@torch.no_grad()
def copying(linear: nn.Module, gain: float, noise: float = 0.3) -> None:
    """A layer that gives out `gain` times what it is given, and something of its random weights besides."""
    weight: Tensor = linear.weight  # type: ignore[assignment]
    weight.mul_(noise).add_(gain * torch.eye(*weight.shape))
