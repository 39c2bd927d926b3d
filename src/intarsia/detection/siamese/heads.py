"""What is made of two vectors: the logit that a machine wrote the first, and its loss.

Sources: pair features as in Reimers & Gurevych 2019, "Sentence-BERT", §3 (u, v, |u - v|); contrastive loss: Hadsell et
al. 2006, eq. 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MARGIN = 1.0
DISTANCE = "distance"  # the kind of a head without parameters


def features(kind: str, u: Tensor, v: Tensor) -> Tensor:
    """What a linear head reads, [pair, k * width], of inquiries u and references v, [pair, width]; k = 3 for `full`."""
    import torch

    match kind:
        case "single":
            return u
        case "diff":
            return u - v
        case "abs":
            return (u - v).abs()
        case "full":
            return torch.cat([u, v, (u - v).abs()], -1)
    raise ValueError(kind)


def distances(u: Tensor, v: Tensor) -> Tensor:
    """[pair]: Euclidean, between the vectors at length one: from 0 to 2, so that a margin means the same to every
    encoder."""
    import torch
    from torch.nn.functional import normalize

    # The norm's gradient at zero is zero, not NaN: equal vectors do no harm.
    return torch.linalg.vector_norm(normalize(u, dim=-1) - normalize(v, dim=-1), dim=-1)


def cross_entropy(logits: Tensor, machine: Tensor) -> Tensor:
    """Mean binary cross-entropy of sigmoid(logits), [pair], against 1 where a machine wrote the inquiry."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, machine.to(logits.dtype))


def contrastive(u: Tensor, v: Tensor, machine: Tensor, margin: float = MARGIN) -> Tensor:
    """Mean of D^2 / 2 for pairs of one source (both by a machine) and max(0, margin - D)^2 / 2 for the others."""
    import torch

    d = distances(u, v)
    return torch.where(machine.bool(), d**2, (margin - d).clamp(min=0) ** 2).mean() / 2


@dataclass
class Head:
    """kind `diff`, `abs`, `full`, `single`: logit = weight . features + bias; kind `distance`: margin / 2 - D, positive
    where the reference is nearer than half the margin.

    - weight: [k * width]; bias: []. None for `distance`."""

    kind: str
    weight: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def new(cls, kind: str, width: int, device: object = None) -> Head:
        """One that knows nothing. It begins at zero: a random one would first push the encoder anywhere."""
        import torch

        if kind == DISTANCE:
            return cls(kind)
        size = width * (3 if kind == "full" else 1)
        return cls(kind, *(torch.zeros(shape, device=device, requires_grad=True) for shape in ((size,), ())))

    @property
    def needs_reference(self) -> bool:
        """Whether a text alone cannot be scored."""
        return self.kind != "single"

    @property
    def parameters(self) -> list[Tensor]:
        """What is trained: none, or weight and bias."""
        return [value for value in (self.weight, self.bias) if value is not None]

    def logits(self, u: Tensor, v: Tensor) -> Tensor:
        """[pair], higher where a machine wrote the inquiry; u, v: [pair, width]."""
        if self.kind == DISTANCE:
            return MARGIN / 2 - distances(u, v)
        return features(self.kind, u, v) @ self.weight + self.bias

    def loss(self, u: Tensor, v: Tensor, machine: Tensor) -> Tensor:
        """The mean loss of pairs: contrastive for `distance`, else binary cross-entropy. machine: [pair] bool."""
        return contrastive(u, v, machine) if self.kind == DISTANCE else cross_entropy(self.logits(u, v), machine)

    def to(self, device: object) -> Head:
        """On a device, for use: without gradients."""
        return Head(self.kind, *(value.detach().to(device) for value in self.parameters))
