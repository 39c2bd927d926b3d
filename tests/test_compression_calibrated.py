"""Folds change nothing, AWQ and the block-by-block order are their formulas, and what comes out is what is saved."""

from __future__ import annotations

import warnings

import pytest
import torch

import intarsia as ia
from intarsia.compression import dequantize, quantize
from intarsia.compression.linears import linears
from intarsia.compression.quantization.calibrated import calibrated
from intarsia.compression.quantization.folding import folds
from intarsia.compression.quantization.gptq import gptq
from intarsia.compression.quantization.grids import Grid, from_grid, round_to
from intarsia.compression.quantization.scaling import awq, smooth
from intarsia.compression.statistics import collect, windows_of
from intarsia.data import Text
from tests.tiny import tiny

WORDS = [Text(f"the {a} {b} went to the {c}") for a in ("old", "red") for b in ("ship", "fox") for c in ("sea", "barn")]


def ids(model, rows: int = 6, tokens: int = 24) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(10, 250, (rows, tokens), generator=generator).tolist()


def logits(model) -> torch.Tensor:
    out = ia.run(model, torch.tensor(ids(model))[:, :12])
    return out.logits if "logits" in out else out.last_hidden_state


def test_statistics_are_moments_of_real_tokens():
    model = tiny("llama")
    layers = linears(model)
    windows = [row[: 5 + 3 * i] for i, row in enumerate(ids(model, 4))]
    found = collect(model, layers, windows)
    down = "model.layers.1.mlp.down_proj"
    rows = torch.cat([ia.read(model, [w], "layers.1.mlp_act")["layers.1.mlp_act"][0] for w in windows]).double()
    torch.testing.assert_close(found[down].moment.double(), rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[down].mean.double(), rows.abs().mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[down].largest.double(), rows.abs().amax(0), rtol=1e-4, atol=1e-6)
    assert found[down].count == sum(map(len, windows))
    attention = "model.layers.2.self_attn."
    assert found[attention + "q_proj"] is found[attention + "k_proj"] is not found[attention + "o_proj"]


@pytest.mark.parametrize("name", ["llama", "granite"])
def test_a_head_in_four_bits_is_rounded_last_on_what_the_rounded_network_gives_it(name, tmp_path):
    model = tiny(name)
    shared = model.network.lm_head.weight is model.network.model.embed_tokens.weight
    settings = {"bits": 4, "group_size": 16, "method": "gptq", "tokens": 144, "kernel": "reference"}
    plain = quantize(model, calibration=WORDS, **settings, embed="keep")
    small = quantize(model, calibration=WORDS, **settings, embed="int4")
    for layer in linears(small):  # the body is what it is without
        torch.testing.assert_close(layer.weight, plain.network.get_submodule(layer.name).weight, rtol=0, atol=0)
    body = dequantize(plain)
    head = next(layer for layer in linears(body, head=True) if layer.role == "head")
    stats = collect(body, [head], windows_of(body, [w.text for w in WORDS], 144))[head.name]
    grid = Grid(4, 16, False)
    weight = model.network.lm_head.weight.detach().float()
    wanted = from_grid(*gptq(weight, stats.moment, grid), grid, torch.float32)
    torch.testing.assert_close(small.network.lm_head.weight, wanted, rtol=0, atol=1e-6)
    assert not torch.equal(wanted, from_grid(*round_to(weight, grid), grid, torch.float32))
    table = small.network.model.embed_tokens
    rows = torch.tensor([[3, 250, 17], [0, 3, 99]])
    torch.testing.assert_close(table(rows), table.weight[rows], rtol=0, atol=0)
    if shared:
        torch.testing.assert_close(table.weight, wanted, rtol=0, atol=1e-6)
    again = ia.load(str(small.save(tmp_path / "small")))
    torch.testing.assert_close(logits(again), logits(small), rtol=0, atol=0)
    torch.testing.assert_close(logits(dequantize(small)), logits(small), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("llama", 4), ("gpt2", 2), ("neox", 2), ("bert-encoder", 1), ("olmoe", 2), ("mixtral", 2)],
)
def test_folds_change_nothing(name, kinds):
    model = tiny(name).copy()
    before = logits(model)
    found = folds(model, linears(model))
    assert len(found) >= kinds * (len(model.sites.blocks) - 1), [[c.name for c in f.consumers] for f in found]
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)  # trying them left no trace
    generator = torch.Generator().manual_seed(0)
    for fold in found:
        fold.apply(torch.rand(fold.size, generator=generator) + 0.5)
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-3)


def test_awq_takes_the_exponent_of_least_error():
    model = tiny("llama").copy()
    found = collect(model, linears(model), ids(model))
    fold = next(f for f in folds(model, linears(model)) if f.consumers[0].role == "o")
    stats, grid = found[fold.consumers[0].name], Grid(3, 16, False)
    scale, alpha = awq(fold, stats, [grid])
    weight, moment = fold.consumers[0].weight.double(), stats.moment.double()
    mean = torch.stack([stats.mean[fold.index == j].mean() for j in range(fold.size)]).double()
    errors = {}
    for a in [i / 8 for i in range(9)]:
        s = mean**a
        s = (s / (s.max() * s.min()).sqrt())[fold.index]
        change = from_grid(*round_to(weight * s, grid), grid, torch.float64) / s - weight
        errors[a] = float(torch.trace(change @ moment @ change.T))
    assert alpha == min(errors, key=errors.get)
    wanted = mean**alpha
    torch.testing.assert_close(scale.double(), wanted / (wanted.max() * wanted.min()).sqrt(), rtol=1e-4, atol=1e-6)
    assert fold.size == fold.rows.shape[0] and (fold.index[:8] == fold.index[8:16]).all()  # heads share keys


