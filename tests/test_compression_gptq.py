"""GPTQ against its formula written out column by column with explicit inverses."""

from __future__ import annotations

import pytest
import torch

from intarsia.compression.quantization.gptq import factor, gptq
from intarsia.compression.quantization.grids import Grid, from_grid, round_to
from intarsia.errors import IntarsiaError


def inputs(tokens: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) / width**0.5 + torch.eye(width)
    x = torch.randn(tokens, width, generator=generator) @ mix
    return x.T @ x / tokens


def naive(weight, moment, grid, damping):
    """Optimal brain quantization in a fixed order: after a column is rounded, the rest moves to the optimum given it,
    and the column leaves H. (Frantar et al. 2022, OBC, eq. 7.)"""
    w, h = weight.double().clone(), moment.double().clone()
    h += damping * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    group = grid.group or w.shape[1]
    out = torch.empty_like(w)
    for c in range(w.shape[1]):
        if c % group == 0:
            _, scale, zero = round_to(w[:, c : c + group], Grid(grid.bits, grid.group, grid.symmetric))
            step = scale[:, 0].double()
            middle = torch.full_like(step, grid.middle) if zero is None else zero[:, 0].double()
        code = ((w[:, c] / step).round() + middle).clamp(0, 2**grid.bits - 1)
        out[:, c] = (code - middle) * step
        rest = torch.linalg.inv(h[c:, c:])
        w[:, c:] -= torch.outer((w[:, c] - out[:, c]) / rest[0, 0], rest[0])
    return out


@pytest.mark.parametrize(
    "grid", [Grid(4, 8, False), Grid(3, 16, True), Grid(4, None, True), Grid(2, 24, False)], ids=str
)
def test_it_is_optimal_brain_quantization(grid):
    generator = torch.Generator().manual_seed(1)
    weight, moment = torch.randn(10, 48, generator=generator), inputs(200, 48)
    found = gptq(weight, moment, grid, damping=0.02, block=16)
    wanted = naive(weight, moment, grid, 0.02)
    # Rounding may fall the other way where a value lies in the middle of two points: none does here.
    torch.testing.assert_close(from_grid(*found, grid, torch.float64), wanted, rtol=1e-5, atol=1e-5)


def test_uncorrelated_inputs_of_one_size_leave_plain_rounding():
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(2))
    for grid in (Grid(4, 16, False), Grid(8, None, True)):
        codes, scales, zeros = gptq(weight, torch.eye(32) * 3, grid)
        wanted = round_to(weight, grid)
        assert codes.equal(wanted[0]) and scales.equal(wanted[1])
        assert zeros is None if wanted[2] is None else zeros.equal(wanted[2])


def test_the_output_is_nearer_than_with_plain_rounding():
    weight, moment = torch.randn(32, 64, generator=torch.Generator().manual_seed(3)), inputs(300, 64)
    grid = Grid(3, 32, False)

    def error(codes):
        d = from_grid(*codes, grid, torch.float64) - weight
        return float(((d @ moment.double()) * d).sum())

    assert error(gptq(weight, moment, grid)) < 0.6 * error(round_to(weight, grid))


def test_dead_inputs_and_moments_without_an_inverse():
    weight, moment = torch.randn(4, 16, generator=torch.Generator().manual_seed(4)), inputs(100, 16)
    moment[:, 3] = moment[3] = 0
    found = from_grid(*gptq(weight, moment, Grid(4, 8, False)), Grid(4, 8, False), torch.float32)
    assert (found[:, 3] == 0).all() and torch.isfinite(found).all()
    moment = inputs(50, 8).double()
    upper = factor(moment, 0.0).double()
    torch.testing.assert_close(upper.T @ upper @ moment, torch.eye(8, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    with pytest.raises(IntarsiaError, match="has no inverse"):
        gptq(weight, -inputs(100, 16), Grid(4, 8, False))
