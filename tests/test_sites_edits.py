"""Edits: writing back what was read is nothing; everything else is where and what was asked for."""

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.sites import Add, Apply, Replace, Scale, generate, read, run
from tests.sites_help import output, plain, writable
from tests.tiny import CAUSAL, FAMILIES, MOE, inputs, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_back_what_was_read_changes_nothing(family):
    model, x = tiny(family), inputs(family)
    base = plain(model, x)
    acts = read(model, x, writable(model.sites))
    for site in acts:
        after = output(run(model, x, [Replace(site, value=acts[site])]))
        assert torch.equal(after, base), site


@pytest.mark.parametrize("family", FAMILIES)
def test_every_writable_site_has_an_effect(family):
    model, x = tiny(family), inputs(family)
    base = plain(model, x)
    unused = {"llava": {"vision.layers.2."}}.get(family, set())  # a layer above the one that is used
    for site in writable(model.sites):
        if any(site.startswith(u) for u in unused) or (family == "siglip" and site == "logits"):
            continue
        if site.endswith("router_experts"):
            edit = Apply(site, function=lambda t: (t + 1) % 4)
        elif site.endswith(("scores", "pattern")):
            edit = Apply(site, function=lambda t: t.roll(1, dims=-1) * 1.7)
        elif site.endswith(".k") or site.endswith(".q"):
            edit = Apply(site, function=lambda t: t * torch.linspace(0.2, 3, t.shape[1])[None, :, None, None])
        else:
            edit = Apply(site, function=lambda t: t * 1.5 + 0.3 * torch.linspace(-1, 1, t.shape[-1]))
        assert not torch.equal(output(run(model, x, [edit])), base), site


def test_zeroing_all_heads_is_zeroing_attention():
    model, x = tiny("llama"), inputs("llama")
    by_heads = run(model, x, [Scale("layers.1.z", factor=0)]).logits
    by_output = run(model, x, [Scale("layers.1.attn_out", factor=0)]).logits
    mask = x["attention_mask"].bool()
    torch.testing.assert_close(by_heads[mask], by_output[mask])


def test_one_head_alone():
    model, x = tiny("llama"), inputs("llama", side=None)
    acts = read(model, x, "layers.1.z", edits=[Scale("layers.1.z", heads=2, factor=0)])
    base = read(model, x, "layers.1.z")["layers.1.z"]
    z = acts["layers.1.z"]
    assert z[:, :, 2].abs().max() == 0
    assert torch.equal(z[:, :, [0, 1, 3]], base[:, :, [0, 1, 3]])


@pytest.mark.parametrize("family", ["llama", "gemma3", "granite", "t5"])
def test_editing_the_middle_of_a_block_reaches_only_what_follows(family):
    model, x = tiny(family), inputs(family, side=None)
    prefix = model.sites.main.prefix
    sites = [f"{prefix}layers.1.{s}" for s in ("attn_out", "resid_mid", "mlp_in", "resid_post")]
    base = read(model, x, sites)
    value = torch.randn(32, generator=torch.Generator().manual_seed(3))
    acts = read(model, x, sites, edits=[Replace(sites[1], at=2, value=value)])
    torch.testing.assert_close(acts[sites[1]][:, 2], value.expand(2, -1), atol=1e-5, rtol=1e-5)
    keep = [t for t in range(acts[sites[1]].shape[1]) if t != 2]
    assert torch.equal(acts[sites[1]][:, keep], base[sites[1]][:, keep])
    assert torch.equal(acts[sites[3]][:, keep], base[sites[3]][:, keep])  # the MLP mixes no tokens
    assert not torch.equal(acts[sites[3]][:, 2], base[sites[3]][:, 2])


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_are_those_of_the_unpadded_prompt(side):
    model = tiny("llama")
    texts = ["abc", "abcdefg"]
    value = torch.ones(32)
    for at in (0, 1, -1, [0, -1], slice(1, 3)):
        acts = read(
            model, texts, "layers.1.resid_post", side=side, edits=[Replace("layers.1.resid_post", at=at, value=value)]
        )
        for row, text in enumerate(texts):
            real = acts["layers.1.resid_post"][row][acts.mask[row]]
            want = torch.zeros(len(text), dtype=torch.bool)
            want[at if not isinstance(at, list) else torch.tensor(at)] = True
            assert torch.equal((real == 1).all(-1), want)


