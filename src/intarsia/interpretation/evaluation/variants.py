"""The same question asked of a model that was changed a little or a lot: noisy embeddings, re-initialised blocks.

A variant shares every weight it does not change, so it costs no more memory than what is new in it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained
    from intarsia.models import Model


def elsewhere(explained: Explained, model: Model) -> Explained:
    """The same text, tokens and choice, asked of another model; what was measured before is not taken along."""
    other = copy.copy(explained)
    other.model, other._values = model, {}
    return other


def twin(model: Model) -> Model:
    """A model of its own modules that shares all weights with `model`."""
    shared = {id(p): p for p in [*model.network.parameters(), *model.network.buffers()]}
    return model.with_network(copy.deepcopy(model.network, shared))


@torch.no_grad()
def with_noise(model: Model, size: float, seed: int = 0) -> Model:
    """A twin whose token embeddings moved: each by `size` of its own length, in a random direction.

    A token that stands twice in a text moves the same way twice; the output head stays as it is, tied or not."""
    new = twin(model)
    generator = torch.Generator().manual_seed(seed)
    embedding = copy.copy(new.network.get_input_embeddings())
    old = embedding.weight
    step = torch.randn(old.shape, generator=generator).to(old)
    step *= size * old.norm(dim=-1, keepdim=True) / step.norm(dim=-1, keepdim=True)
    embedding._parameters = {**embedding._parameters, "weight": nn.Parameter(old + step, requires_grad=False)}
    new.network.set_input_embeddings(embedding)
    return new


@torch.no_grad()
def with_random_blocks(model: Model, count: int, seed: int = 0) -> Model:
    """A twin whose last `count` blocks learnt nothing: every matrix in them is drawn anew from a normal distribution
    with the matrix's own mean and standard deviation. Vectors (gains of norms, biases) stay, which keeps the states in
    the range that the blocks above and the head expect."""
    new = twin(model)
    generator = torch.Generator().manual_seed(seed)
    blocks = list(new.sites.blocks)
    for block in blocks[len(blocks) - count :]:
        for module in block.modules():
            for name, old in list(module._parameters.items()):
                if old is not None and old.dim() > 1:
                    drawn = torch.randn(old.shape, generator=generator).to(old)
                    module._parameters[name] = nn.Parameter(drawn * old.std() + old.mean(), requires_grad=False)
    return new
