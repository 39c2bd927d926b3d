"""Blocks run with another number of tokens: exact where nothing is lost, and after it what a formula says."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.sites.attention import AttentionCall, biased
from intarsia.sites.recomposing import Flow, Rule, Step, dense, installed, recompose, remove
from tests.sites_help import attention_names, hooks, output, plain
from tests.tiny import CAUSAL, inputs, tiny
from tests.tiny_more import inputs as more_inputs
from tests.tiny_more import more

TOWERS = {"clip": ["vision", "text"], "siglip": ["vision", "text"], "blip": ["vision"], "llava": ["vision"]}


class Idle(Rule):
    """Runs every block in halves and changes nothing."""

    def reduces(self, flow, index):
        return True

    def reduce(self, flow, index, stream, seen):
        batch, tokens = stream.shape[:2]
        place = torch.arange(tokens).expand(batch, tokens)
        return Step(stream, place, place)


class Into(Rule):
    """In the blocks listed, the rows `first..first+count` become part of the row behind them (size-weighted mean)."""

    def __init__(self, count=3, first=1, at=(0, 1), restore=True, last=None):
        super().__init__()
        self.count, self.first, self.at, self.restore, self.last = count, first, at, restore, last

    def reduces(self, flow, index):
        return index in self.at

    def reduce(self, flow, index, stream, seen):
        batch, tokens, width = stream.shape
        gone = torch.zeros(tokens, dtype=torch.bool)
        gone[self.first : self.first + self.count] = True
        new = torch.cumsum(~gone, 0) - 1
        into = torch.where(gone, new[self.first + self.count], new).expand(batch, tokens)
        keep = torch.arange(tokens)[~gone].expand(batch, -1)
        weight = flow.sizes[..., None].to(stream.dtype)
        rows = stream.new_zeros(batch, keep.shape[1], width)
        share = rows.scatter_add(1, into[..., None].expand(-1, -1, width), stream * weight)
        total = stream.new_zeros(batch, keep.shape[1], 1).scatter_add(1, into[..., None], weight)
        return Step(share / total, keep, into)


class Doubled(Rule):
    """Every picture patch twice; `merge`: each copy back into its original in block 0."""

    def __init__(self, merge):
        super().__init__()
        self.merge = merge

    def enter(self, flow, stream):
        flow.facts["tokens"] = stream.shape[1]
        return flow.append(stream, stream[:, 1:], size=1.0)

    def reduces(self, flow, index):
        return self.merge and index == 0

    def reduce(self, flow, index, stream, seen):
        tokens, batch = flow.facts["tokens"], len(stream)
        place = torch.arange(tokens)
        into = torch.cat([place, place[1:]]).expand(batch, -1)
        return Step(stream[:, :tokens], place.expand(batch, -1), into)


@pytest.mark.parametrize("family", [*TOWERS, *CAUSAL, "bert", "bert-encoder"])
def test_a_rule_that_reduces_nothing_is_the_network_to_the_bit(family):
    model, x = tiny(family), inputs(family)
    before, names = plain(model, x), attention_names(model.network)
    own = hooks(model.network)  # transformers' own, which capture hidden states
    recompose(model.network, {tower: Rule() for tower in TOWERS.get(family, [""])})
    assert torch.equal(plain(model, x), before)
    remove(model.network)
    assert torch.equal(plain(model, x), before)
    assert attention_names(model.network) == names and hooks(model.network) == own


@pytest.mark.parametrize("family", [*TOWERS, *CAUSAL, "bert", "bert-encoder"])
def test_a_block_run_in_halves_is_the_block(family):
    model, x = tiny(family), inputs(family)
    if family in CAUSAL:
        x["use_cache"] = False  # (a sliding-window cache is refused)
    before = plain(model, x)
    recompose(model.network, {tower: Idle() for tower in TOWERS.get(family, [""])})
    torch.testing.assert_close(plain(model, x), before, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", ["vit", "dinov2", "siglip-vision"])
def test_vision_towers_alone(family):
    model, x = more(family), more_inputs(family)
    before = plain(model, x)
    recompose(model.network, {"": Idle()})
    torch.testing.assert_close(plain(model, x), before, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_merged_duplicates_are_the_doubled_sequence(implementation):
    """What one merged row gives is what its members would give apart: missing weights, a mask on the wrong axis or a
    wrong mean all show here (sizes differ between the class token and the patches)."""
    model, x = tiny("clip"), inputs("clip")
    model.network.set_attn_implementation(implementation)

    def pooled(merge):
        recompose(model.network, {"vision": Doubled(merge)})
        with torch.no_grad():
            found = model.network.get_image_features(pixel_values=x["pixel_values"]).pooler_output
        flow = installed(model.network)["vision"].flow
        remove(model.network)
        return found, flow

    (whole, _), (merged, flow) = pooled(False), pooled(True)
    torch.testing.assert_close(merged, whole, atol=1e-5, rtol=1e-4)
    assert flow.sizes[0].tolist() == [1.0] + [2.0] * 16
    assert not torch.allclose(whole, plain_features(model, x), atol=1e-3)  # doubling does change the picture


def plain_features(model, x):
    with torch.no_grad():
        return model.network.get_image_features(pixel_values=x["pixel_values"]).pooler_output


def test_a_second_block_weighs_the_rows_by_their_sizes():
    """One block of CLIP, by hand in float64: proportional attention, then the MLP on the rows that are left."""
    model, x = tiny("clip", dtype=torch.float64), inputs("clip")
    network = model.network
    assert model.sites  # the probe is over before anybody listens
    x["pixel_values"] = x["pixel_values"].double()
    seen = []
    handle = network.vision_model.encoder.layers[1].register_forward_hook(lambda m, a, out: seen.append((a[0], out)))
    recompose(network, {"vision": Into(count=3, first=2, at=(0,))})
    with torch.no_grad():
        network.get_image_features(pixel_values=x["pixel_values"])
    handle.remove()
    (rows, out), block = seen[0], network.vision_model.encoder.layers[1]
    assert rows.shape[1] == 14
    sizes = torch.ones(14, dtype=torch.float64)
    sizes[2] = 4
    with torch.no_grad():
        h, a = block.layer_norm1(rows), block.self_attn
        q, k, v = (p(h).unflatten(-1, (4, 8)).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        weight = (q @ k.transpose(2, 3) * 8**-0.5).exp() * sizes
        mixed = (weight / weight.sum(-1, keepdim=True)) @ v
        middle = rows + a.out_proj(mixed.transpose(1, 2).flatten(2))
        wanted = middle + block.mlp(block.layer_norm2(middle))
    torch.testing.assert_close(out, wanted, atol=1e-7, rtol=1e-6)  # (sizes are kept in float32)


def test_rows_are_restored_in_each_of_their_places():
    model, x = tiny("clip"), inputs("clip")
    recompose(model.network, {"vision": Into(count=3, first=1, at=(0,))})
    with torch.no_grad():
        out = model.network.vision_model(pixel_values=x["pixel_values"]).last_hidden_state
    assert out.shape[1] == 17
    assert torch.equal(out[:, 1], out[:, 4]) and torch.equal(out[:, 2], out[:, 4])
    assert not torch.equal(out[:, 4], out[:, 5])
    flow = installed(model.network)["vision"].flow
    assert flow.sizes[0].tolist() == [1, 4, *[1] * 12] and flow.position[0, 1] == 4


def test_reduced_rows_reach_cross_attention_with_their_sizes():
    """BLIP reads 11 rows instead of 17; with their sizes in its cross-attention that is the same as all 17."""
    model, x = tiny("blip"), inputs("blip", side=None)
    before, results = plain(model, x), []
    for restore in (True, False):
        recompose(model.network, {"vision": Into(restore=restore)})
        results.append(plain(model, x))
        remove(model.network)
    torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=1e-4)
    assert not torch.allclose(results[0], before, atol=1e-2)
    # without the sizes it would be something else
    recompose(model.network, {"vision": Into(restore=False)})
    owner = installed(model.network)["vision"]
    type(owner).flows, kept = property(lambda self: []), type(owner).flows
    try:
        assert not torch.allclose(plain(model, x), results[0], atol=1e-2)
    finally:
        type(owner).flows = kept


def test_blip_generates_with_a_cache_and_beams():
    model, x = tiny("blip"), inputs("blip", side=None)
    tokens = []
    for restore in (True, False):
        recompose(model.network, {"vision": Into(restore=restore)})
        given = {k: v.clone() for k, v in x.items()}  # BLIP writes into the ids it is given
        tokens.append(model.network.generate(**given, max_new_tokens=5, num_beams=2, do_sample=False))
        remove(model.network)
    assert torch.equal(*tokens)


class Pictures(Into):
    def reduce(self, flow, index, stream, seen):
        self.first = int(flow.inputs["image_mask"][0].nonzero()[0])
        return super().reduce(flow, index, stream, seen)


@pytest.mark.parametrize("side", ["right", "left", None])
def test_a_decoder_generates_from_a_prompt_with_fewer_rows(side):
    """With a cache as without one; positions go on from the full prompt."""
    model, x = tiny("llava"), inputs("llava", side=side)
    recompose(model.network, {"text": Pictures(count=5, at=(0, 2))})
    both = [
        model.network.generate(**x, max_new_tokens=6, do_sample=False, use_cache=cache, eos_token_id=-1)
        for cache in (True, False)
    ]
    assert torch.equal(*both)
    with torch.no_grad():
        out = model.network(**x, use_cache=True)
    cache = out.past_key_values
    prompt = x["input_ids"].shape[1]
    assert [cache.layers[i].keys.shape[2] for i in range(4)] == [prompt, prompt - 5, prompt - 5, prompt - 10]
    assert cache.get_seq_length() == prompt and out.logits.shape[1] == prompt


def test_a_later_turn_reads_the_shorter_cache():
    """Several new tokens at once after a merged prompt give what one forward over everything gives."""
    model, x = tiny("llava"), inputs("llava", side=None)
    network = model.network
    recompose(network, {"text": Pictures(count=5, at=(0,))})
    later = torch.randint(10, 200, (2, 6), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        cache = network(**x, use_cache=True).past_key_values
        mask = torch.ones(2, x["input_ids"].shape[1] + 6, dtype=torch.long)
        apart = network(input_ids=later, attention_mask=mask, past_key_values=cache).logits
        ids = torch.cat([x["input_ids"], later], 1)
        whole = network(input_ids=ids, attention_mask=mask, pixel_values=x["pixel_values"]).logits[:, -6:]
    torch.testing.assert_close(apart, whole, atol=1e-4, rtol=1e-3)


def test_a_decoder_knows_the_pictures_rows():
    model, x = tiny("llava"), inputs("llava")
    flows = []

    class Look(Rule):
        def enter(self, flow, stream):
            flows.append(flow)
            return stream

    recompose(model.network, {"vision": Into(count=3, at=(0,), last=-2), "text": Look()})
    plain(model, x)
    assert flows[0].vision.owner[0, :6].tolist() == [0, 1, 1, 1, 1, 2]
    assert flows[0].inputs["image_mask"].sum(1).tolist() == [16, 16]
    model.network.generate(input_ids=x["input_ids"][:, -4:], max_new_tokens=2)
    assert len(flows) == 1  # without a picture nothing is done


def test_blocks_after_the_last_one_read_are_not_run():
    model, x = tiny("llava"), inputs("llava")
    before, runs = plain(model, x), []
    assert model.sites
    model.network.model.vision_tower.encoder.layers[2].mlp.register_forward_hook(lambda *_: runs.append(1))
    recompose(model.network, {"vision": Rule()})
    plain(model, x)
    assert runs == [1]
    remove(model.network)
    rule = Rule()
    rule.last = -2
    recompose(model.network, {"vision": rule})
    assert torch.equal(plain(model, x), before) and runs == [1]


def test_copies_threads_and_dense():
    model, x = tiny("clip"), inputs("clip")
    before = plain(model, x)
    recompose(model.network, {"vision": Into()})
    merged = plain(model, x)
    twin = copy.deepcopy(model.network)
    owner = installed(twin)["vision"]
    assert (
        owner is not installed(model.network)["vision"] and owner.parts[0].block is twin.vision_model.encoder.layers[0]
    )
    owner.rule.count = 1
    assert torch.equal(plain(model, x), merged)
    with torch.no_grad():
        assert not torch.equal(output(twin(**x)), merged)
    with dense():
        assert torch.equal(plain(model, x), before)
    flow = installed(model.network)["vision"].flow
    found = []

    def other():
        found.append(installed(model.network)["vision"].flow)
        found.append(plain(model, {**x, "pixel_values": x["pixel_values"] + 1}))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found[0] is None and len(found) == 2 and installed(model.network)["vision"].flow is flow


def test_many_threads_at_once_give_what_one_gives():
    model, x = tiny("clip"), inputs("clip")
    recompose(model.network, {"vision": Into(), "text": Into(count=2, first=3, at=(1,))})
    pictures = [x["pixel_values"] + i for i in range(4)]
    wanted, found = [plain(model, {**x, "pixel_values": p}) for p in pictures], [None] * 4

    def work(i):
        for _ in range(10):
            found[i] = plain(model, {**x, "pixel_values": pictures[i]})

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_gradients_pass_through_the_halves():
    model, x = tiny("clip"), inputs("clip")
    recompose(model.network, {"vision": Into()})
    model.network.get_image_features(pixel_values=x["pixel_values"]).pooler_output.sum().backward()
    layers = model.network.vision_model.encoder.layers
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for i in (0, 1, 2) for p in layers[i].mlp.parameters())
    assert layers[0].self_attn.v_proj.weight.grad.abs().sum() > 0


def test_parameters_of_a_rule_belong_to_the_network():
    model = tiny("clip")
    rule = Rule()
    rule.offset = torch.nn.Parameter(torch.zeros(3))
    recompose(model.network, {"vision": rule})
    assert "intarsia_tokens.vision.offset" in model.network.state_dict()
    remove(model.network)
    assert "intarsia_tokens.vision.offset" not in model.network.state_dict()


def test_the_extra_channel_is_the_bias():
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 12, generator=generator) for _ in range(3))
    bias = torch.rand(2, 9, generator=generator).mul(5).log()
    module = torch.nn.Module()
    results = []
    for channel in (False, True):
        call = AttentionCall(module, q, k, v, None, {"is_causal": False, "scaling": 0.3})
        call.bias = bias
        results.append(biased(call, sdpa_attention_forward, channel)[0])
    wanted = torch.softmax(q @ k.transpose(2, 3) * 0.3 + bias[:, None, None], -1) @ v
    for found in results:
        torch.testing.assert_close(found, wanted.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_bad_input():
    model = tiny("clip")
    with pytest.raises(BadInput, match="no tower 'sound'"):
        recompose(model.network, {"sound": Rule()})
    recompose(model.network, {"vision": Rule()})
    with pytest.raises(BadInput, match="merged already"):
        recompose(model.network, {"text": Rule()})
    with pytest.raises(BadInput, match="no cross-attention"):
        recompose(tiny("siglip").network, {"vision": Into(restore=False)})
    merged = tiny("clip")
    recompose(merged.network, {"vision": Into()})
    merged.network.gradient_checkpointing_enable()
    merged.network.train()
    with pytest.raises(BadInput, match="checkpointing"):
        merged.network.get_image_features(pixel_values=torch.randn(1, 3, 16, 16))


def test_sizes_and_owners_follow_a_step():
    flow = Flow.of("vision", torch.zeros(1, 4, 2))
    flow.apply(Step(torch.zeros(1, 3, 2), torch.tensor([[0, 2, 3]]), torch.tensor([[0, 1, 1, 2]])), 0)
    flow.apply(Step(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]), torch.tensor([[0, 1, -1]])), 1)
    assert flow.sizes.tolist() == [[1, 2]] and flow.owner.tolist() == [[0, 1, 1, -1]]
    assert flow.position.tolist() == [[0, 2]] and [t.index for t in flow.traces] == [0, 1]
    assert flow.restored(torch.tensor([[[1.0], [5.0]]])).tolist() == [[[1.0], [5.0], [5.0], [0.0]]]
