"""Gradients, integrated gradients and relevance propagation against naive formulas in float64 and against captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from intarsia.errors import BadInput
from intarsia.interpretation.attribution.methods import METHODS, attribute_one
from intarsia.interpretation.attribution.scores.baselines import baseline_embeddings
from intarsia.interpretation.explained import explain_text
from intarsia.sites import linearized, read, run
from tests.sites_help import hooks
from tests.tiny import tiny

FAMILIES = ["llama", "gpt2", "gemma3", "neox"]
TEXT = "abc de"


def exact(family: str, text: str = TEXT, **settings):
    return explain_text(tiny(family, dtype=torch.float64), text, **settings)


def naive(explained):
    """Embeddings of the tokens without positions, their sum with positions, and the gradient there."""
    network, ids = explained.model.network, torch.tensor([explained.ids])
    inside = network.get_input_embeddings()(ids).detach().requires_grad_()
    logits = network(inputs_embeds=inside).logits[0, -1]
    logits.log_softmax(-1).max().backward()
    places = network.transformer.wpe.weight[: ids.shape[1]] if hasattr(network, "transformer") else 0.0
    return (inside + places).detach()[0], inside.grad[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_networks_own(family):
    explained = exact(family)
    embeddings, slope = naive(explained)
    np.testing.assert_allclose(attribute_one(explained, "gradient"), slope.norm(dim=-1), rtol=1e-9)
    expected = (embeddings * slope).sum(-1)
    np.testing.assert_allclose(attribute_one(explained, "gradient_x_input"), expected, atol=1e-9)
    calm = attribute_one(explained, "smooth_grad", noise=1e-9, samples=2)
    np.testing.assert_allclose(calm, expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_integrated_gradients_are_captums_and_complete(family):
    explained = exact(family)
    whole = explained.embeddings()
    method = METHODS["integrated_gradients"]
    found = method.scored(explained, method.config(baseline="zero", steps=24))
    start = torch.zeros_like(whole)
    value = explained.value_at(torch.stack([whole, start])).detach()
    assert found.total == pytest.approx(float(value[0] - value[1]))
    attr = pytest.importorskip("captum.attr")
    theirs = attr.IntegratedGradients(explained.value_at).attribute(
        whole[None], baselines=start[None], n_steps=24, method="gausslegendre"
    )
    np.testing.assert_allclose(found.values, theirs[0].sum(-1).detach(), atol=1e-9)
    fine = method.scored(explained, method.config(baseline="neutral", steps=120))
    assert fine.gap < 1e-3


def test_more_steps_add_up_better_and_chunks_change_nothing(monkeypatch):
    explained = exact("llama")
    method = METHODS["integrated_gradients"]
    gaps = [method.scored(explained, method.config(steps=steps)).gap for steps in (1, 8, 64)]
    assert gaps[0] > gaps[1] > gaps[2]
    together = method(explained)
    monkeypatch.setattr("intarsia.interpretation.attribution.scores.gradients.TOKENS_PER_BATCH", 5 * len(TEXT))
    np.testing.assert_allclose(method(explained), together, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_baselines_exchange_the_text_and_nothing_else(family):
    explained = explain_text(tiny(family, bos=True), "ab c")
    assert 0 not in explained.features
    network, whole = explained.model.network, explained.embeddings()
    table = network.get_input_embeddings().weight.detach()
    places = network.transformer.wpe.weight.detach()[1:5] if family == "gpt2" else torch.zeros(4, 32)
    vocabulary = len(explained.model.tokenizer)
    expected = {"pad": table[0] + places, "neutral": table[0] + places, "zero": torch.zeros(4, 32)}
    expected["mean"] = table[:vocabulary].mean(0) + places
    for name, value in expected.items():
        start = baseline_embeddings(explained, name, whole)
        assert torch.equal(start[0], whole[0]), name
        torch.testing.assert_close(start[1:], value, atol=1e-6, rtol=0)
    with pytest.raises(BadInput, match="no mask token"):
        baseline_embeddings(explained, "mask", whole)


def relevance(explained, share: float):
    """Relevance propagation through a Llama, written out: constant statistics and patterns, halves in products."""
    network, ids = explained.model.network, torch.tensor([explained.ids])
    pattern = read(explained.model, ids, "layers.*.pattern")

    def norm(module, x):
        scale = (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt().detach()
        return x * scale * module.weight

    start = network.model.embed_tokens(ids).detach().requires_grad_()
    x = start
    for i, block in enumerate(network.model.layers):
        attention = block.self_attn
        v = attention.v_proj(norm(block.input_layernorm, x)).unflatten(-1, (2, 8)).repeat_interleave(2, dim=2)
        v = share * v + (1 - share) * v.detach()
        z = torch.einsum("bqhk,bkhd->bqhd", pattern[f"layers.{i}.pattern"].detach(), v)
        x = x + attention.o_proj(z.flatten(-2))
        inside = norm(block.post_attention_layernorm, x)
        g, u = block.mlp.gate_proj(inside), block.mlp.up_proj(inside)
        line = g * torch.sigmoid(g).detach()  # silu(g) = g sigmoid(g)
        product = 0.5 * (line * u.detach() + F.silu(g).detach() * u)
        x = x + block.mlp.down_proj(product)
    logits = network.lm_head(norm(network.model.norm, x))[0, -1]
    answer = logits.argmax()
    (slope,) = torch.autograd.grad(logits[answer] - (logits.softmax(-1).detach() * logits).sum(), start)
    return (slope * start).sum(-1)[0].detach()


def test_relevance_propagation_is_the_written_out_one():
    explained = exact("llama")
    expected = relevance(explained, share=1.0)
    np.testing.assert_allclose(attribute_one(explained, "lrp"), expected, atol=1e-6)  # its norms are float32
    for block in explained.model.network.model.layers:  # without queries only values have a share to give
        block.self_attn.q_proj.weight.data.zero_()
    explained = explain_text(explained.model, TEXT)
    shared = attribute_one(explained, "lrp", attention="shared")
    np.testing.assert_allclose(shared, relevance(explained, 0.5), atol=1e-6)
    assert np.abs(shared - attribute_one(explained, "lrp")).max() > 1e-2


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3", "granite"])
def test_relevance_is_conserved_where_there_are_no_biases(family):
    model = tiny(family, dtype=torch.float64)
    for name, parameter in model.network.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    found = METHODS["lrp"].scored(explain_text(model, TEXT, new_tokens=2))
    assert found.total is not None and abs(found.total) > 1e-2
    assert found.gap < 1e-6
    assert len(found.values) == len(TEXT) and abs(float(found.values.sum()) - found.total) > 1e-4  # the tail's share


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
@pytest.mark.parametrize("attention", ["frozen", "shared"])
def test_linearized_networks_say_the_same_and_are_left_as_they_were(family, attention):
    model = tiny(family)
    before = hooks(model.network)
    plain = run(model, ["Some text", "x"]).logits
    with linearized(model, attention) as edits:
        inside = run(model, ["Some text", "x"], edits=edits).logits
        graph = run(model, ["Some text", "x"], edits=edits, grad=True).logits
    real = torch.tensor([[True] * 9, [True] + [False] * 8])
    torch.testing.assert_close(inside[real], plain[real], atol=1e-6, rtol=0)
    torch.testing.assert_close(graph[real].detach(), plain[real], atol=1e-6, rtol=0)
    assert hooks(model.network) == before


def test_relevance_in_a_mixture_of_experts_is_refused():
    with pytest.raises(BadInput, match="mixture of experts"):
        attribute_one(explain_text(tiny("mixtral"), TEXT), "lrp")


def test_frozen_parameters_are_no_obstacle():
    model = tiny("llama")
    expected = {m: attribute_one(explain_text(model, TEXT), m) for m in ("lrp", "gradient", "grad_sam")}
    model.network.requires_grad_(False)
    for name, scores in expected.items():
        torch.testing.assert_close(attribute_one(explain_text(model, TEXT), name), scores)
