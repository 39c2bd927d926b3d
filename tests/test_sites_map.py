"""The site map: derived from the network, checked against the architecture's own arithmetic."""

import pytest
import torch
from torch import nn

from intarsia.errors import BadInput
from intarsia.sites import read, site_map
from tests.sites_help import attention_names, hooks
from tests.tiny import CAUSAL, FAMILIES, MOE, inputs, tiny

FORMS = {
    "neox": {"": "parallel"},
    "bert": {"": "post-norm"},
    "bert-encoder": {"": "post-norm"},
    "t5": {"encoder": "pre-norm", "decoder": "pre-norm"},
    "clip": {"text": "pre-norm", "vision": "pre-norm"},
    "siglip": {"text": "pre-norm", "vision": "pre-norm"},
    "blip": {"vision": "pre-norm", "text": "post-norm"},
    "llava": {"vision": "pre-norm", "text": "pre-norm"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_its_map(family):
    model = tiny(family)
    sites = model.sites
    expected = FORMS.get(family, {"": "pre-norm"})
    assert {name: {w.form for w in blocks} for name, blocks in sites.wiring.items()} == {
        name: {form} for name, form in expected.items()
    }
    assert sites.note == ""
    for prefix in (tower.prefix for tower in sites.towers.values()):
        for site in ("resid_pre", "resid_post", "attn_out", "mlp_out", "z"):
            assert f"{prefix}layers.0.{site}" in sites
    if family != "llava":  # transformers keeps capturing hooks of its own there
        assert hooks(model.network) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_added_sums_to_what_the_stream_gained(family):
    model = tiny(family)
    sites, x = model.sites, inputs(family)
    for name, tower in sites.towers.items():
        for i, wiring in enumerate(sites.wiring[name]):
            at = [f"{tower.prefix}layers.{i}.{s}" for s in wiring.taps if s not in ("scores", "pattern")]
            acts = read(model, x, at)
            got = {key.rsplit(".", 1)[1]: value.double() for key, value in acts.items()}
            total = got["resid_pre"] + got["attn_out"] + got.get("cross_out", 0)
            if wiring.form == "pre-norm":
                torch.testing.assert_close(got["resid_mid"], total, atol=1e-4, rtol=1e-4)
            if wiring.form != "post-norm":
                torch.testing.assert_close(got["resid_post"], total + got["mlp_out"], atol=1e-4, rtol=1e-4)
            else:
                # A normed stream: the layer norm's own weights make it from the sum.
                norms = [m for m in tower.blocks[i].modules() if isinstance(m, nn.LayerNorm)]
                candidates = [n((got["resid_mid"] + got["mlp_out"]).float()).double() for n in norms]
                assert min((c - got["resid_post"]).abs().max() for c in candidates) < 1e-4


def test_a_scaled_block_reports_what_is_added_not_what_the_module_gives():
    model = tiny("granite")
    acts = read(model, inputs("granite"), ["layers.1.attn_out", "layers.1.resid_pre", "layers.1.resid_mid"])
    gained = acts["layers.1.resid_mid"] - acts["layers.1.resid_pre"]
    torch.testing.assert_close(acts["layers.1.attn_out"], gained, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_heads_multiply_to_what_attention_adds(family):
    model = tiny(family)
    acts = read(model, inputs(family), ["layers.2.z", "layers.2.pattern", "layers.2.v"])
    z, pattern, v = acts["layers.2.z"], acts["layers.2.pattern"], acts["layers.2.v"]
    groups = z.shape[2] // v.shape[2]
    naive = torch.einsum("bqhk,bkhd->bqhd", pattern.double(), v.repeat_interleave(groups, 2).double())
    real = acts.mask[..., None, None]
    torch.testing.assert_close((z.double() * real), naive * real, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5", "clip", "neox"])
def test_scores_and_mask_make_the_pattern(family):
    model = tiny(family)
    prefix = model.sites.main.prefix
    acts = read(model, inputs(family, side=None), [f"{prefix}layers.1.scores", f"{prefix}layers.1.pattern"])
    scores, pattern = acts[f"{prefix}layers.1.scores"].double(), acts[f"{prefix}layers.1.pattern"]
    if family not in ("bert",):
        length = scores.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        scores = scores.masked_fill(~allowed[None, :, None, :], float("-inf"))
    torch.testing.assert_close(scores.softmax(-1).float(), pattern, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", MOE)
def test_router_sites(family):
    model = tiny(family)
    acts = read(model, inputs(family), ["layers.0.router", "layers.0.router_weights", "layers.0.router_experts"])
    logits, experts = acts["layers.0.router"], acts["layers.0.router_experts"]
    assert logits.shape[:2] == acts.mask.shape
    assert torch.equal(experts, logits.float().softmax(-1).topk(2).indices)
    assert acts["layers.0.router_weights"].shape == experts.shape
    assert "fused" in model.sites.disabled["layers.0.mlp_act"]


def test_patterns_expand_in_block_order():
    sites = tiny("llama").sites
    assert sites.expand("layers.*.resid_post") == [f"layers.{i}.resid_post" for i in range(4)]
    assert sites.expand("layers.1:3.mlp_out") == ["layers.1.mlp_out", "layers.2.mlp_out"]
    assert sites.expand("layers.-1.z") == ["layers.3.z"]
    assert sites.expand(["embed", "logits", "embed"]) == ["embed", "logits"]
    assert tiny("llava").sites.expand("layers.0.z") == ["text.layers.0.z"]  # a bare name means the main tower
    assert tiny("clip").sites.expand("vision.layers.*.z")[-1] == "vision.layers.2.z"


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("layers.1.resid_pots", "did you mean layers.1.resid_post"),
        ("layers.9.resid_post", "layer 9 of 4 does not exist"),
        ("layers.x.resid_post", "'x' is no layer"),
        ("vision.layers.0.z", "no site"),
        ("nonsense", "no site 'nonsense'"),
    ],
)
def test_unknown_sites_say_what_there_is(site, says):
    with pytest.raises(BadInput, match=says):
        tiny("llama").sites.expand(site)


def test_a_disabled_site_says_why():
    with pytest.raises(BadInput, match="parallel"):
        tiny("neox").sites.expand("layers.1.resid_mid")
    with pytest.raises(BadInput, match="parallel"):
        tiny("neox").sites.expand("layers.*.resid_mid")


def test_it_prints_as_a_tree():
    text = str(tiny("neox").sites)
    assert "layers.0..3.resid_post" in text and "not here:" in text and "parallel" in text


class _Strange(nn.Module):
    """A block whose output is no sum of its parts."""

    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn = nn.Linear(32, 32)
        self.gate = nn.Linear(32, 32)

    def forward(self, hidden_states, **kwargs):
        return hidden_states * torch.sigmoid(self.gate(self.self_attn(hidden_states)))


def test_an_unknown_block_keeps_what_is_certain_and_says_what_is_missing():
    model = tiny("llama")
    from transformers.modeling_layers import GradientCheckpointingLayer

    class StrangeLayer(GradientCheckpointingLayer, _Strange):
        forward = _Strange.forward

    model.network.model.layers = nn.ModuleList(StrangeLayer(None, i) for i in range(3))
    sites = model.sites
    assert "layers.2.resid_post" in sites and "layers.2.attn_out" not in sites
    assert "no modules of StrangeLayer were found whose outputs sum" in sites.disabled["layers.0.attn_out"]
    assert read(model, inputs("llama"), "layers.*.resid_post")["layers.2.resid_post"].shape == (2, 10, 32)


def test_no_blocks_says_what_was_looked_for():
    with pytest.raises(BadInput, match="no stack of blocks found in Linear"):
        site_map(nn.Linear(2, 2))


def test_the_map_follows_the_network():
    from peft import LoraConfig, get_peft_model

    model = tiny("llama")
    before = model.sites
    assert model.sites is before
    network = get_peft_model(model.network, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    adapted = model.with_network(network)
    acts = read(adapted, inputs("llama"), ["layers.1.mlp_act", "layers.1.z", "logits"])
    assert acts["layers.1.mlp_act"].shape == (2, 10, 48)
    assert torch.equal(acts["logits"], read(tiny("llama"), inputs("llama"), "logits")["logits"])


def test_compiled_networks_are_refused():
    model = tiny("llama")
    model.network.compile()
    with pytest.raises(BadInput, match="compiled"):
        _ = model.sites


def test_attention_is_put_back_after_the_probe():
    model = tiny("t5")
    before = attention_names(model.network)
    _ = model.sites
    assert attention_names(model.network) == before