def test_smoothing_halves_outliers_geometrically():
    model = tiny("llama")
    found = collect(model, linears(model), ids(model))
    fold = next(f for f in folds(model, linears(model)) if {c.role for c in f.consumers} == {"gate", "up"})
    stats = found[fold.consumers[0].name]
    weight = torch.cat([c.weight for c in fold.consumers]).abs().amax(0)
    torch.testing.assert_close(smooth(fold, stats), (stats.largest / weight).sqrt())


def test_blocks_are_rounded_on_what_the_rounded_ones_give():
    model, grid = tiny("llama").copy(), Grid(4, 16, False)
    layers, windows = linears(model), ids(model)
    naive = model.copy()
    found = calibrated(model, layers, {layer.name: grid for layer in layers}, windows, scale=False)
    for block in range(len(naive.sites.blocks)):
        mine = [layer for layer in linears(naive) if layer.block == block]
        stats = collect(naive, mine, windows)  # of the whole network, blocks below rounded already
        for layer in mine:
            codes = gptq(layer.weight, stats[layer.name].moment, grid)
            layer.set(from_grid(*codes, grid, torch.float32))
            same = (codes[0] == found.codes[layer.name][0]).float().mean()
            assert same > 0.99, layer.name  # sums in another order may tip a value that lies between two points
    torch.testing.assert_close(logits(model), logits(naive), rtol=5e-2, atol=5e-2)
    assert set(found.codes) == {layer.name for layer in layers} and all(0 < e < 0.1 for e in found.errors.values())


@pytest.mark.parametrize("method", ["gptq", "awq", "awq+gptq"])
@pytest.mark.parametrize("bits", [4, 3])
def test_the_saved_network_holds_the_chosen_codes(method, bits, tmp_path):
    model = tiny("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = quantize(model, bits=bits, method=method, calibration=WORDS, group_size=16, kernel="reference")
    noted = small.extras["compression.quantize"]
    assert set(noted["errors"]) == {layer.name for layer in linears(model)} and bool(noted["scaled"]) == (
        "awq" in method
    )
    small.save(tmp_path / "small")
    again = ia.load(tmp_path / "small")
    torch.testing.assert_close(logits(again), logits(small), rtol=0, atol=0)
    torch.testing.assert_close(logits(dequantize(small)), logits(small), rtol=1e-4, atol=1e-4)


def test_encoders_and_conv1d_are_calibrated_too():
    for name in ("bert-encoder", "gpt2"):
        model = tiny(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = quantize(model, bits=4, method="awq+gptq", calibration=WORDS, group_size=16, kernel="reference")
            plain = quantize(model, bits=4, group_size=16, kernel="reference")
        gap = [(logits(m) - logits(model)).square().mean() for m in (small, plain)]
        assert gap[0] < gap[1], name


def test_windows_are_whole_and_text_is_wanted():
    model = tiny("llama")
    found = windows_of(model, ["abcdefgh" * 10, "xy" * 40], tokens=150, window=40)
    assert [len(w) for w in found] == [40, 40, 40] and windows_of(model, ["ab"]) == [windows_of(model, ["ab"])[0]]
    with pytest.raises(ia.errors.BadInput, match="no tokens"):
        windows_of(model, [])


def test_bits_go_where_they_are_heard(tmp_path):
    model = tiny("llama").copy()
    loud = model.network.get_submodule("model.layers.1.mlp.down_proj")
    with torch.no_grad():
        loud.weight *= 6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = quantize(model, average_bits=4, method="awq+gptq", calibration=WORDS, group_size=16, kernel="reference")
    noted = small.extras["compression.quantize"]
    bits = noted["bits_of"]
    weights = {layer.name: layer.weight.numel() for layer in linears(model)}
    assert sum(bits[n] * w for n, w in weights.items()) <= 4 * sum(weights.values())
    assert bits["model.layers.1.mlp.down_proj"] >= 5 and min(bits.values()) == 3
    assert noted["predicted_kl"] < noted["predicted_kl_uniform"]
    small.save(tmp_path / "small")
    again = ia.load(tmp_path / "small")
    torch.testing.assert_close(logits(again), logits(small), rtol=0, atol=0)
    with pytest.raises(ia.errors.BadInput, match="average_bits"):
        quantize(model, average_bits=2, method="gptq", calibration=WORDS)
    with pytest.raises(ia.errors.BadInput, match="average_bits: between 5 and 8 is possible"):
        quantize(model, average_bits=4, among=(8, 5), method="gptq", calibration=WORDS)
    few = quantize(model, average_bits=5.5, among=(4, 8), method="gptq", calibration=WORDS, group_size=16)
    assert set(few.extras["compression.quantize"]["bits_of"].values()) == {4, 8}
