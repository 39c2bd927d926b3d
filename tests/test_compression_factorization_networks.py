"""Factored networks: the same outputs at full rank, saved and loaded bit for bit, dense again, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch

import intarsia as ia
from intarsia import compression
from intarsia.compression.factorization.factoring import RIDGES, factors, metric
from intarsia.compression.factorization.modules import FactoredConv1D, FactoredLinear, fill_factors, lay_factors
from intarsia.compression.linears import linears
from intarsia.compression.quantization.grids import Grid
from intarsia.compression.quantization.hf import IntarsiaQuantizationConfig, mark
from intarsia.compression.quantization.modules import Quantized, QuantLinear
from intarsia.compression.statistics import collect, output_error
from intarsia.data import ImageText, Text
from intarsia.errors import BadInput
from intarsia.measure.size import count_parameters, macs_per_token
from tests.fresh import assert_loads_in_a_fresh_process
from tests.tiny import inputs, tiny

WORDS = [Text(f"the {a} {b} went to the {c}") for a in ("old", "red") for b in ("ship", "fox") for c in ("sea", "barn")]
NAME = "compression.factorize"


def made(function, model, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(model, **settings)


def factored(model, **settings):
    return made(compression.factorize, model, calibration=WORDS, **settings)


def outputs(model, family):
    with torch.no_grad():
        return model.network(**inputs(family))[0]


def full_rank(family, dtype=torch.float64):
    """A network and the same one with every linear layer as factors of full rank, in another basis."""
    model = tiny(family, dtype=dtype)
    new = model.copy()
    layers = linears(new)
    plan = {layer.name: min(layer.shape) for layer in layers}
    pairs = {x.name: factors(x.weight, metric("plain", x.shape[1], None), plan[x.name]) for x in layers}
    lay_factors(new.network, plan)
    for name, pair in pairs.items():
        fill_factors(new.network.get_submodule(name), *pair)
    mark(new.network, IntarsiaQuantizationConfig(factors=plan))
    return model, model.with_network(new.network)


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "bert", "t5", "clip"])
def test_full_rank_changes_nothing(family):
    model, new = full_rank(family)
    kinds = {type(m) for m in new.network.modules() if isinstance(m, FactoredLinear)}
    assert kinds == {FactoredConv1D if family == "gpt2" else FactoredLinear}
    given = {k: v.double() if v.is_floating_point() else v for k, v in inputs(family).items()}
    with torch.no_grad():
        torch.testing.assert_close(new.network(**given)[0], model.network(**given)[0], rtol=1e-9, atol=1e-9)
        plain = compression.dequantize(new)
        torch.testing.assert_close(plain.network(**given)[0], model.network(**given)[0], rtol=1e-9, atol=1e-9)
    assert [type(m) for m in plain.network.modules()] == [type(m) for m in model.network.modules()]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "clip"])
def test_the_sites_are_those_of_the_dense_network(family):
    model, new = full_rank(family)
    assert list(new.sites) == list(model.sites)
    given = {k: v.double() if v.is_floating_point() else v for k, v in inputs(family).items()}
    names = [name for name in model.sites if name.endswith(("resid_post", "resid_mid", "z", "mlp_act", "attn_out"))]
    assert any(name.endswith("mlp_act") for name in names)
    before, after = (ia.read(m, given, names) for m in (model, new))
    for name in names:
        torch.testing.assert_close(after[name], before[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {}),
        ("llama", {"method": "asvd", "ranks": "energy"}),
        ("gpt2", {"sequential": False}),
        ("bert", {"refit": False}),
        ("bert-encoder", {}),
        ("t5", {"ranks": "uniform"}),
        ("clip", {"method": "plain"}),
        ("olmoe", {"keep": 0.5}),
    ],
)
def test_every_family_keeps_its_budget_and_comes_back(family, settings, tmp_path):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    small = factored(model, **settings)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    noted, keep = small.extras[NAME], settings.get("keep", 0.8)
    assert (keep - 0.06) * noted["parameters_before"] < noted["parameters"] <= keep * noted["parameters_before"]
    modules = {n: m for n, m in small.network.named_modules() if isinstance(m, FactoredLinear)}
    assert {name: m.rank for name, m in modules.items()} == {n: x["rank"] for n, x in noted["layers"].items()}
    assert all(m.rank * (m.in_features + m.out_features) < m.in_features * m.out_features for m in modules.values())
    # What is counted is what there is.
    gone = noted["parameters_before"] - noted["parameters"]
    assert count_parameters(model.network)[0] - count_parameters(small.network)[0] == gone
    if family in ("llama", "gpt2", "bert"):
        assert macs_per_token(model.network, 8) - macs_per_token(small.network, 8) == gone
    out = outputs(small, family)
    assert (out - outputs(model, family)).abs().max() > 1e-3
    small.save(tmp_path / "small")
    again = ia.load(tmp_path / "small")
    assert torch.equal(outputs(again, family), out) and again.extras[NAME] == noted
    plain = compression.dequantize(again)
    torch.testing.assert_close(outputs(plain, family), out, rtol=1e-4, atol=1e-4)
    assert [type(m) for m in plain.network.modules()] == [type(m) for m in model.network.modules()]
    torch.testing.assert_close(outputs(small.copy(), family), out, rtol=0, atol=0)


def test_the_walk_is_the_naive_one():
    """Each block is factored on what the whole network, factored below, gives it; then refitted beside the dense."""
    model = tiny("llama")
    found = factored(model, ranks="uniform", keep=0.7, refit=False, damping=1e-3)
    naive = model.copy()
    rows = ia.compression.statistics.windows_of(model, [record.text for record in WORDS])
    ranks = {name: facts["rank"] for name, facts in found.extras[NAME]["layers"].items()}
    for block in range(len(naive.sites.blocks)):
        mine = [layer for layer in linears(naive) if layer.block == block]
        stats = collect(naive, mine, rows)
        for layer in mine:
            moment = metric("whitened", layer.shape[1], stats[layer.name], 1e-3)
            left, right = factors(layer.weight, moment, ranks[layer.name])
            layer.set(left @ right)
    for layer in linears(naive):
        whole = found.network.get_submodule(layer.name).weight
        torch.testing.assert_close(whole, layer.weight, rtol=1e-2, atol=1e-3)


def test_a_refit_brings_the_outputs_of_the_text_nearer():
    model = tiny("gpt2")
    rows = torch.tensor(ia.compression.statistics.windows_of(model, [record.text for record in WORDS]))
    wanted = ia.read(model, rows, "layers.3.resid_post")["layers.3.resid_post"]
    gaps = []
    for refit in (True, False):
        new = factored(model, keep=0.6, ranks="uniform", refit=refit, ridge=0.01)
        gaps.append(float((ia.read(new, rows, "layers.3.resid_post")["layers.3.resid_post"] - wanted).square().sum()))
    assert gaps[0] < gaps[1]


def test_the_ridge_of_each_layer_is_chosen_where_none_is_given():
    new = factored(tiny("gpt2"), keep=0.6, ranks="uniform")
    said = new.extras["compression.factorize"]["layers"]
    assert {facts["ridge"] for facts in said.values() if "ridge" in facts} <= set(RIDGES)
    assert any("ridge" in facts for facts in said.values())
    fixed = factored(tiny("gpt2"), keep=0.6, ranks="uniform", ridge=0.5).extras["compression.factorize"]["layers"]
    assert {facts["ridge"] for facts in fixed.values()} == {0.5}
    plain = factored(tiny("gpt2"), keep=0.6, ranks="uniform", refit=False).extras["compression.factorize"]["layers"]
    assert not any("ridge" in facts for facts in plain.values())


def test_whitened_loses_less_of_the_outputs_than_the_others():
    model = tiny("llama")
    lost = {}
    for method in ("whitened", "asvd", "plain"):
        new = factored(model, method=method, ranks="uniform", keep=0.6, sequential=False, damping=0)
        layers = [layer for layer in linears(model) if layer.block == 0]
        rows = ia.compression.statistics.windows_of(model, [record.text for record in WORDS])
        stats = collect(model, layers, rows)
        lost[method] = {
            x.name: output_error(new.network.get_submodule(x.name).weight.detach() - x.weight, stats[x.name].moment)
            for x in layers
        }
    for name, least in lost["whitened"].items():
        assert least <= lost["asvd"][name] * (1 + 1e-4) and least < lost["plain"][name], name


def test_transformers_loads_it_in_a_fresh_process(tmp_path):
    assert_loads_in_a_fresh_process(factored(tiny("qwen3")).network, tmp_path)


def test_pictures_and_captions_reach_both_towers(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pictures = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        noise = torch.randint(0, 255, (16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
        image.fromarray(noise.numpy()).save(path)
        pictures.append(ImageText(str(path), WORDS[i % len(WORDS)].text))
    model = tiny("clip")
    small = made(compression.factorize, model, images=pictures, keep=0.4)
    noted = small.extras[NAME]
    assert noted["ranks"] == "energy"
    assert {name.partition(".")[0] for name in noted["layers"]} == {"text_model", "vision_model"}
    assert all(0 < facts["error"] < 0.9 for facts in noted["layers"].values())
    # Without captions nothing reaches the text tower: it stays dense, and the budget is the vision tower's.
    mute = made(compression.factorize, model, images=[ImageText(p.image) for p in pictures]).extras[NAME]
    assert all(name.startswith("vision_model") for name in mute["layers"])
    assert mute["kept"]["text_model.encoder.layers.0.mlp.fc1"] == "nothing that was read reached it"
    with pytest.raises(BadInput, match="CLIPModel does not run on a text alone"):
        factored(model)
    with pytest.raises(BadInput, match="no vision tower"):
        made(compression.factorize, tiny("llama"), images=pictures)


def test_what_stays_dense_and_why():
    model = tiny("llama").copy()
    network = model.network
    # Two layers with one weight: neither can be factored for itself.
    network.model.layers[1].mlp.up_proj.weight = network.model.layers[0].mlp.up_proj.weight
    small = factored(model, skip=("*.layers.3.*",))
    kept = small.extras[NAME]["kept"]
    assert kept["model.layers.1.mlp.up_proj"] == "shares its weight with another module"
    assert kept["model.layers.3.mlp.up_proj"] == "skip"
    assert (
        type(small.network.lm_head) is torch.nn.Linear and type(small.network.model.embed_tokens) is torch.nn.Embedding
    )
    same = small.network.model.layers
    assert same[0].mlp.up_proj.weight is same[1].mlp.up_proj.weight
    with pytest.warns(UserWarning, match="rank 14 would not make 8 layers smaller.*model.layers.0.self_attn.k_proj"):
        few = compression.factorize(model, rank=14, method="plain")
    assert few.extras[NAME]["kept"]["model.layers.0.self_attn.k_proj"] == "no smaller as factors"
    assert few.network.model.layers[0].mlp.down_proj.rank == 14
    with pytest.warns(UserWarning, match="experts of this network stay"):
        compression.factorize(tiny("olmoe"), method="plain")


def test_bad_input():
    model = tiny("llama")
    small = factored(model)
    quantized = made(compression.quantize, model, bits=8)
    for wrong, given, match in [
        (small, {}, "factored already"),
        (quantized, {}, "the model is quantized; factor the original"),
        (model, {"keep": 1.0}, "keep"),
        (model, {"rank": 40}, "rank 40 makes no layer smaller"),
        (model, {"rank": 4, "ranks": "energy"}, "ranks energy would choose others"),
        (model, {"skip": ("*.nothing",)}, "no linear layer is called"),
        (model, {"skip": ("*",)}, "nothing to factor"),
        (model, {"keep": 0.01}, "a rank of 1 everywhere has 6.0%"),
        (tiny("bert-encoder"), {"ranks": "sensitivity"}, "predicts no tokens"),
        (tiny("t5"), {"ranks": "sensitivity"}, "is an encoder-decoder"),
    ]:
        with pytest.raises(BadInput, match=match) as error:
            factored(wrong, **given)
        assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="factored already; prune the original"):
        made(compression.prune, small, method="magnitude")
    with pytest.raises(BadInput, match="factored already; quantize them without a rank"):
        made(compression.quantize, small, bits=4, rank=4, calibration=WORDS)


def test_factors_can_be_trained_cast_and_rounded(tmp_path):
    small = factored(tiny("llama"))
    for network in (small.network, ia.load(small.save(tmp_path / "m")).network):
        assert network.hf_quantizer.is_trainable and not network.is_quantized
    network = small.copy().network
    network(**inputs("llama")).logits.square().mean().backward()
    assert all(m.first.weight.grad.abs().sum() > 0 for m in network.modules() if isinstance(m, FactoredLinear))
    coarse = small.copy().network.to(torch.bfloat16)
    assert coarse(**inputs("llama")).logits.dtype == torch.bfloat16
    out = outputs(small, "llama")
    for settings in ({"bits": 8}, {"bits": 4, "method": "awq+gptq", "group_size": 8, "calibration": WORDS}):
        rounded = made(compression.quantize, small, kernel="reference", **settings)
        assert {type(m.first) for m in rounded.network.modules() if isinstance(m, FactoredLinear)} == {QuantLinear}
        gap = (outputs(rounded, "llama") - out).norm() / out.norm()
        assert gap < (0.05 if settings["bits"] == 8 else 0.5)
        folder = rounded.save(tmp_path / str(settings["bits"]))
        assert torch.equal(outputs(ia.load(folder), "llama"), outputs(rounded, "llama"))
        assert ia.load(folder).network.is_quantized
        torch.testing.assert_close(
            outputs(compression.dequantize(rounded), "llama"), outputs(rounded, "llama"), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("family", "method"), [("llama", "nearest"), ("llama", "awq+gptq"), ("gpt2", "gptq")])
def test_factors_beside_rounded_layers(family, method, tmp_path):
    model = tiny(family)
    settings = dict(bits=3, method=method, group_size=16, kernel="reference", calibration=WORDS)
    plain = made(compression.quantize, model, sequential=False, **settings)
    ranks = {rank: made(compression.quantize, model, rank=rank, sequential=False, **settings) for rank in (2, 8)}
    for rank, small in ranks.items():
        noted = small.extras["compression.quantize"]
        assert noted["rank"] == rank and len(noted["factored"]) == len(noted["errors"])
        layer = small.network.get_submodule(noted["factored"][0])
        assert layer.rank == rank and layer.base.grid == Grid(3, 16, False)
        assert layer.first.grid == layer.second.grid == Grid(8, None, True)
        out = outputs(small, family)
        assert torch.equal(outputs(ia.load(small.save(tmp_path / str(rank))), family), out)
        dense = compression.dequantize(small)
        torch.testing.assert_close(outputs(dense, family), out, rtol=1e-4, atol=1e-4)
        assert not any(isinstance(m, Quantized | FactoredLinear) for m in dense.network.modules())
    if method == "nearest":
        errors = [m.extras["compression.quantize"]["errors"] for m in (ranks[8], ranks[2])]
        assert all(errors[0][name] < errors[1][name] for name in errors[0])
        # The whitened residual: naively the best of its rank, but for the 8 bits of its factors.
        stats = collect(model, linears(model), ia.compression.statistics.windows_of(model, [r.text for r in WORDS]))
        for layer in linears(model)[:7]:
            base = plain.network.get_submodule(layer.name).weight
            h = stats[layer.name].moment.double()
            size, turn = torch.linalg.eigh(h)
            root = turn * size.clamp(min=0).sqrt()
            bound = torch.linalg.svdvals((layer.weight - base).double() @ root)[8:].square().sum()
            lost = output_error(ranks[8].network.get_submodule(layer.name).weight.double() - layer.weight.double(), h)
            assert bound <= lost * (1 + 1e-6) and lost < 1.2 * bound + 1e-4 * output_error(layer.weight.double(), h)
    gaps = [float((outputs(m, family) - outputs(model, family)).norm()) for m in (ranks[8], plain)]
    assert gaps[0] < gaps[1]


def test_exports_see_dense_weights(tmp_path):
    pytest.importorskip("gguf")
    from intarsia.compression.exporting.gguf import export_gguf
    from tests.test_compression_gguf import small as for_gguf

    model = for_gguf()
    small = factored(model)
    with pytest.raises(BadInput, match="factored, and GGUF knows dense ones only; `dequantize` it first"):
        export_gguf(small, tmp_path / "no.gguf")
    export_gguf(compression.dequantize(small), tmp_path / "a.gguf")
    again = ia.load(tmp_path / "a.gguf")
    ids = torch.tensor([[20, 30, 40]])
    torch.testing.assert_close(again.network(ids).logits, small.network(ids).logits, rtol=1e-3, atol=1e-3)
    with pytest.warns(UserWarning, match="factors are multiplied out"):
        fast = compression.export(small, engine="gguf")
    assert not any(isinstance(m, FactoredLinear) for m in fast.network.modules())


@pytest.mark.real
@pytest.mark.slow
def test_a_real_model_stands_full_rank_and_loses_less_when_whitened():
    try:
        model = ia.load("smollm2-135m")
    except ia.IntarsiaError as error:
        pytest.skip(f"SmolLM2 is not available: {error}")
    from intarsia.data import load_data

    ids = model.encode(["\n\n".join(r.text for r in load_data("python-docs")["text"][:3])], max_length=256)
    new = model.copy()
    layers = [layer for layer in linears(new) if layer.block == 3]
    plan = {layer.name: min(layer.shape) for layer in layers}
    pairs = {x.name: factors(x.weight, metric("plain", x.shape[1], None), plan[x.name]) for x in layers}
    lay_factors(new.network, plan)
    for name, pair in pairs.items():
        fill_factors(new.network.get_submodule(name), *pair)
    with torch.no_grad():
        truth, full = model.network(**ids).logits, new.network(**ids).logits
        assert (full - truth).abs().max() < 1e-3
        kl = {}
        for method in ("whitened", "plain"):
            some = made(
                compression.factorize, model, method=method, ranks="uniform", sequential=False, tokens=1024, keep=0.9
            )  # fmt: skip
            p = truth.log_softmax(-1)
            kl[method] = (p.exp() * (p - some.network(**ids).logits.log_softmax(-1))).sum(-1).mean()
    # So little text and one share for all layers: 1.28 nats a token. By their own size weights leave nothing at all.
    assert kl["whitened"] < 2 and kl["plain"] > 2 * kl["whitened"]