def test_values_broadcast_by_row_and_position():
    model, x = tiny("llama"), inputs("llama", side=None)

    def written(**kwargs):
        site = "layers.0.resid_post"
        return read(model, x, site, edits=[Replace(site, **kwargs)])[site]

    per_row = torch.arange(64.0).reshape(2, 32)
    assert torch.equal(written(at=3, value=per_row)[:, 3], per_row)
    per_position = torch.arange(96.0).reshape(3, 32)
    assert torch.equal(written(at=[1, 4, 6], value=per_position)[1, [1, 4, 6]], per_position)
    both = torch.arange(128.0).reshape(2, 2, 32)
    assert torch.equal(written(at=[0, 5], value=both)[:, [0, 5]], both)
    assert torch.equal(written(at=2, rows=[1], value=per_row[0])[1, 2], per_row[0])
    base = read(model, x, "layers.0.resid_post")["layers.0.resid_post"]
    assert torch.equal(written(at=2, rows=[1], value=per_row[0])[0], base[0])
    assert torch.equal(written(at=2, value=7.0)[:, 2], torch.full((2, 32), 7.0))


def test_add_scale_apply():
    model, x = tiny("llama"), inputs("llama", side=None)
    site = "layers.2.mlp_out"
    base = read(model, x, site)[site]
    direction = torch.randn(32)
    got = read(model, x, site, edits=[Add(site, at=1, value=direction, factor=2.0)])[site]
    torch.testing.assert_close(got[:, 1], base[:, 1] + 2 * direction)
    got = read(model, x, site, edits=[Scale(site, at=1, factor=0.5), Apply(site, at=1, function=torch.neg)])[site]
    torch.testing.assert_close(got[:, 1], -0.5 * base[:, 1])


def test_patterns_edit_many_sites():
    model, x = tiny("llama"), inputs("llama", side=None)
    got = run(model, x, [Scale("layers.*.attn_out", factor=0)]).logits
    one = run(model, x, [Scale(f"layers.{i}.attn_out", factor=0) for i in range(4)]).logits
    assert torch.equal(got, one)


def test_forcing_the_pattern_changes_what_heads_see():
    model, x = tiny("llama"), inputs("llama", side=None)
    first = torch.zeros(10)
    first[0] = 1.0
    acts = read(model, x, ["layers.1.z", "layers.1.v"], edits=[Replace("layers.1.pattern", value=first.expand(4, 10))])
    v = acts["layers.1.v"].repeat_interleave(2, dim=2)
    torch.testing.assert_close(acts["layers.1.z"], v[:, :1].expand(-1, 10, -1, -1))


@pytest.mark.parametrize("family", MOE)
def test_forcing_experts(family):
    model, x = tiny(family), inputs(family, side=None)
    site = "layers.1.router_experts"
    acts = read(model, x, ["layers.1.mlp_out"], edits=[Replace(site, value=torch.tensor([0, 1]))])
    other = read(model, x, ["layers.1.mlp_out"], edits=[Replace(site, value=torch.tensor([2, 3]))])
    assert not torch.allclose(acts["layers.1.mlp_out"], other["layers.1.mlp_out"])
    with pytest.raises(BadInput, match="can only be read"):
        run(model, x, [Scale("layers.1.router", factor=0)])


def test_edits_keep_gradients():
    model, x = tiny("llama"), inputs("llama", side=None)
    vector = torch.randn(32, requires_grad=True)
    run(model, x, [Add("layers.1.resid_post", at=-1, value=vector)], grad=True).logits[0, -1, 3].backward()
    assert vector.grad is not None and vector.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (Replace("layers.1.resid_post", at=40, value=0.0), "outside row 0, which has 10 tokens"),
        (Replace("layers.1.resid_post", rows=[7], value=0.0), "row 7 of a batch of 2"),
        (Replace("layers.1.resid_post", at=0, value=torch.zeros(5)), "does not fit"),
        (Scale("layers.1.resid_post", heads=1), "no head axis"),
        (Scale("layers.1.z", heads=9), "head 9 does not exist"),
        (Scale("layers.1.resid_pots"), "did you mean"),
        (Apply("layers.1.resid_post", function=lambda t: t[:1]), "must return the shape"),
    ],
)
def test_bad_edits_say_what_is_wrong(edit, says):
    with pytest.raises(BadInput, match=says):
        run(tiny("llama"), inputs("llama", side=None), [edit])


# ---- generation


def by_hand(model, ids, mask, edits, steps):
    """Token-by-token decoding without a cache, every step a full forward with the edits at the prompt's positions."""
    for _ in range(steps):
        logits = run(model, {"input_ids": ids, "attention_mask": mask}, edits).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1)[:, None]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids[:, -steps:]


