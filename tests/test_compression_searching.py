"""Sensitivity is the Fisher metric it says it is, and an allocation is as good as trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import intarsia as ia
from intarsia.compression.linears import linears
from intarsia.compression.searching.allocation import allocate
from intarsia.compression.searching.sensitivity import sensitivity
from intarsia.errors import BadInput
from tests.tiny import tiny


def ids(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(10, 250, (rows, tokens), generator=torch.Generator().manual_seed(0))


def test_moments_are_those_of_each_tokens_own_gradient():
    model = tiny("llama")
    layers = [layer for layer in linears(model) if layer.role in ("down", "q")]
    windows = ids(3, 12).tolist()
    found = sensitivity(model, layers, windows, seed=4)
    assert found.tokens == 36 and set(found.gradient) == {layer.name for layer in layers}
    assert all(p.grad is None and p.requires_grad for p in model.network.parameters())
    # Naive: the same draws, and the gradient by differentiating with respect to an output that is put in.
    generator = torch.Generator().manual_seed(4)
    logits = ia.run(model, torch.tensor(windows)).logits
    drawn = torch.multinomial(logits.flatten(0, 1).softmax(-1), 1, generator=generator)
    name = "layers.2.mlp_out"
    acts = ia.read(model, torch.tensor(windows), name)
    leaf = acts[name].clone().requires_grad_()
    out = ia.run(model, torch.tensor(windows), [ia.Replace(name, value=leaf)], grad=True).logits
    out.flatten(0, 1).log_softmax(-1).gather(1, drawn).sum().backward()
    rows = leaf.grad.flatten(0, 1).double()
    torch.testing.assert_close(
        found.gradient["model.layers.2.mlp.down_proj"].double(), rows.T @ rows / 36, rtol=1e-3, atol=1e-9
    )


def test_it_predicts_the_divergence_of_small_changes():
    model = tiny("llama").copy()
    layers, windows = linears(model), ids(16, 32)
    found = sensitivity(model, layers, windows.tolist())
    before = ia.run(model, windows).logits.double().log_softmax(-1)
    told, true = [], []
    generator = torch.Generator().manual_seed(1)
    for layer in layers:
        old = layer.weight.clone()
        change = 0.03 * old.std() * torch.randn(old.shape, generator=generator)
        layer.set(old + change)
        after = ia.run(model, windows).logits.double().log_softmax(-1)
        layer.set(old)
        told.append(found.of(layer.name, change))
        true.append(float((before.exp() * (before - after)).sum(-1).mean()))
    ratio = np.array(told) / np.array(true)
    assert np.corrcoef(np.log(told), np.log(true))[0, 1] > 0.8
    assert 0.4 < np.median(ratio) < 2.5


@pytest.mark.parametrize("seed", range(8))
def test_an_allocation_is_as_good_as_trying_everything(seed):
    draw = np.random.default_rng(seed)
    harms = [sorted(draw.exponential(size=int(draw.integers(2, 5))), reverse=True) for _ in range(6)]
    costs = [np.cumsum(draw.integers(1, 9, len(h))).astype(float).tolist() for h in harms]
    least, most = sum(c[0] for c in costs), sum(c[-1] for c in costs)
    budget = float(draw.uniform(least, most))
    best = min(
        sum(h[i] for h, i in zip(harms, some, strict=True))
        for some in itertools.product(*[range(len(h)) for h in harms])
        if sum(c[i] for c, i in zip(costs, some, strict=True)) <= budget
    )
    found = allocate(harms, costs, budget)
    assert found.harm == pytest.approx(best) and found.cost <= budget and found.bound <= best + 1e-9


def test_budgets_that_cannot_be_kept_and_that_do_not_bind():
    with pytest.raises(BadInput, match="cheapest choice of everything costs 3"):
        allocate([[1, 0], [1, 0]], [[1, 5], [2, 5]], 2)
    free = allocate([[1, 0], [1, 0]], [[1, 5], [2, 5]], 100)
    assert free.chosen == (1, 1) and free.harm == free.bound == 0
    assert allocate([], [], 1).chosen == ()
    assert allocate([[1, 1]], [[3, 2]], 3).chosen == (1,)  # of equal harms the cheaper


def test_layers_that_read_one_tensor_share_its_statistics():
    model = tiny("llama")
    found = sensitivity(model, linears(model), ids(2, 8).tolist()).stats
    for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        part = "self_attn" if "q_proj" in names else "mlp"
        assert len({id(found[f"model.layers.1.{part}.{name}"]) for name in names}) == 1
