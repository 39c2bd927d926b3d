"""Reading changes nothing; what is read is what the network computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.sites import Scale, batch_of, read, run
from intarsia.sites.tape import recording
from tests.sites_help import attention_names, hooks, output, plain
from tests.tiny import CAUSAL, FAMILIES, inputs, tiny


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_reading_every_site_leaves_the_output_unchanged_bit_for_bit(family, attention):
    model, x = tiny(family), inputs(family)
    model.network.set_attn_implementation(attention)
    base, before = plain(model, x), attention_names(model.network)
    with torch.no_grad(), recording(model.sites, batch_of(model, x), list(model.sites)) as tape:
        after = output(model.network(**x))
    assert torch.equal(after, base)
    assert set(tape.read) == set(model.sites)
    assert attention_names(model.network) == before


@pytest.mark.parametrize("family", CAUSAL)
def test_streams_equal_hidden_states(family):
    model, x = tiny(family), inputs(family)
    with torch.no_grad():
        states = model.network(**x, output_hidden_states=True).hidden_states
    acts = read(model, x, ["embed", "layers.*.resid_post", "final_norm"])
    for i in range(3):
        assert torch.equal(acts[f"layers.{i}.resid_post"], states[i + 1])
    assert torch.equal(acts["embed"], states[0])
    assert torch.equal(acts["final_norm"], states[4])  # transformers gives the last one after the norm


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "qwen3", "mixtral"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_one_by_one(family, side):
    model = tiny(family)
    texts = ["a", "a longer text", "mid size"]
    acts = read(model, texts, ["layers.*.resid_post", "layers.1.z", "logits"], side=side)
    for row, text in enumerate(texts):
        alone = read(model, [text], ["layers.*.resid_post", "layers.1.z", "logits"])
        for site in alone:
            got = acts[site][row][acts.mask[row]]
            torch.testing.assert_close(got, alone[site][0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(acts.last(site)[row], alone[site][0, -1], atol=2e-5, rtol=1e-4)


def test_it_stops_after_the_last_site_needed():
    model = tiny("llama")
    ran = []
    handles = [b.register_forward_hook(lambda m, a, o, i=i: ran.append(i)) for i, b in enumerate(model.sites.blocks)]
    head = model.network.lm_head.register_forward_hook(lambda *a: ran.append("head"))
    read(model, inputs("llama"), "layers.1.resid_post")
    for handle in (*handles, head):
        handle.remove()
    assert ran == [0, 1] or ran == [0]  # block 1's own hook comes after the engine's


def test_batches_join_to_the_whole():
    model = tiny("llama")
    texts = ["one", "two words", "three short words", "x"]
    whole = read(model, texts, ["layers.2.resid_post", "layers.0.pattern"])
    parts = read(model, texts, ["layers.2.resid_post", "layers.0.pattern"], batch_size=3)
    assert torch.equal(whole.mask, parts.mask)
    for site in whole:
        torch.testing.assert_close(whole[site], parts[site], atol=1e-5, rtol=1e-4)


def test_gradients_flow_to_and_from_sites():
    model = tiny("llama")
    ids = inputs("llama", batch=1)["input_ids"]
    acts = read(model, ids, ["embed", "layers.1.resid_post", "logits"], grad=True)
    (gradient,) = torch.autograd.grad(acts["logits"][0, -1, 5], acts["layers.1.resid_post"])
    step = 1e-3
    state = acts["layers.1.resid_post"].detach()
    from intarsia.sites import resume

    bumped = [resume(model, ids, after=1, state=state + s * step * gradient).logits[0, -1, 5] for s in (1, -1)]
    measured = (bumped[0] - bumped[1]) / (2 * step)
    torch.testing.assert_close(measured, (gradient**2).sum(), rtol=2e-2, atol=1e-4)
    assert not read(model, ids, "logits")["logits"].requires_grad


def test_towers_can_be_read_alone():
    model, x = tiny("clip"), inputs("clip")
    both = read(model, x, ["text.layers.1.resid_post", "vision.layers.1.resid_post"])
    text = read(model, {k: x[k] for k in ("input_ids", "attention_mask")}, "text.layers.1.resid_post")
    vision = read(model, {"pixel_values": x["pixel_values"]}, "vision.layers.1.resid_post")
    assert torch.equal(text["text.layers.1.resid_post"], both["text.layers.1.resid_post"])
    assert torch.equal(vision["vision.layers.1.resid_post"], both["vision.layers.1.resid_post"])


@pytest.mark.parametrize("given", ["ids", "lists", "strings", "mapping"])
def test_forms_of_input_agree(given):
    model = tiny("llama")
    texts = ["hello", "hi"]
    rows = [model.tokenizer(t)["input_ids"] for t in texts]
    want = read(model, texts, "layers.1.resid_post")
    forms = {
        "ids": want.ids,
        "lists": rows,
        "strings": texts,
        "mapping": {"input_ids": want.ids, "attention_mask": want.mask.long()},
    }
    got = read(model, forms[given], "layers.1.resid_post")
    torch.testing.assert_close(
        got["layers.1.resid_post"][want.mask], want["layers.1.resid_post"][want.mask], atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([], "batch is empty"),
        ([[]], "is empty"),
        ([""], "no tokens"),
        (torch.tensor([[5, 100000]]), "outside the vocabulary"),
        (torch.tensor([[-1]]), "outside the vocabulary"),
    ],
)
def test_bad_inputs(bad, says):
    with pytest.raises(BadInput, match=says):
        read(tiny("llama"), bad, "embed")


def test_no_tokenizer_is_said():
    model = tiny("llama")
    model.tokenizer = None
    with pytest.raises(BadInput, match="no tokenizer"):
        read(model, ["text"], "embed")


def test_nothing_is_left_behind_when_the_body_raises():
    model, x = tiny("llama"), inputs("llama")
    before = attention_names(model.network)

    def explode(tensor):
        raise RuntimeError("boom")

    from intarsia.sites import Apply

    for site in ("layers.1.resid_post", "layers.1.pattern", "layers.1.resid_mid", "logits"):
        with pytest.raises(RuntimeError, match="boom"):
            run(model, x, [Apply(site, function=explode)])
        assert hooks(model.network) == 0
        assert attention_names(model.network) == before
    assert torch.equal(plain(model, x), plain(tiny("llama"), x))


def test_what_is_read_under_edits_is_what_the_network_goes_on_with():
    model, x = tiny("gpt2"), inputs("gpt2")
    acts = read(model, x, ["layers.1.mlp_out", "layers.2.resid_pre"], edits=[Scale("layers.1.mlp_out", factor=0.0)])
    assert acts["layers.1.mlp_out"][acts.mask].abs().max() == 0


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 12),
    family=st.sampled_from(["llama", "gpt2", "gemma3", "bert"]),
    layer=st.integers(-3, 2),
)
def test_any_shape_reads(batch, length, family, layer):
    model = tiny(family)
    ids = torch.randint(10, 260, (batch, length), generator=torch.Generator().manual_seed(batch * 100 + length))
    acts = read(model, ids, [f"layers.{layer}.resid_post", f"layers.{layer}.z"])
    for tensor in acts.values():
        assert tensor.shape[:2] == (batch, length)
        assert torch.isfinite(tensor).all()
