"""Attention as explanation and as pictures: against matrices multiplied by hand, differences, and made-up graphs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import attention
from intarsia.interpretation.attention import AttentionView
from intarsia.interpretation.attention.scores.patterns import readouts
from intarsia.interpretation.attention.scores.rollout import max_flow, mixed
from intarsia.interpretation.attention.scores.weighted import layer_attribution
from intarsia.interpretation.attention.viewing import head_sums
from intarsia.interpretation.attribution.methods import attribute_one
from intarsia.interpretation.explained import explain_text
from intarsia.report import Finding
from intarsia.sites import Add, Scale
from tests.tiny import tiny

FAMILIES = ["llama", "gpt2", "neox"]


def attentions(explained) -> list[torch.Tensor]:
    """[head, query, key] of each layer, from transformers itself."""
    network = explained.model.network
    network.set_attn_implementation("eager")
    with torch.no_grad():
        out = network(torch.tensor([explained.ids]), output_attentions=True)
    return [a[0].double() for a in out.attentions]


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_is_the_product_of_matrices(family):
    explained = explain_text(tiny(family, dtype=torch.float64), "abc de")
    product = np.eye(6)
    for a in attentions(explained):
        product = (0.5 * a.mean(0).numpy() + 0.5 * np.eye(6)) @ product
    np.testing.assert_allclose(attribute_one(explained, "attention_rollout"), product[-1], atol=1e-7)
    product = np.eye(6)
    for a in attentions(explained):
        top = a.amax(0).numpy()
        product = (0.8 * top / top.sum(-1, keepdims=True) + 0.2 * np.eye(6)) @ product
    scores = attribute_one(explained, "attention_rollout", heads="max", residual=0.2)
    np.testing.assert_allclose(scores, product[-1], atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_value_weighted_attention_is_the_length_of_what_is_moved(family):
    explained = explain_text(tiny(family, dtype=torch.float64), "abc d")
    from intarsia.sites import read

    ids = torch.tensor([explained.ids])
    values = read(explained.model, ids, "layers.*.v")
    product = np.eye(5)
    for i, a in enumerate(attentions(explained)):
        v = values[f"layers.{i}.v"][0]
        v = v.repeat_interleave(4 // v.shape[1], dim=1)
        block = explained.model.sites.blocks[i]
        projection = {
            "llama": lambda b: b.self_attn.o_proj.weight.T,
            "gpt2": lambda b: b.attn.c_proj.weight,
            "neox": lambda b: b.attention.dense.weight.T,
        }[family](block).detach()
        out = torch.einsum("khd,hdw->hkw", v, projection.unflatten(0, (4, 8)))
        length = torch.stack([(a[:, :, k, None] * out[:, k, None]).sum(0).norm(dim=-1) for k in range(5)], dim=1)
        length = length.detach().numpy()
        product = (0.5 * length / length.sum(-1, keepdims=True) + 0.5 * np.eye(5)) @ product
    np.testing.assert_allclose(attribute_one(explained, "value_weighted_attention"), product[-1], atol=1e-6)


def test_flow_on_a_graph_made_by_hand():
    pytest.importorskip("scipy")
    # Two blocks over three tokens, rows are queries. From token 2 at the top: 0.6 to 0, 0.4 to 2.
    top = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.6, 0, 0.4]], dtype=torch.float64)
    bottom = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.3, 0.6, 0.1]], dtype=torch.float64)
    # To 0: 0.6 by way of 0, and 0.3 of the 0.4 by way of 2. To 1: min(0.4, 0.6). To 2: min(0.4, 0.1).
    assert [max_flow([bottom, top], 2, token) for token in range(3)] == pytest.approx([0.9, 0.4, 0.1])
    rolled = (top @ bottom)[2]
    assert all(max_flow([bottom, top], 2, token) >= float(rolled[token]) - 1e-6 for token in range(3))


def test_flow_of_a_network_bounds_its_rollout():
    pytest.importorskip("scipy")
    explained = explain_text(tiny("llama"), "abc de")
    flow, rollout = (attribute_one(explained, f"attention_{name}") for name in ("flow", "rollout"))
    assert bool((flow >= rollout - 1e-4).all()) and bool((flow <= 1 + 1e-6).all())
    mixing = [mixed(a.mean(0), 0.5) for a in attentions(explained)]
    assert float(flow[3]) == pytest.approx(max_flow(mixing, 5, 3))


def test_attention_times_gradient_against_differences():
    explained = explain_text(tiny("gpt2", dtype=torch.float64), "abc")  # a Llama norms in float32
    found = attentions(explained)
    slope = np.zeros((4, 4, 3, 3))
    step = 1e-4
    for layer in range(4):
        for head in range(4):
            for query in range(3):
                for key in range(query + 1):
                    bump = torch.zeros(4, 3, dtype=torch.float64)
                    bump[head, key] = 1.0
                    ends = []
                    for sign in (step, -step):
                        edit = Add(f"layers.{layer}.pattern", at=query, value=bump, factor=sign)
                        with torch.no_grad():
                            ends.append(float(explained.value_with([], [edit])[0]))
                    slope[layer, head, query, key] = (ends[0] - ends[1]) / (2 * step)
    weights = torch.stack(found).numpy()
    product = (weights * slope).sum((0, 1, 2))
    np.testing.assert_allclose(attribute_one(explained, "attention_x_gradient"), product, atol=1e-6)
    positive = (weights * slope.clip(0)).mean((0, 1, 2))
    np.testing.assert_allclose(attribute_one(explained, "grad_sam"), positive, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_attribution_adds_up_layer_by_layer(family):
    explained = explain_text(tiny(family, dtype=torch.float64), "abc de")
    along = (torch.arange(200) + 0.5) / 200
    total = torch.zeros(6, dtype=torch.float64)
    for layer in range(4):
        name = f"layers.{layer}.pattern"
        found = layer_attribution(explained, name, along)
        with torch.no_grad():
            without = explained.value_with([], [Scale(name, factor=0.0)])[0]
        assert float(found.sum()) == pytest.approx(float(explained.value() - without), rel=1e-3, abs=1e-6)
        total += found.sum((0, 1)) / 4
    np.testing.assert_allclose(attribute_one(explained, "attention_attribution", steps=200), total, atol=1e-12)


def test_the_choice_is_read_at_each_of_its_steps():
    explained = explain_text(tiny("llama"), "abcd", new_tokens=3)
    assert readouts(explained, torch.eye(6)[None]) == [3, 4, 5]


def test_scores_of_heads_made_by_hand():
    length = 6
    previous = torch.zeros(length, length, dtype=torch.float64)
    for i in range(length):
        previous[i, max(i - 1, 0)] = 1
    rest = torch.zeros_like(previous)
    rest[:, 0] = 1
    even = torch.ones_like(previous).tril()
    even = even / even.sum(-1, keepdim=True)
    sums = head_sums(torch.stack([previous, rest, even]), causal=True) / (length - 2)
    seen = [1 / n for n in range(3, 7)]
    expected = [[0, 1, 0], [0, 0, 1], [1, np.mean(seen), np.mean(seen)]]
    np.testing.assert_allclose(sums, expected, atol=1e-12)


def test_the_induction_score_looks_one_past_the_same_token():
    from intarsia.interpretation.attention import viewing

    model = tiny("llama", bos=True)
    seen = {}

    def made(model, ids, layers):
        ids = ids[0].tolist()
        pattern = torch.zeros(1, len(ids), len(ids), dtype=torch.float64)
        for query, token in enumerate(ids):
            before = [k for k in range(query) if ids[k] == token]
            pattern[0, query, before[-1] + 1 if before else 0] = 1
        seen["ids"] = ids
        return dict.fromkeys(layers, pattern)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewing, "_patterns", made)
        found = viewing._induction(model, [0], 7, seed=0)
    assert len(seen["ids"]) == 15 and seen["ids"][1:8] == seen["ids"][8:]
    assert float(found[0][0]) == 1


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bert"])
def test_the_view_reads_saves_and_draws(family):
    model = tiny(family)
    found = attention(model, texts=["The first text here.", "And another"], picture_tokens=5)
    assert len(found.heads) == len(model.sites.blocks) * 4
    assert found.positions == len("The first text here.") + len("And another") - 4
    for head in found.heads:
        assert 0 <= head.entropy <= 1 and 0 <= head.previous <= 1 and 0 <= head.first <= 1
        assert (head.induction is None) == (family == "bert")
    again = Finding.from_json(found.to_json())
    assert isinstance(again, AttentionView) and again == found
    assert all(len(p.tokens) == 5 for p in found.pictures) and "first token" in str(found)
    a = attention(model, prompt="The first text here.", layer=-1, head=2, picture_tokens=20).pictures[0]
    expected = attentions(explain_text(model, "The first text here.") if family != "bert" else Ids(model))[-1][2]
    np.testing.assert_allclose(a.pattern, expected, atol=1e-5)
    row = np.array(a.pattern)[10]
    assert row.sum() == pytest.approx(1, abs=1e-5) and math.isfinite(row.max())


class Ids:
    def __init__(self, model):
        self.model, self.ids = model, model.encode(["The first text here."])["input_ids"][0].tolist()


def test_bad_input():
    model = tiny("llama")
    with pytest.raises(BadInput, match="no text was given"):
        attention(model)
    with pytest.raises(BadInput, match="both, or neither"):
        attention(model, prompt="A text", layer=1)
    with pytest.raises(BadInput, match="no head 9 in layer 1: there are 4 layers of 4 heads"):
        attention(model, prompt="A text", layer=1, head=9)
    with pytest.raises(BadInput, match="shorter than three"):
        attention(model, prompt="A")
