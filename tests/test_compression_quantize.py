"""Quantized networks: same outputs as their rounded weights, smaller, saved and loaded bit for bit."""

import warnings

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from intarsia import compression
from intarsia.compression.quantization.grids import Grid
from intarsia.compression.quantization.modules import QuantConv1D, QuantEmbedding, Quantized, QuantLinear, TiedHead
from intarsia.errors import BadInput
from tests.fresh import assert_loads_in_a_fresh_process
from tests.tiny import FAMILIES, MOE, inputs, tiny


def quantized(model, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compression.quantize(model, **settings)


def outputs(model, family):
    with torch.no_grad():
        return model.network(**inputs(family))[0]


@pytest.mark.parametrize(("family", "bits"), [(f, (8, 4)[i % 2]) for i, f in enumerate(FAMILIES)] + [("llama", 4)])
def test_every_family(family, bits, tmp_path):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    small = quantized(model, bits=bits, kernel="reference")
    base, out = outputs(model, family), outputs(small, family)
    # What was given is as it was.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    assert (out - base).norm() / base.norm() < (0.08 if bits == 8 else 0.5)
    # A plain network with the rounded weights computes the same.
    plain = compression.dequantize(small)
    assert not any(type(m).__module__.startswith("intarsia") for m in plain.network.modules())
    assert [type(m) for m in plain.network.modules()] == [type(m) for m in model.network.modules()]
    torch.testing.assert_close(outputs(plain, family), out, rtol=1e-4, atol=1e-4)
    # It saves and loads as transformers saves and loads.
    small.network.save_pretrained(tmp_path)
    again = type(small.network).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**inputs(family))[0], out)
    if family not in MOE:
        plain.network.save_pretrained(tmp_path / "plain")
        small_bytes, plain_bytes = (
            sum(f.stat().st_size for f in folder.glob("*.safetensors")) for folder in (tmp_path, tmp_path / "plain")
        )
        assert small_bytes < plain_bytes / (1.9 if bits == 8 else 2.2)


def test_tied_table_exists_once(tmp_path):
    model = tiny("gpt2")
    small = quantized(model, bits=4)
    network = small.network
    assert isinstance(network.lm_head, TiedHead) and isinstance(network.transformer.wte, QuantEmbedding)
    assert isinstance(network.transformer.h[0].mlp.c_fc, QuantConv1D)
    assert network.transformer.h[0].mlp.c_fc.weight.shape == model.network.transformer.h[0].mlp.c_fc.weight.shape
    assert torch.equal(network.lm_head.weight, network.transformer.wte.weight)
    assert not any(name.startswith("lm_head") for name in network.state_dict())
    copied = small.copy().network
    assert copied.lm_head._table[0] is copied.transformer.wte


@pytest.mark.parametrize("grid", [Grid(8, None, True), Grid(8, 16, False), Grid(4, 32, False), Grid(4, 64, True)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_its_dequantized_weight(grid, bias):
    torch.manual_seed(0)
    weight, vector = torch.randn(48, 64), torch.randn(48) if bias else None
    layer = QuantLinear(64, 48, grid, vector, kernel="reference")
    layer.fill(weight)
    x = torch.randn(3, 5, 64, requires_grad=True)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, vector), rtol=1e-5, atol=1e-4)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(gradient, layer.weight.sum(0).expand_as(x), rtol=1e-5, atol=1e-4)
    # Casting the network casts what it computes in, never the grid.
    scales = layer.scales.clone()
    layer.to(torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16 and torch.equal(layer.scales, scales)


@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_kernel_is_close_and_fixed(symmetric):
    torch.manual_seed(0)
    layer = QuantLinear(64, 48, Grid(4, 32, symmetric))
    layer.fill(torch.randn(48, 64))
    x = torch.randn(16, 64)
    wanted = F.linear(x, layer.weight)
    with torch.no_grad():
        few, many = layer(x), layer(torch.cat((x, x)))
    assert not torch.equal(few, many[:16])  # 16 rows go through the kernel, 32 do not
    assert (few - wanted).abs().max() < 0.03 * wanted.abs().max()
    torch.testing.assert_close(many[:16], wanted, rtol=1e-5, atol=1e-4)
    layer.kernel = "reference"
    with torch.no_grad():
        torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-4)


