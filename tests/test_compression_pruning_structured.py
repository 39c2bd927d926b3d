"""Removing neurons and heads: the least needed go, the rest makes good, and the network is a plain narrower one."""

import warnings

import pytest
import torch
import transformers as tf

from intarsia.compression import narrow
from intarsia.compression.calibration import calibration_windows
from intarsia.compression.linears import linears
from intarsia.compression.pruning.parts import attention_of, mlp_of
from intarsia.compression.refitting import refit
from intarsia.compression.statistics import collect
from intarsia.data import Text
from intarsia.models import load, wrap
from tests.failing import fails
from tests.tiny import inputs, tiny, tokenizer

TEXTS = [Text("".join(chr(33 + (i * i + 7 * i) % 90) for i in range(700)))]
SMALL = dict(
    vocab_size=300, hidden_size=48, intermediate_size=48, num_hidden_layers=2, num_attention_heads=6,
    num_key_value_heads=3, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip


def narrowed(model, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return narrow(model, calibration=TEXTS, **{"multiple": 4, **given})


def outputs(model, family="llama"):
    with torch.no_grad():
        return model.network(**inputs(family))[0]


def wrapped(network):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.2)
    return wrap(network.eval(), tokenizer())


def in_block(model, block):
    return {layer.role: layer for layer in linears(model) if layer.block == block}


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3", "granite", "neox", "gpt2", "bert", "llava"])
def test_neurons_go_in_every_family(family, tmp_path):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    small = narrowed(model, neurons=0.5, refit=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    facts = small.extras["compression.narrow"]
    # What is left is what is left of each block when the least needed neurons of it write nothing.
    silent = model.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        windows = calibration_windows(model, TEXTS)
        for block in range(len(model.sites.blocks)):
            down = in_block(silent, block)["down"]
            weight, moment = down.weight.double(), collect(silent, [down], windows)[down.name].moment.double()
            score = torch.stack([moment[j, j] * weight[:, j].norm() ** 2 for j in range(weight.shape[1])])
            least = score.argsort()[: weight.shape[1] // 2]
            down.set(down.weight.index_fill(1, least, 0))
            lost = weight[:, least]
            error = torch.trace(lost @ moment[least][:, least] @ lost.T) / torch.trace(weight @ moment @ weight.T)
            assert facts["blocks"][block]["neurons_error"] == pytest.approx(float(error), rel=1e-3)
    torch.testing.assert_close(outputs(small, family), outputs(silent, family), rtol=1e-4, atol=1e-4)
    size = in_block(model, 0)["down"].shape[1]
    assert {in_block(small, b)["down"].shape[1] for b in range(len(small.sites.blocks))} == {size // 2}
    assert facts["parameters"] < facts["parameters_before"]
    # A plain network of its class: transformers builds it from its config.
    small.network.save_pretrained(tmp_path)
    again = type(small.network).from_pretrained(tmp_path)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in small.network.state_dict().items()
    }
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs(family))[0], outputs(small, family))


def test_refit_is_least_squares():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator)
    x = (torch.randn(300, 12, generator=generator) @ mixing).double()
    weight = torch.randn(5, 12, generator=generator)
    moment, kept = x.T @ x / len(x), torch.tensor([0, 2, 3, 7, 11])
    for ridge in (0.0, 0.3):
        # Rows of the text, and rows that hold to the old weights.
        hold = (ridge * moment.diagonal()[kept] * len(x)).sqrt().diag()
        rows = torch.cat((x[:, kept], hold))
        wanted = torch.cat((x @ weight.double().T, hold @ weight[:, kept].double().T))
        best = torch.linalg.lstsq(rows, wanted).solution.T
        got = refit(weight, moment.float(), kept, ridge)
        torch.testing.assert_close(got.double(), best, rtol=1e-3, atol=1e-3)
    assert torch.equal(refit(weight, moment.float(), torch.arange(12), 0.01), weight)
    # An input that the text never shows keeps its weights; scales do not matter.
    x[:, 3] = 0
    scale = torch.logspace(-3, 3, 12, dtype=torch.float64)
    both = []
    for sizes in (torch.ones(12, dtype=torch.float64), scale):
        seen = x * sizes
        got = refit((weight / sizes).float(), (seen.T @ seen / len(x)).float(), kept, 0.5)
        both.append(got * sizes[kept])
        torch.testing.assert_close(both[-1][:, 2].float(), weight[:, 3])
    torch.testing.assert_close(*both, rtol=1e-4, atol=1e-4)
    # Inputs that copy others cost nothing to remove.
    x = torch.cat((x[:, :6], x[:, :6] * 2), 1)
    moment, kept = (x.T @ x / len(x)).float(), torch.arange(6, 12)
    for ridge in (0.0, 1e-6):
        got = refit(weight, moment, kept, ridge).double()
        torch.testing.assert_close(x[:, kept] @ got.T, x @ weight.double().T, rtol=1e-3, atol=1e-2)


