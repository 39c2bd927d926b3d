"""Pruning single weights: which go, what the others make good, and what is left of the network."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.compression import PruneConfig, drop_blocks, narrow, prune, quantize
from intarsia.compression.linears import linears
from intarsia.compression.pruning import masks
from intarsia.compression.pruning.sparsegpt import sparsegpt
from intarsia.compression.pruning.sparsifying import by_input
from intarsia.compression.statistics import collect, relative_error
from intarsia.data import Text
from intarsia.models import load, wrap
from intarsia.sites import Guest, put_beside
from tests.failing import fails
from tests.tiny import FAMILIES, inputs, tiny

TEXTS = [Text("the quick brown fox jumps over the lazy dog, and " * 8), Text("0123456789 " * 20)]


def pruned(model, texts=TEXTS, **given_):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prune(model, calibration=texts, **given_)


def outputs(model, family):
    with torch.no_grad():
        return model.network(**inputs(family))[0]


def correlated(width=24, rows=4000, seed=0):
    """Inputs [row, width] that go together, of quite different sizes, one of them always zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) / width**0.5 + torch.eye(width)
    x = torch.randn(rows, width, generator=generator) @ mixing * torch.logspace(-0.5, 0.5, width)
    x[:, 5] = 0
    return x


def naive_sparsegpt(weight, moment, chosen, damping):
    """Optimal brain surgeon from the left, by the inverse of what is left of H each time; `chosen(column, W, costs)`
    says which weights of a column go."""
    weight, h = weight.double().clone(), moment.double().clone()
    dead = h.diagonal() == 0
    h += damping * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    h[dead, dead] = 1
    weight[:, dead] = 0
    gone = torch.zeros_like(weight, dtype=torch.bool)
    # What it costs to remove a column once those left of it are settled.
    least = torch.stack([torch.linalg.inv(h[c:, c:])[0, 0] for c in range(len(h))])
    for c in range(len(h)):
        chosen(c, weight.square() / least, gone)
        inverse = torch.linalg.inv(h[c:, c:])
        error = torch.where(gone[:, c], weight[:, c], 0) / inverse[0, 0]
        weight[:, c:] -= error[:, None] * inverse[0]
    return weight.masked_fill(gone, 0), gone


@pytest.mark.parametrize("share", [0.5, 0.3, (2, 4), (1, 3)])
def test_sparsegpt_is_optimal_brain_surgeon(share):
    x = correlated()
    moment = x.T @ x / len(x)
    weight = torch.randn(7, 24, generator=torch.Generator().manual_seed(1))
    block = 8 if isinstance(share, float) else share[1]

    def chosen(column, costs, gone):
        if column % block:
            return
        some = costs[:, column : column + block]
        if isinstance(share, tuple):
            order = some.argsort(1)[:, : share[1] - share[0]]
            gone[:, column : column + block] = torch.zeros_like(some, dtype=torch.bool).scatter(1, order, True)
        else:
            order = some.flatten().argsort()[: int(some.numel() * share)]
            gone[:, column : column + block] = torch.isin(torch.arange(some.numel()), order).view_as(some)

    wanted, away = naive_sparsegpt(weight, moment, chosen, 0.01)
    got, gone = sparsegpt(weight, moment, share, damping=0.01, block=8)
    assert torch.equal(gone, away)
    assert (got[gone] == 0).all()
    torch.testing.assert_close(got.double(), wanted, rtol=1e-3, atol=1e-4)


def test_the_others_make_good():
    x = correlated()
    moment = x.T @ x / len(x)
    weight = torch.randn(32, 24, generator=torch.Generator().manual_seed(1))
    wanda = weight.masked_fill(by_input(weight, moment.diagonal(), 0.5), 0)
    size = weight.masked_fill(masks.lowest(weight.abs(), 0.5), 0)
    best, gone = sparsegpt(weight, moment, 0.5)
    assert gone.float().mean() == 0.5 and (best[:, 5] == 0).all()
    errors = [relative_error(new - weight, weight, moment) for new in (best, wanda, size)]
    assert errors[0] < 0.8 * errors[1] < 0.8 * errors[2]
    # The error is the output's.
    wanted = (x @ (wanda - weight).T).square().sum() / (x @ weight.T).square().sum()
    assert errors[1] == pytest.approx(float(wanted), rel=1e-3)


