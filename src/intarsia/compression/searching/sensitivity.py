"""How much a network's predictions hear of a change of one layer's weights, without trying it: one forward and one
backward pass for all layers and all changes.

For a change D of W [out, in] the mean KL divergence of the next token's distribution is, to second order,

    S(D) = 1/2 E[ (g^T D x)^2 ]   ~   1/2 tr(G D H D^T),    G = E[g g^T],  H = E[x x^T]

with x the layer's input, g the gradient of the log-probability of a token drawn from the network's own prediction with
respect to the layer's output: D is measured in the Fisher metric, inputs and gradients taken as independent.

Source: Martens & Grosse 2015, K-FAC, arXiv 1503.05671, section 3; the Fisher information as the Hessian of KL: Amari
1998."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.linears import Linear
from intarsia.compression.statistics import Collector, LayerStats, batches, uncached
from intarsia.progress import track
from intarsia.sites import watching

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass
class Sensitivity:
    """- gradient: by layer, G [out, out] float32, per token. stats: of its input. tokens: that were read."""

    gradient: dict[str, Tensor]
    stats: dict[str, LayerStats]
    tokens: int

    def of(self, name: str, change: Tensor) -> float:
        """S(D) in nats a token, for D [out, in] of one layer; 0 for a layer that no token reached."""
        if name not in self.gradient:
            return 0.0
        change = change.float()
        return 0.5 * float(((self.gradient[name] @ change) * (change @ self.stats[name].moment)).sum())


def sensitivity(model: Model, layers: Sequence[Linear], windows: Sequence[Sequence[int]], seed: int = 0) -> Sensitivity:
    """Of causal language models (and any network with logits [batch, token, class]): labels are drawn from them."""
    collector = Collector()
    gradient: dict[str, Tensor] = {}
    generator = torch.Generator(device=model.device).manual_seed(seed)
    tokens = 0
    mask: Tensor | None = None

    def seen(name: str, given: Tensor, gave: Tensor) -> None:
        with torch.no_grad():
            collector.seen(name, given, gave)  # the tensor itself: by it layers that read the same one are known
        gave.register_hook(lambda grad: heard(name, grad))

    def heard(name: str, grad: Tensor) -> None:
        rows = grad.reshape(-1, grad.shape[-1]) if mask is None or grad.shape[:-1] != mask.shape else grad[mask]
        rows = rows.float()
        if name not in gradient:
            gradient[name] = rows.new_zeros(rows.shape[-1], rows.shape[-1])
        gradient[name].addmm_(rows.T, rows)

    # Gradients are wanted of outputs, not of weights: the first layer needs some tensor that has them.
    wanted = [(p, p.requires_grad) for p in model.network.parameters()]
    table = model.network.get_input_embeddings().weight
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(parameter is table)
        with torch.enable_grad(), watching(model, {layer.name: layer.module for layer in layers}, seen):
            for batch in track(batches(model, windows), "reading how layers are heard"):
                mask = batch.mask
                collector.next(mask)
                logits = model.network(**batch.kwargs, **uncached(model)).logits
                real = logits[mask] if mask is not None else logits.flatten(0, 1)
                with torch.no_grad():
                    drawn = torch.multinomial(real.float().softmax(-1), 1, generator=generator)
                # Summed: the gradient of each token's own log-probability reaches the outputs it was made from.
                real.float().log_softmax(-1).gather(1, drawn).sum().backward()
                tokens += len(drawn)
    finally:
        for parameter, before in wanted:
            parameter.requires_grad_(before)
        table.grad = None
    return Sensitivity({name: total / max(tokens, 1) for name, total in gradient.items()}, collector.stats(), tokens)