def test_settings():
    model = tiny("llama")
    kept = quantized(model, embed="keep", skip=("*.down_proj",)).network
    assert type(kept.model.embed_tokens) is torch.nn.Embedding and type(kept.lm_head) is torch.nn.Linear
    assert type(kept.model.layers[0].mlp.down_proj) is torch.nn.Linear
    assert isinstance(kept.model.layers[0].mlp.up_proj, QuantLinear)
    with pytest.warns(UserWarning, match="rows of 48 are not divisible by group_size 32: 24 is used"):
        small = compression.quantize(model, bits=4)
    assert small.network.model.layers[0].mlp.down_proj.grid == Grid(4, 24, False)
    assert small.extras["compression.quantize"]["parameters"] == sum(p.numel() for p in model.network.parameters())
    assert small.identity.changes[-1]["config"]["bits"] == 4
    with pytest.warns(UserWarning, match="experts of this network stay"):
        moe = compression.quantize(tiny("olmoe"))
    assert "a three-dimensional tensor of experts" in moe.extras["compression.quantize"]["kept"].values()


def test_bad_input():
    model = tiny("llama")
    with pytest.raises(BadInput, match="quantized already"):
        quantized(quantized(model))
    with pytest.raises(BadInput, match="nothing to quantize"):
        quantized(model, skip=("*",))
    with pytest.raises(BadInput, match="bits"):
        compression.quantize(model, bits=7)
    with pytest.raises(BadInput, match="wants a quantized model"):
        compression.tune_kernels(model)


def test_tuning_chooses_a_kernel_and_leaves_the_model():
    config = tf.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4
    )
    from intarsia.models import wrap

    small = quantized(wrap(tf.LlamaForCausalLM(config).eval()), bits=4)
    tuned = compression.tune_kernels(small)
    chosen = tuned.extras["compression.quantize"]["kernels"]
    assert chosen and set(chosen.values()) <= {"packed", "reference"}
    assert all(m.kernel == "auto" for m in small.network.modules() if isinstance(m, QuantLinear))


def test_generation_and_half_precision():
    for dtype in (torch.float32, torch.bfloat16):
        small = quantized(tiny("llama", dtype=dtype), bits=4)
        ids = small.network.generate(torch.tensor([[20, 30, 40]]), max_new_tokens=4, do_sample=False)
        assert ids.shape[1] <= 7 and small.dtype == dtype


def test_save_and_load_through_a_model(tmp_path):
    import intarsia

    small = quantized(tiny("llama"), bits=4)
    again = intarsia.load(str(small.save(tmp_path / "m")))
    assert torch.equal(outputs(again, "llama"), outputs(small, "llama"))
    assert again.extras["compression.quantize"] == small.extras["compression.quantize"]


def test_transformers_loads_it_after_the_import(tmp_path):
    assert_loads_in_a_fresh_process(quantized(tiny("qwen3"), bits=8).network, tmp_path)


def test_hugging_face_dequantize():
    small = quantized(tiny("llama"), bits=8)
    out = outputs(small, "llama")
    network = small.network.dequantize()
    assert not any(isinstance(m, Quantized) for m in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(network(**inputs("llama"))[0], out, rtol=1e-4, atol=1e-4)


@pytest.mark.real
def test_real_model_shrinks(tmp_path):
    import intarsia

    try:
        model = intarsia.load("smollm2-135m")
    except intarsia.IntarsiaError as error:
        pytest.skip(f"SmolLM2 is not available: {error}")
    from intarsia.data import load_data

    texts = [record.text for record in load_data("python-docs")["text"][:3]]
    ids = model.encode(["\n\n".join(texts)], max_length=256)
    with torch.no_grad():
        truth = model.network(**ids).logits.log_softmax(-1)
        # Rounding alone costs about 0.005 and 0.26 nats a token on such text (docs/benchmarks.md).
        for bits, most, worst in ((8, 140e6, 0.02), (4, 96e6, 0.4)):
            small = quantized(model, bits=bits)
            folder = small.save(tmp_path / str(bits))
            assert sum(f.stat().st_size for f in folder.glob("*.safetensors")) < most
            kl = (truth.exp() * (truth - small.network(**ids).logits.log_softmax(-1))).sum(-1).mean()
            assert kl < worst