def test_wanda_by_hand():
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0], [4.0, 0.5, 0.1, 2.0]])
    square = torch.tensor([16.0, 1.0, 0.25, 0.0])  # |x| is 4, 1, 0.5, 0: scores 4 2 1.5 0 and 16 0.5 0.05 0
    assert by_input(weight, square, 0.5).tolist() == [[False, False, True, True], [False, False, True, True]]
    assert by_input(weight, square, (1, 2)).tolist() == [[False, True, False, True]] * 2
    assert torch.equal(by_input(weight, torch.ones(4), 0.25), masks.lowest(weight.abs(), 0.25))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 6), st.floats(0, 0.99), st.booleans(), st.integers(0, 99))
def test_as_many_go_as_asked_for(rows, groups, group, share, flat, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, groups * group, generator=generator)
    scores = torch.zeros_like(scores) if flat else (scores * 4).round()  # many are equal
    gone = masks.lowest(scores, share)
    assert (gone.sum(1) == masks.whole(share * scores.shape[1])).all()
    assert all(row[g].max() <= row[~g].min() for row, g in zip(scores, gone, strict=True) if g.any())
    kept = ~masks.lowest_of_groups(scores, group - 1, group)
    assert (kept.unflatten(1, (-1, group)).sum(2) == group - 1).all()
    parts = [scores, torch.rand(3, 7, generator=generator)]
    every = masks.lowest_of_all(parts, share)
    count = masks.whole(share * (scores.numel() + 21))
    assert sum(int(g.sum()) for g in every) == count
    values = torch.cat([p.flatten() for p in parts])
    assert (
        torch.cat([p[g] for p, g in zip(parts, every, strict=True)]).sort().values.equal(values.sort().values[:count])
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_magnitude_in_every_family(family, tmp_path):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    sparse = pruned(model, None, method="magnitude", sparsity=0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    facts = sparse.extras["compression.prune"]
    layers = {layer.name: layer for layer in linears(sparse)}
    assert set(layers) == {n for n in (*facts["layers"], *facts["kept"]) if n in layers}
    for name, fact in facts["layers"].items():
        assert (layers[name].weight == 0).float().mean() == fact["sparsity"] == 0.5
        assert layers[name].weight.count_nonzero()
    assert facts["sparsity"] == 0.5 and 0 < facts["zeros"] < 0.5
    # A plain folder, with the zeros in it.
    sparse.network.save_pretrained(tmp_path)
    again = type(sparse.network).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**inputs(family))[0], outputs(sparse, family))
    assert not torch.equal(outputs(sparse, family), outputs(model, family))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox", "olmoe", "bert", "llava"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_with_text(family, method):
    model = tiny(family)
    sparse = pruned(model, method=method, pattern="2:4")
    facts = sparse.extras["compression.prune"]
    assert {layer.name for layer in linears(model) if layer.block is not None} == set(facts["layers"])
    assert all(0 < fact["error"] < 1 and fact["sparsity"] == 0.5 for fact in facts["layers"].values())
    for layer in linears(sparse):
        if layer.name in facts["layers"]:
            assert (layer.weight.unflatten(1, (-1, 4)).count_nonzero(-1) == 2).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_each_block_is_read_on_what_is_left_of_those_below(family):
    model = tiny(family)
    text = [Text("the quick brown fox jumps over the lazy dog, and ran")]
    windows = [model.tokenizer(text[0].text)["input_ids"]]
    dense = {layer.name: layer for layer in linears(model)}
    (name,) = (n for n, layer in dense.items() if layer.block == 2 and layer.role in ("k", "qkv"))
    gone = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sequential in (True, False):
            out = pruned(model, text, method="wanda", sparsity=0.6, sequential=sequential)
            thin = {layer.name: layer for layer in linears(out)}
            # Blocks from the third on do not change what the third is given.
            read = out if sequential else model
            square = collect(read, linears(read), windows)[name].moment.diagonal()
            gone[sequential] = thin[name].weight == 0
            assert torch.equal(gone[sequential], by_input(dense[name].weight, square, 0.6))
    assert not torch.equal(gone[True], gone[False])