def test_the_rest_makes_good():
    model = tiny("gpt2")
    kept, refitted = (narrowed(model, neurons=0.5, refit=refit, ridge=0.01) for refit in (False, True))
    lost = [[b["neurons_error"] for b in m.extras["compression.narrow"]["blocks"]] for m in (kept, refitted)]
    assert all(after < 0.8 * before for before, after in zip(*lost, strict=True))


@pytest.mark.parametrize("kind", ["llama", "biases", "qwen3", "gemma3", "phi3", "granite"])
def test_heads_go_with_their_queries(kind, tmp_path):
    config = {
        "llama": lambda: tf.LlamaConfig(**SMALL, head_dim=8),
        "biases": lambda: tf.LlamaConfig(**SMALL, head_dim=8, attention_bias=True, mlp_bias=True),
        "qwen3": lambda: tf.Qwen3Config(**SMALL, head_dim=8),
        "gemma3": lambda: tf.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=8),
        "phi3": lambda: tf.Phi3Config(**SMALL, head_dim=8),
        "granite": lambda: tf.GraniteConfig(**SMALL, head_dim=8),
    }[kind]()
    model = wrapped(tf.AutoModelForCausalLM.from_config(config))
    neurons = 0.25 if kind == "biases" else 0
    small = narrowed(model, neurons=neurons, heads=1, refit=False)
    facts = small.extras["compression.narrow"]
    left = small.config
    assert (left.num_attention_heads, left.num_key_value_heads, left.head_dim) == (4, 2, 8)
    silent = model.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        windows = calibration_windows(model, TEXTS)
        for block in range(2):
            layers = in_block(silent, block)
            out, down = layers["o"], layers["down"]
            weight, moment = out.weight.double(), collect(silent, [out], windows)[out.name].moment.double()
            some = [slice(16 * g, 16 * g + 16) for g in range(3)]
            scores = [float(torch.trace(weight[:, s] @ moment[s, s] @ weight[:, s].T)) for s in some]
            assert facts["blocks"][block]["heads"] == [g for g in range(3) if scores[g] > min(scores)]
            out.weight[:, some[scores.index(min(scores))]] = 0
            if neurons:  # chosen by what the MLP is given once the heads are gone
                square = collect(silent, [down], windows)[down.name].moment.diagonal()
                down.weight[:, (square * down.weight.square().sum(0)).argsort()[:12]] = 0
    torch.testing.assert_close(outputs(small), outputs(silent), rtol=1e-4, atol=1e-4)
    small.network.save_pretrained(tmp_path)
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs("llama"))[0], outputs(small))
    made = small.network.generate(torch.tensor([[20, 30, 40]]), max_new_tokens=8, do_sample=False, eos_token_id=None)
    ids = torch.tensor([[20, 30, 40]])
    with torch.no_grad():
        while ids.shape[1] < made.shape[1]:
            ids = torch.cat((ids, small.network(ids).logits[:, -1:].argmax(-1)), 1)
    assert ids.shape[1] == 11 and torch.equal(made, ids)


