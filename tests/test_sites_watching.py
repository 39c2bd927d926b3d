"""Watching modules: everything they are given and give, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import intarsia as ia
from intarsia.errors import BadInput
from intarsia.sites import resume, watching
from tests.tiny import tiny


def linears(model) -> dict[str, nn.Module]:
    return {name: m for name, m in model.network.named_modules() if isinstance(m, nn.Linear)}


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_a_linear_layer_is_seen_with_its_input_and_output():
    model = tiny("llama")
    before, seen = hooks(model.network), {}
    with watching(model, linears(model), lambda name, given, gave: seen.update({name: (given, gave)})):
        output = ia.run(model, ["some words", "more"])
    assert set(seen) == set(linears(model)) and hooks(model.network) == before
    for name, (given, gave) in seen.items():
        torch.testing.assert_close(model.network.get_submodule(name)(given), gave)
    torch.testing.assert_close(seen["lm_head"][1], output.logits)
    acts = ia.read(model, ["some words", "more"], ["layers.2.attn_in", "layers.2.mlp_act"])
    layer = "model.layers.2."
    torch.testing.assert_close(seen[layer + "self_attn.k_proj"][0], acts["layers.2.attn_in"])
    torch.testing.assert_close(seen[layer + "mlp.down_proj"][0], acts["layers.2.mlp_act"])


def test_a_single_block_runs_and_is_seen():
    model = tiny("llama")
    acts = ia.read(model, ["some words"], ["layers.0.resid_post", "layers.1.resid_post"])
    seen = []
    with watching(model, linears(model), lambda name, given, gave: seen.append(name)):
        out = resume(model, acts, after=0, at="layers.1.resid_post")
    assert {name.split(".")[2] for name in seen} == {"1"} and len(seen) == 7
    torch.testing.assert_close(out["layers.1.resid_post"], acts["layers.1.resid_post"])


def test_gradients_pass_where_outputs_are_seen():
    model = tiny("llama")
    got = {}

    def seen(name, given, gave):
        if gave.requires_grad:
            gave.register_hook(lambda g, name=name: got.update({name: g}))

    with watching(model, linears(model), seen):
        ia.run(model, ["some words"], grad=True).logits.square().sum().backward()
    assert set(got) == set(linears(model))
    model.network.zero_grad()


def test_nothing_is_left_when_something_fails():
    model = tiny("llama")
    before = hooks(model.network)

    def failing(name, given, gave):
        raise RuntimeError(name)

    with pytest.raises(RuntimeError), watching(model, linears(model), failing):
        ia.run(model, ["some words"])
    assert hooks(model.network) == before
    with (
        pytest.raises(BadInput, match="is no module of this network"),
        watching(model, {"x": nn.Linear(1, 1)}, failing),
    ):
        pass