def test_global_sizes_and_own_shares():
    model = tiny("llama")
    model.network.model.layers[1].mlp.down_proj.weight.data *= 0.01
    sparse = pruned(model, method="magnitude", scope="global", sparsity=0.3)
    facts = sparse.extras["compression.prune"]
    assert facts["sparsity"] == pytest.approx(0.3, abs=1e-4)
    assert facts["layers"]["model.layers.1.mlp.down_proj"]["sparsity"] > 0.95
    own = pruned(model, method="wanda", sparsity=0.5, ratios={"*.mlp.*": 0.25, "*.up_proj": 0.9}, skip=("*.q_proj",))
    facts = own.extras["compression.prune"]
    assert facts["layers"]["model.layers.0.mlp.up_proj"]["sparsity"] == 0.25  # the first that matches
    assert facts["layers"]["model.layers.0.self_attn.k_proj"]["sparsity"] == 0.5
    assert facts["kept"]["model.layers.0.self_attn.q_proj"] == "skip"
    assert own.identity.changes[-1]["config"]["ratios"] == {"*.mlp.*": 0.25, "*.up_proj": 0.9}


def test_half_precision_and_a_padded_row():
    model = tiny("llama", dtype=torch.bfloat16)
    sparse = pruned(model, sparsity=0.5)
    assert sparse.dtype == torch.bfloat16
    assert sparse.extras["compression.prune"]["sparsity"] == pytest.approx(0.5, abs=1e-3)


def test_notes():
    with pytest.warns(UserWarning, match="make nothing faster"):
        prune(tiny("llama"), method="magnitude")
    with pytest.warns(UserWarning, match="experts of this network stay"):
        moe = prune(tiny("mixtral"), method="magnitude")
    assert "a three-dimensional tensor of experts" in moe.extras["compression.prune"]["kept"].values()
    with pytest.warns(UserWarning, match="have more inputs than tokens"):
        prune(tiny("llama"), method="wanda", calibration=[Text("short")])


def test_bad_input():
    model = tiny("llama")
    fails(lambda: pruned(model, pattern="4:2"), "pattern 4:2", "0 < N < M")
    fails(lambda: pruned(model, pattern="2-4"), "pattern", "2-4")
    fails(lambda: pruned(model, pattern="2:4", sparsity=0.5), "is a sparsity of 50%")
    fails(lambda: pruned(model, pattern="2:5"), "not divisible by 5", "skip it")
    fails(lambda: pruned(model, scope="global"), "method magnitude")
    fails(lambda: pruned(model, ratios={"*.up_proj": 1.0}), "from 0 to below 1")
    fails(lambda: pruned(model, skip=("*.upproj",)), "no linear layer is called '*.upproj'")
    fails(lambda: pruned(model, skip=("*",)), "nothing to prune")
    fails(lambda: pruned(model, sparsity=1.0), "sparsity")
    fails(lambda: pruned(tiny("t5")), "encoder-decoder")
    fails(lambda: pruned(tiny("clip")), "does not run on a text alone")
    fails(lambda: pruned(wrap(model.network)), "no tokenizer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = quantize(model)
    fails(lambda: pruned(small), "quantize last")
    adapted = model.copy()
    put_beside(adapted.network, Guest(), {})
    for change in (prune, narrow, drop_blocks):
        fails(lambda change=change: change(adapted), "adapters stand beside", "merge them")
    assert PruneConfig().method == "sparsegpt"


def test_save_and_load(tmp_path):
    sparse = pruned(tiny("llama"), sparsity=0.5)
    again = load(str(sparse.save(tmp_path / "m")))
    assert torch.equal(outputs(again, "llama"), outputs(sparse, "llama"))
    assert again.extras["compression.prune"] == sparse.extras["compression.prune"]