@pytest.mark.parametrize("family", CAUSAL)
def test_generation_with_an_edit_equals_decoding_by_hand(family):
    model = tiny(family)
    x = inputs(family, side="left")
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    model.network.generation_config.eos_token_id = None
    for layer, at in ((0, 1), (2, 3)):
        got = generate(model, x, [Replace(f"layers.{layer}.resid_post", at=at, value=vector)], max_new_tokens=6).ids
        # by hand the same absolute positions are meant, also when the prompt has grown
        real = x["attention_mask"].sum(1)
        edits = [Replace(f"layers.{layer}.resid_post", at=at, value=vector)]
        want = by_hand(model, x["input_ids"], x["attention_mask"], edits, 6)
        assert real.tolist() == [10, 7]
        assert torch.equal(got, want)
    # the vector is large enough to be seen
    strong = generate(model, x, [Replace("layers.2.resid_post", value=8 * vector)], max_new_tokens=6).ids
    assert not torch.equal(strong, generate(model, x, max_new_tokens=6).ids)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_an_edit_at_every_new_token(family):
    model = tiny(family)
    x = inputs(family, side=None)
    model.network.generation_config.eos_token_id = None
    vector = 2 * torch.randn(32, generator=torch.Generator().manual_seed(1))
    got = generate(model, x, [Add("layers.1.resid_post", value=vector, when="always")], max_new_tokens=5).ids
    want = by_hand(model, x["input_ids"], x["attention_mask"], [Add("layers.1.resid_post", value=vector)], 5)
    assert torch.equal(got, want)


def test_a_prompt_of_one_token_is_edited_once():
    model = tiny("llama")
    model.network.generation_config.eos_token_id = None
    ids, vector = torch.tensor([[42]]), torch.full((32,), 0.7)
    edits = [Replace("layers.1.resid_post", at=0, value=vector)]
    got = generate(model, ids, edits, max_new_tokens=5).ids
    assert torch.equal(got, by_hand(model, ids, torch.ones_like(ids), edits, 5))


def test_padding_does_not_change_what_is_generated():
    model = tiny("llama")
    texts = ["one two", "a", "something longer than that"]
    together = generate(model, texts, [Scale("layers.1.mlp_out", at=-1, factor=0)], max_new_tokens=6)
    for text, got in zip(texts, together.texts, strict=True):
        assert generate(model, [text], [Scale("layers.1.mlp_out", at=-1, factor=0)], max_new_tokens=6).texts == [got]


def test_encoder_decoder_generation():
    model, x = tiny("t5"), inputs("t5", side=None)
    x.pop("decoder_input_ids")
    plainly = generate(model, x, max_new_tokens=5, eos_token_id=None).ids
    with torch.no_grad():
        want = model.network.generate(**x, max_new_tokens=5, do_sample=False, eos_token_id=None)[:, 1:]
    assert torch.equal(plainly, want)
    edited = generate(model, x, [Scale("encoder.layers.1.resid_post", factor=0.2)], max_new_tokens=5, eos_token_id=None)
    assert not torch.equal(edited.ids, plainly)


def test_beams_and_sampling_are_those_of_the_network():
    model, x = tiny("llama"), inputs("llama", side=None)
    beams = generate(
        model, x, [Add("layers.1.resid_post", at=2, value=torch.ones(2, 32))], num_beams=3, max_new_tokens=4
    )
    assert beams.ids.shape[0] == 2
    one = generate(model, x, do_sample=True, seed=3, max_new_tokens=8).ids
    assert torch.equal(one, generate(model, x, do_sample=True, seed=3, max_new_tokens=8).ids)
    assert not torch.equal(one, generate(model, x, do_sample=True, seed=4, max_new_tokens=8).ids)


def test_networks_that_cannot_generate_say_so():
    with pytest.raises(BadInput, match="cannot generate"):
        generate(tiny("bert-encoder"), ["text"])


def test_edits_of_attention_come_before_edits_of_the_middle():
    model, x = tiny("llama"), inputs("llama", side=None)
    edits = [Add("layers.1.resid_mid", value=torch.ones(32)), Scale("layers.1.attn_out", factor=0)]
    acts = read(model, x, ["layers.1.resid_pre", "layers.1.resid_mid"], edits=edits)
    torch.testing.assert_close(acts["layers.1.resid_mid"], acts["layers.1.resid_pre"] + 1, atol=1e-5, rtol=1e-5)
