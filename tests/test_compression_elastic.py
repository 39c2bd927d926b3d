"""A network that holds smaller ones: sorting and turning change nothing, and every choice is a slice of it."""

import warnings

import pytest
import torch
import transformers as tf
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from intarsia.compression import dequantize, export, quantize, slice_width
from intarsia.compression.calibration import calibration_windows
from intarsia.compression.elastic.refitting import refitted
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.linears import linears
from intarsia.compression.pruning.dropping import shorter
from intarsia.compression.statistics import collect
from intarsia.data import Text
from intarsia.models import load, wrap
from tests.failing import fails
from tests.tiny import inputs, tiny, tokenizer

TEXTS = [Text("".join(chr(33 + (i * i + 7 * i) % 90) for i in range(700)))]
SMALL = dict(
    vocab_size=300, hidden_size=48, intermediate_size=48, num_hidden_layers=4, num_attention_heads=6,
    num_key_value_heads=3, head_dim=8, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
KINDS = {
    "llama": lambda: tf.LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "llama, tied": lambda: tf.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen3": lambda: tf.Qwen3Config(**SMALL),
    "gemma": lambda: tf.GemmaConfig(**SMALL),
    "granite": lambda: tf.GraniteConfig(**SMALL, residual_multiplier=0.5, embedding_multiplier=3.0),
}


def naive_norm(self, x):
    """RMSNorm as it is written, in the precision it is given: transformers' own computes in float32."""
    eps = getattr(self, "variance_epsilon", None) or self.eps
    gain = self.weight + 1 if isinstance(self, GemmaRMSNorm) else self.weight
    return gain * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@pytest.fixture
def exact(monkeypatch):
    for kind in (LlamaRMSNorm, Qwen3RMSNorm, GemmaRMSNorm):
        monkeypatch.setattr(kind, "forward", naive_norm)
    from transformers.models.granite.modeling_granite import GraniteRMSNorm

    monkeypatch.setattr(GraniteRMSNorm, "forward", naive_norm)


def made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    network = tf.AutoModelForCausalLM.from_config(KINDS[kind]())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(1.0 if "norm" in name and "gemma" not in kind else 0.0, 0.2)
    return wrap(network.to(dtype).eval(), tokenizer())


def windows(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return calibration_windows(model, TEXTS, 512)


def supernet(model, narrower=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Supernet(model, windows(model), narrower=narrower, who="a search")


def logits(model):
    with torch.no_grad():
        return model.network(**inputs("llama")).logits


@pytest.mark.parametrize("kind", KINDS)
def test_sorting_and_turning_change_nothing(kind, exact):
    model = made(kind)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    net = supernet(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    wanted = logits(model)
    for form in (net.plain, net.narrow):
        torch.testing.assert_close(logits(form.model), wanted, rtol=1e-9, atol=1e-9)
    name = "model.layers.0.mlp.down_proj.weight"
    assert not torch.equal(net.plain.model.network.get_parameter(name), before[name])
    # The full choice is the network, and still ties what was tied.
    full = net.slice(net.largest)
    torch.testing.assert_close(logits(full), wanted, rtol=1e-9, atol=1e-9)
    count = sum(p.numel() for p in model.network.parameters())
    assert sum(p.numel() for p in full.network.parameters()) == net.parameters(net.largest) == count
    # The stream's directions are principal: each holds less than the one before.
    energy = net.energy
    assert bool((energy[:-1] >= energy[1:] - 1e-6).all()) and float(energy.sum()) == pytest.approx(1, rel=1e-5)


def test_the_basis_is_that_of_what_the_norms_give(exact):
    model = made("llama")
    net = supernet(model)
    read = []
    ids = torch.tensor(windows(model))
    hooks = [
        layer.register_forward_pre_hook(lambda module, args: read.append(args[0].flatten(0, -2)))
        for name, layer in net.narrow.model.network.named_modules()
        if name.endswith(("q_proj", "gate_proj", "lm_head"))
    ]
    with torch.no_grad():
        net.narrow.model.network(ids)
    for hook in hooks:
        hook.remove()
    assert len(read) == 9
    moment = sum(x.T @ x / len(x) for x in read) / len(read)
    torch.testing.assert_close(moment, moment.diagonal().diag(), rtol=0, atol=1e-5)
    torch.testing.assert_close(moment.diagonal() / moment.trace(), net.energy.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma"])
def test_a_slice_is_the_network_without_the_least_needed_parts(kind, exact):
    model = made(kind)
    net = supernet(model, narrower=False)
    choice = net.choice(blocks=[0, 2, 3], neurons=[16, 24, 40], heads=2)
    silent = shorter(model.copy(), [0, 2, 3])
    stats = collect(model, linears(model), windows(model))
    names = {layer.name: layer for layer in linears(silent)}
    for place, (block, neurons) in enumerate(zip(choice.blocks, choice.neurons, strict=True)):
        down, out = names[f"model.layers.{place}.mlp.down_proj"], names[f"model.layers.{place}.self_attn.o_proj"]
        seen = [stats[f"model.layers.{block}.{name}"].moment.double() for name in ("mlp.down_proj", "self_attn.o_proj")]
        weight = down.weight
        score = torch.stack([seen[0][j, j] * weight[:, j].norm() ** 2 for j in range(48)])
        down.set(weight.index_fill(1, score.argsort()[: 48 - neurons], 0))
        some = [slice(16 * g, 16 * g + 16) for g in range(3)]
        weight = out.weight
        worth = [float(torch.trace(weight[:, s] @ seen[1][s, s] @ weight[:, s].T)) for s in some]
        gone = some[worth.index(min(worth))]
        out.set(weight.index_fill(1, torch.arange(gone.start, gone.stop), 0))
    small = net.slice(choice)
    torch.testing.assert_close(logits(small), logits(silent), rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in small.network.parameters()) == net.parameters(choice)
    assert [layer.self_attn.layer_idx for layer in small.network.model.layers] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["llama", "llama, tied", "gemma", "granite"])
def test_a_narrower_stream_is_the_full_one_with_silent_directions(kind, exact):
    net = supernet(made(kind))
    silent = net.narrow.model.copy()
    with torch.no_grad():
        for name, tensor in silent.network.named_parameters():
            if name.endswith("embed_tokens.weight"):
                tensor[:, 30:] = 0
            elif "o_proj" in name or "down_proj" in name:
                tensor[30:] = 0
    small = net.slice(net.choice(width=30))
    assert small.config.hidden_size == 30 and small.network.model.norm.weight.shape == (30,)
    torch.testing.assert_close(logits(small), logits(silent), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["llama, tied", "qwen3", "gemma"])
def test_a_choice_runs_on_shared_weights_as_by_itself_and_comes_back_from_disk(kind, tmp_path):
    net = supernet(made(kind, torch.float32))
    x = inputs("llama")
    for number, choice in enumerate(
        (net.choice(blocks=[0, 1, 3], neurons=24, heads=1, width=24), net.choice(blocks=[3], neurons=8), net.largest)
    ):
        small = net.slice(choice)
        shared = net.logits(choice, x["input_ids"], x["attention_mask"])
        torch.testing.assert_close(shared, logits(small), rtol=1e-5, atol=1e-5)
        assert shared.requires_grad
        # Transformers alone builds it from its config.
        small.network.save_pretrained(tmp_path / str(number))
        again = tf.AutoModelForCausalLM.from_pretrained(tmp_path / str(number)).eval()
        with torch.no_grad():
            torch.testing.assert_close(again(**x).logits, logits(small), rtol=1e-5, atol=1e-5)
        # It writes with its cache as it reads.
        ids = x["input_ids"][:1]
        with torch.no_grad():
            text = small.network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
            assert int(small.network(text[:, :-1]).logits[0, -1].argmax()) == int(text[0, -1])


def test_blocks_that_differ_come_back_too(tmp_path):
    net = supernet(made("llama", torch.float32), narrower=False)
    small = net.slice(net.choice(neurons=[16, 48, 24, 48]))
    assert [layer.mlp.up_proj.weight.shape[0] for layer in small.network.model.layers] == [16, 48, 24, 48]
    small.save(tmp_path / "small")
    again = load(tmp_path / "small")
    torch.testing.assert_close(logits(again), logits(small))
    # Rounding and its undoing keep the shapes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rounded = quantize(again, bits=8)
    plain = dequantize(rounded)
    torch.testing.assert_close(logits(plain), logits(rounded), rtol=1e-3, atol=1e-3)
    rounded.save(tmp_path / "rounded")
    torch.testing.assert_close(logits(load(tmp_path / "rounded")), logits(rounded), rtol=1e-4, atol=1e-4)
    net = supernet(tiny("llama"), narrower=False)
    small = net.slice(net.choice(neurons=[16, 48, 24, 48]))
    fails(lambda: export(small, engine="gguf"), "the blocks of this network differ in neurons")


def test_what_is_left_makes_good():
    model = made("llama", torch.float32)
    net = supernet(model)
    text = torch.tensor(windows(model))

    def distance(small):
        with torch.no_grad():
            return float((small.network(text).logits - model.network(text).logits).square().mean())

    for choice in (net.choice(neurons=24), net.choice(heads=2), net.choice(width=36)):
        assert distance(refitted(net, choice, text.tolist(), 0.01)) < 0.9 * distance(net.slice(choice))
    # Where nothing goes, nothing is made good.
    same = refitted(net, net.largest, text.tolist(), 0.5)
    torch.testing.assert_close(logits(same), logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("gpt2", "is a LayerNorm"),
        ("gemma3", "writes what it scales to the stream"),
        ("olmoe", "one plain MLP in every block"),
        ("llava", "more than a text tower"),
        ("bert", "LayerNorm"),
    ],
)
def test_what_cannot_be_narrower_is_refused(family, why):
    fails(lambda: supernet(tiny(family)), why)


def test_a_choice_that_is_none_is_refused():
    net = supernet(tiny("llama"), narrower=False)
    for given, why in (
        ({"blocks": []}, "each once"), ({"blocks": [4]}, "0 to 3"), ({"neurons": 49}, "1 to 48"),
        ({"heads": 3}, "1 to 2"), ({"width": 33}, "1 to 32"), ({"width": 16}, "is not sorted"),
    ):  # fmt: skip
        fails(lambda given=given: net.choice(**given), why)


def test_slice_width_alone():
    model = made("llama, tied", torch.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        small = slice_width(model, share=0.2, multiple=4, calibration=TEXTS)
    assert small.config.hidden_size == 42 and not small.config.tie_word_embeddings
    said_ = [str(w.message) for w in said]
    for word in ("one table and are two now", "takes no width of 40: 42 is the nearest"):
        assert any(word in text for text in said_)
    facts = small.extras["compression.slice_width"]
    assert 0.5 < facts["energy"] < 1 and facts["parameters"] == sum(p.numel() for p in small.network.parameters())
    fails(lambda: slice_width(model, share=0.1, multiple=48, calibration=TEXTS), "nothing would go")
