"""Ternary, binary and power-of-two weights: the formulas, the packing, what GPTQ makes of them, and folders."""

import pytest
import torch

from intarsia.compression import dequantize, quantize
from intarsia.compression.exporting.gguf.blocks import own_type, store
from intarsia.compression.quantization.gptq import gptq
from intarsia.compression.quantization.grids import Grid, from_grid, round_to
from intarsia.compression.quantization.modules import QuantLinear
from intarsia.compression.quantization.values import table_of
from intarsia.data import Text
from intarsia.models import load
from tests.failing import fails
from tests.tiny import tiny

TEXTS = [Text("".join(chr(33 + (i * i + 7 * i) % 90) for i in range(700)))]


@pytest.mark.parametrize("values", ["ternary", "binary", "power"])
@pytest.mark.parametrize("group", [None, 32])
def test_values_that_are_no_whole_numbers(values, group, tmp_path):
    """Rounded by the formulas, packed in as many bits as promised, and the same from a folder."""
    torch.manual_seed(0)
    weight = torch.randn(16, 96)
    grid = Grid.of(values, group)
    layer = QuantLinear(96, 16, grid)
    layer.fill(weight)
    parts = weight.double().view(16, -1, group or 96)
    size = parts.abs()
    if values == "binary":
        scale = size.mean(-1, keepdim=True)
        want = torch.where(parts >= 0, scale, -scale)
    elif values == "ternary":
        large = size > 0.7 * size.mean(-1, keepdim=True)
        want = parts.sign() * large * (size * large).sum(-1, keepdim=True) / large.sum(-1, keepdim=True)
    else:
        scale = 2.0 ** size.amax(-1, keepdim=True).log2().round()
        powers = 2.0 ** -torch.arange(7, dtype=torch.float64)
        near = powers[(size[..., None] / scale[..., None] / powers).log2().abs().argmin(-1)]
        want = torch.where(size / scale < 2.0**-7, 0.0, parts.sign() * near * scale)
    torch.testing.assert_close(layer.weight.double(), want.view(16, 96), rtol=2e-3, atol=2e-4)
    assert layer.codes.numel() == 16 * 96 * grid.bits // 8 and Grid.parse(str(grid)) == grid
    codes, scales, zeros = layer.unpacked()
    whole = (codes.float() - zeros.float().repeat_interleave(96 // zeros.shape[1], 1)).view(16, -1, group or 96)
    torch.testing.assert_close((whole * scales[..., None]).view(16, 96), layer.weight)
    model = tiny("llama")
    small = quantize(model, values=values, group_size=group)
    small.save(tmp_path / "m")
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "m").network(ids).logits, small.network(ids).logits)


@pytest.mark.parametrize("values", ["ternary", "binary", "power"])
def test_values_by_what_a_text_shows(values):
    """What rounding one column spoils the next make good: nearer to the layer's outputs than the nearest values."""
    torch.manual_seed(0)
    inputs = torch.randn(400, 96) @ torch.randn(96, 96)
    moment = inputs.T @ inputs / 400
    weight, grid = torch.randn(24, 96), Grid.of(values, 32)
    near = from_grid(*round_to(weight, grid), grid, torch.float32) - weight
    fed = from_grid(*gptq(weight, moment, grid), grid, torch.float32) - weight
    assert torch.trace(fed @ moment @ fed.T) < 0.8 * torch.trace(near @ moment @ near.T)
    table = table_of(values)
    codes, scales, _ = gptq(weight, moment, grid)
    torch.testing.assert_close(
        from_grid(codes, scales, None, grid, torch.float32),
        (table[codes.long()].view(24, 3, 32) * scales.float()[..., None]).view(24, 96),
    )


def test_values_and_other_choices():
    fails(lambda: quantize(tiny("llama"), values="ternary", average_bits=4), "average_bits", "ternary")
    plain = dequantize(quantize(tiny("llama"), values="power", method="awq+gptq", group_size=16, calibration=TEXTS))
    assert all(torch.isfinite(p).all() for p in plain.network.parameters())


@pytest.mark.parametrize(("values", "kind"), [("ternary", "Q4_0"), ("binary", "Q4_0"), ("power", "Q8_0")])
def test_a_gguf_file_holds_them_exactly(values, kind):
    """Their values are whole numbers of a step, and so are a block's."""
    torch.manual_seed(0)
    layer = QuantLinear(64, 8, Grid.of(values, 32))
    layer.fill(torch.randn(8, 64))
    assert own_type(layer) == kind
    stored = store(layer, layer.weight, kind)
    assert stored.own and stored.deviation < 1e-6