def test_the_order_of_neurons_and_heads_does_not_matter():
    model = wrapped(tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL, head_dim=8)))
    other = model.copy()
    neurons, groups = torch.randperm(48), torch.tensor([2, 0, 1])
    for block in range(2):
        layers = in_block(other, block)
        query = (groups[:, None] * 16 + torch.arange(16)).flatten()
        key = (groups[:, None] * 8 + torch.arange(8)).flatten()
        for role, rows in (("gate", neurons), ("up", neurons), ("q", query), ("k", key), ("v", key)):
            layers[role].set(layers[role].weight[rows].clone())
        for role, columns in (("down", neurons), ("o", query)):
            layers[role].set(layers[role].weight[:, columns].clone())
    torch.testing.assert_close(outputs(other), outputs(model), rtol=1e-4, atol=1e-4)
    small, same = (narrowed(m, neurons=0.5, heads=1) for m in (model, other))
    torch.testing.assert_close(outputs(same), outputs(small), rtol=1e-3, atol=1e-3)


def test_widths_are_multiples():
    model = tiny("llama")
    assert narrowed(model, neurons=0.3, multiple=8).config.intermediate_size == 32  # 33.6, rounded
    assert narrowed(model, neurons=0.95, multiple=16).config.intermediate_size == 16
    assert narrowed(model).extras["compression.narrow"]["config"] == {"intermediate_size": 36}
    fails(lambda: narrowed(model, neurons=0.25, multiple=48), "75% of 48 neurons", "is 48", "smaller multiple")


def test_bad_input():
    model = tiny("llama")
    fails(lambda: narrowed(model, neurons=0), "nothing to remove")
    fails(lambda: narrowed(model, heads=2), "2 key-value heads, one must stay")
    fails(lambda: narrowed(tiny("olmoe")), "neurons need one plain MLP", "q, k, v, o")
    fails(lambda: narrowed(tiny("gpt2"), neurons=0, heads=1), "cannot be built", "head_dim 8", "divisible by num_heads")
    fails(lambda: narrowed(tiny("gpt2"), neurons=0, heads=2), "head_dim 8", "its config does not allow that")
    fails(lambda: narrowed(tiny("bert"), neurons=0, heads=1), "num_attention_heads 3")
    fails(lambda: narrowed(tiny("neox"), neurons=0, heads=1), "GPTNeoXForCausalLM")
    fails(lambda: narrowed(tiny("t5")), "do not follow its config")
    fails(lambda: narrowed(tiny("clip")), "does not run on a text alone")
    layers = [layer for layer in linears(model) if layer.block == 0]
    fails(lambda: mlp_of([*layers, *layers], "who"), "who: neurons need one plain MLP")
    fails(lambda: attention_of(layers[1:], model.config, "who"), "who: heads need one plain attention")
    config = tf.LlamaConfig(**{**SMALL, "hidden_size": 54}, head_dim=8)
    fails(lambda: narrowed(wrapped(tf.LlamaForCausalLM(config)), heads=1), "54", "not a multiple of the number of")
    # The norm of all queries together would be another one with fewer of them.
    config = tf.Olmo2Config(**SMALL, head_dim=8)
    fails(lambda: narrowed(wrapped(tf.Olmo2ForCausalLM(config)), heads=1, neurons=0), "norm", "does not allow that")


def test_half_precision_and_files(tmp_path):
    small = narrowed(tiny("llama", dtype=torch.bfloat16), neurons=0.5)
    assert small.dtype == torch.bfloat16 and small.config.intermediate_size == 24
    small = narrowed(tiny("llama"), neurons=0.5, heads=1)
    again = load(str(small.save(tmp_path / "m")))
    assert torch.equal(outputs(again), outputs(small))
    assert again.extras == small.extras and again.identity.changes[-1]["technique"] == "compression.narrow"
