"""Grids: packing is exact, rounding stays within half a step of a naive float64 formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.compression.quantization.grids import (
    Grid,
    from_grid,
    legal_group,
    pack,
    pack4,
    packed_size,
    round_to,
    rounded,
    unpack,
    unpack4,
)
from intarsia.errors import BadInput


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 15), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(1, 7))
def test_packing_is_exact(rows, width):
    codes = torch.tensor(rows, dtype=torch.uint8)[:, :width]
    packed = pack4(codes)
    assert packed.shape == (len(rows), (width + 1) // 2)
    assert torch.equal(unpack4(packed, width), codes)
    assert packed[0, 0] & 15 == codes[0, 0]  # the even code is the low half


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([4, 8]),
    st.booleans(),
    st.sampled_from([None, 8, 16]),
    st.integers(0, 2**31),
    st.sampled_from([1e-6, 1e-2, 1.0, 50.0]),
    st.floats(-2, 2),
)
def test_rounding_is_within_half_a_step(bits, symmetric, group, seed, size, shift):
    weight = (torch.randn(5, 32, generator=torch.Generator().manual_seed(seed)) + shift) * size
    grid = Grid(bits, group, symmetric)
    codes, scales, zeros = round_to(weight, grid)
    step = scales.double().repeat_interleave(32 // grid.groups(32), 1)
    error = (from_grid(codes, scales, zeros, grid, torch.float64) - weight.double()).abs()
    assert (error <= step / 2 * (1 + 1e-9)).all()
    assert Grid.parse(str(grid)) == grid


@pytest.mark.parametrize("symmetric", [True, False])
def test_rounding_equals_the_formula(symmetric):
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(3, 64))
    codes, scales, zeros = round_to(torch.from_numpy(weight), Grid(4, 32, symmetric))
    for row in range(3):
        for group in range(2):
            w = weight[row, group * 32 : group * 32 + 32]
            wanted = max(abs(w)) / 7 if symmetric else (max(w.max(), 0) - min(w.min(), 0)) / 15
            s = float(scales[row, group])
            assert wanted <= s <= wanted * (1 + 2**-9)  # rounded up to a half
            z = 8 if symmetric else round(-min(w.min(), 0) / s)
            assert (zeros is None) if symmetric else (int(zeros[row, group]) == z)
            naive = [min(max(round(x / s) + z, 0), 15) for x in w]
            assert codes[row, group * 32 : group * 32 + 32].tolist() == naive


@pytest.mark.parametrize("grid", [Grid(4, 16, False), Grid(3, 32, True), Grid(8, None, True)], ids=str)
def test_the_quick_form_is_the_exact_one(grid):
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    wanted = from_grid(*round_to(weight, grid), grid, torch.float32)
    gap = (rounded(weight, grid) - wanted).abs()
    # A value in the middle of two points may fall the other way in single precision.
    assert (gap < 1e-6).float().mean() > 0.998 and (gap <= weight.abs().max() / 3).all()


def test_zero_stays_exactly_zero():
    weight = torch.randn(4, 32)
    weight[:, ::3] = 0
    for grid in (Grid(4, 32, False), Grid(4, 16, True), Grid(8, None, True)):
        back = from_grid(*round_to(weight, grid), grid, torch.float32)
        assert (back[:, ::3] == 0).all()
    assert (from_grid(*round_to(torch.zeros(2, 8), grid), grid, torch.float32) == 0).all()


@given(st.integers(1, 600), st.integers(1, 300))
def test_legal_group(width, wanted):
    group = legal_group(width, wanted)
    assert width % group == 0 and group <= wanted
    assert not any(width % d == 0 for d in range(group + 1, min(wanted, width) + 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e7])
def test_weights_that_cannot_be_quantized(bad):
    weight = torch.ones(2, 32)
    weight[1, 3] = bad
    with pytest.raises(BadInput, match="not finite or too large"):
        round_to(weight, Grid(4, 32, False))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 24, 33])
def test_codes_of_any_width_are_packed_without_gaps(bits, count):
    codes = torch.randint(0, 2**bits, (3, 5, count), generator=torch.Generator().manual_seed(bits), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (3, 5, packed_size(count, bits)) and unpack(packed, bits, count).equal(codes)
    # The first code is in the lowest bits of a number whose lowest byte comes first.
    number = int.from_bytes(bytes(packed[0, 0].tolist()), "little")
    assert [(number >> (bits * i)) & (2**bits - 1) for i in range(count)] == codes[0, 0].tolist()
