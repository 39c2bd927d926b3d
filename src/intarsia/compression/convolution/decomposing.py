"""A tensor of filters [out, in, height, width] as a product of smaller ones.

- `tucker`: W ~ core x_out U x_in V by HOSVD: U, V are left singular vectors of the unfoldings (Kim et al. 2016,
  arXiv 1511.06530, section 3.1; De Lathauwer et al. 2000). Layers 1x1, kxk, 1x1.
- `polyadic`: W ~ sum_r a_r o b_r o c_r o d_r by alternating least squares (Lebedev et al. 2015, arXiv 1412.6553,
  section 3). Layers 1x1, kx1 and 1xk a channel by itself, 1x1.
- `spatial`: W ~ sum_r P_r(out, width) Q_r(in, height) by one SVD (Jaderberg et al. 2014, arXiv 1405.3866, scheme 2).
  Layers kx1, 1xk.
- `single`: for each input channel the best plane times a vector over the outputs (rank 1 each): depthwise, 1x1."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-10


def tucker(weight: Tensor, out_rank: int, in_rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [out, out_rank], core [out_rank, in_rank, height, width], V [in, in_rank], in float64."""
    wide = weight.detach().double()
    left = torch.linalg.svd(wide.flatten(1), full_matrices=False)[0]
    right = torch.linalg.svd(wide.transpose(0, 1).flatten(1), full_matrices=False)[0]
    u, v = left[:, :out_rank], right[:, :in_rank]
    core = torch.einsum("oihw,or,is->rshw", wide, u, v)
    return u, core, v


def polyadic(weight: Tensor, rank: int, steps: int = 60, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Factors [out, rank], [in, rank], [height, rank], [width, rank] in float64, with columns of one size.

    Starts from singular vectors, filled up by chance where the rank is larger; steps of alternating least squares with
    a small ridge, for the best approximation of a rank need not exist."""
    wide = weight.detach().double()
    generator = torch.Generator().manual_seed(seed)
    factors = []
    for dim, size in enumerate(wide.shape):
        vectors = torch.linalg.svd(wide.movedim(dim, 0).flatten(1), full_matrices=False)[0][:, :rank]
        more = torch.randn(size, rank - vectors.shape[1], generator=generator, dtype=torch.float64)
        factors.append(torch.cat((vectors, more / size**0.5), 1))
    letters = "oihw"
    for _ in range(steps):
        for dim in range(4):
            others = [d for d in range(4) if d != dim]
            gram = torch.ones(rank, rank, dtype=torch.float64)
            for d in others:
                gram = gram * (factors[d].T @ factors[d])
            spec = letters + "," + ",".join(f"{letters[d]}r" for d in others) + f"->{letters[dim]}r"
            right = torch.einsum(spec, wide, *(factors[d] for d in others))
            gram.diagonal().add_(RIDGE * gram.diagonal().mean())
            factors[dim] = torch.linalg.solve(gram, right.T).T
        for d in range(1, 4):  # the size of a term lies in its first factor
            size = factors[d].norm(dim=0).clamp(min=1e-30)
            factors[d] = factors[d] / size
            factors[0] = factors[0] * size
    total = factors[0].norm(dim=0).clamp(min=1e-30)
    share = total**0.25
    return factors[0] / total * share, factors[1] * share, factors[2] * share, factors[3] * share


def spatial(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """First [rank, in, height] and second [out, rank, width] in float64: W = sum_r second first."""
    out, inner, high, wide = weight.shape
    matrix = weight.detach().double().permute(1, 2, 0, 3).reshape(inner * high, out * wide)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    first = (u[:, :rank] * root).T.reshape(-1, inner, high)
    second = (root[:, None] * v[:rank]).reshape(-1, out, wide).transpose(0, 1)
    return first, second


def single(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Planes [in, height, width] and mixing [out, in] in float64: W[o, i] ~ mixing[o, i] planes[i]."""
    _, inner, high, wide = weight.shape
    u, s, v = torch.linalg.svd(weight.detach().double().transpose(0, 1).flatten(2), full_matrices=False)
    root = s[:, :1].sqrt()
    return (root * v[:, 0]).view(inner, high, wide), (u[:, :, 0] * root).T
