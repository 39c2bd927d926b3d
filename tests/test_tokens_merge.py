"""`tokens.merge` on tiny networks of each kind: exact where nothing is lost, a formula where something is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia.errors import BadInput
from intarsia.measure import count_macs
from intarsia.sites.recomposing import installed
from intarsia.tokens import merge
from intarsia.tokens.matching import MATCHERS
from intarsia.tokens.merging import trimmed
from tests.sites_help import output, plain
from tests.tiny import inputs, tiny, tokenizer
from tests.tiny_more import inputs as more_inputs
from tests.tiny_more import more

KINDS = ["clip", "siglip", "blip", "llava"]


def wide(kind: str = "clip", dtype=torch.float32, size: int = 64):
    """A tiny network with 64 patches, so that shares are not all rounding."""
    vision = dict(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=size,
        patch_size=8,
        projection_dim=16,
    )
    text = dict(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=40,
        projection_dim=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=3,
    )
    torch.manual_seed(0)
    if kind == "llava":
        rope = dict(text, num_key_value_heads=2, max_position_embeddings=200)
        rope.pop("projection_dim")
        config = tf.LlavaConfig(
            vision_config=tf.CLIPVisionConfig(**vision), text_config=tf.LlamaConfig(**rope), image_token_id=8
        )
        network = tf.LlavaForConditionalGeneration(config)
    else:
        network = tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return ia.wrap(network.to(dtype).eval(), tokenizer())


def pictures(batch=3, size=64, seed=0, dtype=torch.float32):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def features(model, pixels):
    with torch.no_grad():
        return model.network.get_image_features(pixel_values=pixels).pooler_output


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_everything_is_the_model_to_the_bit(kind):
    model, x = tiny(kind), inputs(kind)
    before = plain(model, x)
    assert torch.equal(plain(merge(model, keep=1.0), x), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("matcher", [*MATCHERS, "prune"])
def test_half_runs_and_leaves_the_given_model_alone(kind, matcher):
    model, x = tiny(kind), inputs(kind)
    before = plain(model, x)
    less = merge(model, keep=0.6, matcher=matcher)
    found = plain(less, x)
    assert found.isfinite().all() and not torch.allclose(found, before, atol=1e-3)
    assert torch.equal(plain(model, x), before) and not installed(model.network)
    assert less.identity.changes[-1]["technique"] == "tokens.merge" and less.identity.changes[-1]["keep"] == 0.6


@pytest.mark.parametrize("keep", [0.75, 0.5, 0.34])
@pytest.mark.parametrize("schedule", ["constant", "decreasing", "front"])
def test_the_share_asked_for_is_the_share_computed(keep, schedule):
    model, x = wide(), pictures()
    whole = count_macs(lambda: features(model, x)).macs
    less = merge(model, keep=keep, schedule=schedule)
    part = count_macs(lambda: features(less, x)).macs
    assert abs(part / whole - keep) < 0.05


def test_picture_rows_of_tower_and_decoder_count_together():
    model = wide("llava")
    ids = torch.randint(10, 200, (1, 68))
    ids[:, 2:66] = 8
    given = dict(input_ids=ids, pixel_values=pictures(1), use_cache=False)
    whole = count_macs(lambda: model.network(**given)).macs
    less = merge(model, keep=0.5)
    part = count_macs(lambda: less.network(**given)).macs
    assert 0.42 < part / whole < 0.62  # words, projector and patches are not merged


def test_a_tower_in_float64_by_hand():
    """The whole vision tower with merging written out: keys, pairs, proportional attention, size-weighted means."""
    model, x = wide(dtype=torch.float64), pictures(2, dtype=torch.float64)
    removed = (16, 0, 8, 6, 0, 4)
    less = merge(model, removed=removed, importance="none")
    found = features(less, x)
    vision = model.network.vision_model
    with torch.no_grad():
        embedded = vision.pre_layrnorm(vision.embeddings(x))
        for row in range(2):
            h, sizes = embedded[row], torch.ones(65, dtype=torch.float64)
            for layer, r in zip(vision.encoder.layers, removed, strict=True):
                n, a = layer.layer_norm1(h), layer.self_attn
                q, k, v = (p(n).unflatten(-1, (4, 8)).transpose(0, 1) for p in (a.q_proj, a.k_proj, a.v_proj))
                weight = (q @ k.transpose(1, 2) * 8**-0.5).exp() * sizes
                h = h + a.out_proj((weight / weight.sum(-1, keepdim=True) @ v).transpose(0, 1).flatten(1))
                if r:
                    blocked = torch.zeros(1, len(h), dtype=torch.bool)
                    blocked[0, 0] = True
                    pairs = MATCHERS["dominance"](k.mean(0)[None].float(), r, blocked=blocked)
                    groups = {i: [i] for i in range(len(h))}
                    for source, target in zip(pairs.source[0].tolist(), pairs.target[0].tolist(), strict=True):
                        groups[target].extend(groups.pop(source))
                    left = sorted(groups)
                    h = torch.stack([sum(sizes[m] * h[m] for m in groups[i]) / sizes[groups[i]].sum() for i in left])
                    sizes = torch.stack([sizes[groups[i]].sum() for i in left])
                h = h + layer.mlp(layer.layer_norm2(h))
            wanted = model.network.visual_projection(vision.post_layernorm(h[0]))
            torch.testing.assert_close(found[row], wanted, atol=1e-5, rtol=1e-4)  # sizes are float32


@pytest.mark.parametrize("matcher", ["dominance", "complete", "bipartite", "prune"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_picture_does_not_depend_on_its_batch(kind, matcher):
    model, x = tiny(kind), inputs(kind, batch=3)
    less = merge(model, keep=0.6, matcher=matcher)
    together = features(less, x["pixel_values"])
    apart = torch.cat([features(less, x["pixel_values"][i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


def test_sizes_always_add_up():
    model = wide()
    less = merge(model, keep=0.4)
    features(less, pictures())
    flow = installed(less.network)["vision"].flow
    for trace in flow.traces:
        assert torch.allclose(trace.sizes.sum(1), torch.full((3,), 65.0))
    assert flow.rows == 65 - sum(less.extras["tokens.merge"]["vision"]["removed"])


# ---- text towers


@pytest.mark.parametrize("eos", [3, 2])
def test_padding_of_a_causal_text_tower_is_dropped_without_loss(eos):
    model = wide()
    model.network.config.text_config.eos_token_id = eos
    model.network.text_model.config.eos_token_id = eos
    end = 299 if eos == 2 else 3  # with id 2 the highest id ends a text
    ids = torch.zeros(2, 40, dtype=torch.long)
    ids[0, :5] = torch.tensor([1, 50, 60, 70, end])
    ids[1, :8] = torch.tensor([1, 40, 41, 42, 43, 44, 45, end])
    mask = (ids > 0).long()
    less = merge(model, keep=0.5)
    with torch.no_grad():
        whole = model.network.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        short = less.network.get_text_features(input_ids=ids, attention_mask=mask)
        alone = model.network.get_text_features(input_ids=ids[:1, :5]).pooler_output
    torch.testing.assert_close(short.pooler_output, whole, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(short.pooler_output[:1], alone, atol=2e-6, rtol=1e-5)
    assert short.last_hidden_state.shape[1] == 8
    work = [count_macs(lambda m=m: m.network.get_text_features(input_ids=ids)).macs for m in (model, less)]
    assert work[1] < 0.3 * work[0]


def test_trimming_leaves_other_inputs_alone():
    given = {"input_ids": torch.tensor([[1, 5, 3, 0, 0]]), "position_ids": torch.arange(5)[None], "other": 1}
    cut = trimmed(given, {"pooled": "end", "eos": 3})
    assert cut["input_ids"].tolist() == [[1, 5, 3]] and cut["position_ids"].shape == (1, 3) and cut["other"] == 1
    assert trimmed(cut, {"pooled": "end", "eos": 3}) is cut and trimmed({}, {"eos": 3}) == {}


def test_merged_words_keep_the_end_of_each_text():
    model = wide()
    ids = torch.zeros(2, 40, dtype=torch.long)
    ids[0, :12] = torch.tensor([1, *range(50, 60), 3])
    ids[1, :30] = torch.tensor([1, *range(100, 128), 3])
    mask = (ids > 0).long()
    less = merge(model, keep=1.0, text_keep=0.6)
    with torch.no_grad():
        both = less.network.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        alone = less.network.get_text_features(input_ids=ids[:1, :12]).pooler_output
        dense = model.network.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-4)  # padding and batch mates change nothing
    assert not torch.allclose(both, dense, atol=1e-3)
    flow = installed(less.network)["text"].flow
    assert flow.position.gather(1, flow.owner[:, 11:12]).tolist() == [[11]]  # the end of this text is still itself


# ---- language models that read pictures


def llava_inputs(lengths, side, size=64):
    rows = []
    for length in lengths:
        words = torch.randint(10, 200, (length,), generator=torch.Generator().manual_seed(length))
        rows.append(torch.cat([words[:2], torch.full((64,), 8), words[2:]]))
    most = max(map(len, rows))
    ids = torch.zeros(len(rows), most, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(most - len(row), most)
        ids[i, where], mask[i, where] = row, 1
    return dict(input_ids=ids, attention_mask=mask, pixel_values=pictures(len(rows), size))


@pytest.mark.parametrize(
    "settings", [dict(keep=0.5), dict(keep=1.0, decoder_keep=0.4), dict(keep=0.7, decoder_keep=0.6)]
)
@pytest.mark.parametrize("matcher", ["dominance", "prune"])
def test_prompts_padded_left_or_right_and_alone_agree(settings, matcher):
    model = wide("llava")
    less = merge(model, matcher=matcher, **settings)
    logits = {}
    for side in ("left", "right"):
        x = llava_inputs([9, 5], side)
        if side == "left":
            x["position_ids"] = (x["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            found = less.network(**x).logits
        last = x["attention_mask"].cumsum(1).argmax(1)
        logits[side] = found[torch.arange(2), last]
    torch.testing.assert_close(logits["left"], logits["right"], atol=1e-4, rtol=1e-3)
    x = llava_inputs([9, 5], "right")
    with torch.no_grad():
        alone = less.network(input_ids=x["input_ids"][1:, :69], pixel_values=x["pixel_values"][1:]).logits[0, -1]
    torch.testing.assert_close(logits["right"][1], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("settings", [dict(keep=0.5), dict(keep=1.0, decoder_keep=0.6)])
def test_a_language_model_answers_with_its_cache_as_without(settings):
    less = merge(wide("llava"), **settings)
    x = llava_inputs([9, 5], "left")
    both = [
        less.network.generate(**x, max_new_tokens=6, do_sample=False, use_cache=cache, eos_token_id=-1)
        for cache in (False, True)
    ]
    assert torch.equal(*both)
    flow = installed(less.network)["text"].flow
    share = max(less.extras["tokens.merge"]["text"]["shares"])
    vision = less.extras["tokens.merge"].get("vision", {"removed": []})["removed"]
    gone = sum(vision) + round(64 * share)
    assert gone > 20 and int((flow.position >= 0).sum(1)[1]) == x["input_ids"].shape[1] - gone


def test_merged_rows_are_one_row_each_in_the_language_model():
    less = merge(wide("llava"), keep=0.5)
    with torch.no_grad():
        less.network(**llava_inputs([9, 5], "right"))
    owners = installed(less.network)
    vision, text = owners["vision"].flow, owners["text"].flow
    for row in range(2):
        groups = vision.owner[row, 1:]
        mine = text.owner[row, 2:66]
        same = groups[:, None] == groups[None]
        assert torch.equal(same, mine[:, None] == mine[None])
        # each at the place of its own patch
        home = vision.position[row][groups] - 1
        assert torch.equal(text.position[row][mine], home + 2)


def test_several_pictures_in_one_prompt():
    less = merge(wide("llava"), keep=0.5)
    ids = torch.randint(10, 200, (1, 140), generator=torch.Generator().manual_seed(0))
    ids[:, 2:66] = 8
    ids[:, 70:134] = 8
    with torch.no_grad():
        out = less.network(input_ids=ids, pixel_values=pictures(2)).logits
    assert out.shape[1] == 140
    text = installed(less.network)["text"].flow
    left = 64 - sum(less.extras["tokens.merge"]["vision"]["removed"])
    assert text.rows == 140 - 128 + 2 * left


def test_prompts_with_more_pictures_lose_more_rows():
    """A share of each prompt's own rows; the same as each prompt alone."""
    less = merge(wide("llava"), keep=1.0, decoder_keep=0.5)
    ids = torch.randint(10, 200, (2, 140), generator=torch.Generator().manual_seed(0))
    ids[:, 2:66] = 8
    ids[0, 70:134] = 8
    values = pictures(3)
    with torch.no_grad():
        both = less.network(input_ids=ids, pixel_values=values).logits
        flow = installed(less.network)["text"].flow
        one = less.network(input_ids=ids[1:], pixel_values=values[2:]).logits
    torch.testing.assert_close(both[1:], one, atol=1e-4, rtol=1e-3)
    share = max(less.extras["tokens.merge"]["text"]["shares"])
    assert (~flow.padded).sum(1).tolist() == [140 - round(128 * share), 140 - round(64 * share)]


@pytest.mark.parametrize("family", ["blip-2", "idefics3", "smolvlm"])
def test_connectors_that_make_other_rows_are_given_all_of_them(family):
    model, x = more(family), more_inputs(family)
    before = plain(model, x)
    less = merge(model, keep=0.6)
    found = plain(less, x)
    assert found.shape == before.shape and not torch.allclose(found, before, atol=1e-3)
    assert installed(less.network)["vision"].flow.rows < 17


def test_pictures_of_any_size_are_merged_in_the_language_model():
    model, x = more("qwen2_vl"), more_inputs("qwen2_vl")
    with pytest.raises(BadInput, match="keep 1 and decoder_keep below 1"):
        merge(model, keep=0.5)
    before = plain(model, x)
    less = merge(model, keep=1.0, decoder_keep=0.7)
    found = plain(less, x)
    flow = installed(less.network)["text"].flow
    assert flow.rows < flow.original and found.shape == before.shape
    # the words before the pictures cannot have noticed
    first = int(flow.inputs["image_mask"].int().argmax(1).min())
    torch.testing.assert_close(found[:, :first], before[:, :first], atol=1e-5, rtol=1e-4)


def test_words_alone_are_not_touched():
    model = wide("llava")
    ids = torch.randint(10, 200, (2, 9))
    with torch.no_grad():
        assert torch.equal(model.network(input_ids=ids).logits, merge(model, keep=0.5).network(input_ids=ids).logits)


# ---- staying


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cross", [False, True])
def test_saved_and_loaded_it_is_still_merged(kind, cross, tmp_path):
    model, x = tiny(kind), inputs(kind)
    less = merge(model, keep=0.6, cross=cross)
    if cross:
        with torch.no_grad():
            for parameter in less.network.intarsia_tokens.parameters():
                parameter.normal_(0, 0.3)
    wanted = plain(less, x)
    again = ia.load(less.save(tmp_path / "m"))
    assert torch.equal(plain(again, x), wanted)
    bare = type(model.network).from_pretrained(tmp_path / "m").eval()
    with torch.no_grad():
        assert torch.equal(output(bare(**x)), plain(model, x))
    with pytest.raises(BadInput, match="merged already"):
        merge(again, keep=0.5)


def test_with_quantization_and_lora_in_either_order():
    from peft import LoraConfig, get_peft_model

    from intarsia.compression import quantize

    model, x = tiny("clip"), inputs("clip")
    first = plain(quantize(merge(model, keep=0.6), bits=8), x)
    second = plain(merge(quantize(model, bits=8), keep=0.6), x)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-3)
    less = merge(model, keep=0.6)
    before = plain(less, x)
    lora = get_peft_model(less.network, LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    with torch.no_grad():
        torch.testing.assert_close(output(lora(**x)), before)  # LoRA starts as nothing
    output(lora(**x)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for n, p in lora.named_parameters() if "vision" in n)


def test_bad_input():
    with pytest.raises(BadInput, match="no vision tower"):
        merge(tiny("llama"), keep=0.5)
    for keep in (0.0, 1.2, -1):
        with pytest.raises(BadInput, match=r"keep is .*above 0 and at most 1"):
            merge(tiny("clip"), keep=keep)
    with pytest.raises(BadInput, match="lists 2 blocks"):
        merge(tiny("clip"), removed=(1, 2))
    with pytest.raises(BadInput, match="cannot remove fewer"):
        merge(tiny("clip"), removed=(1, 2, -1))
    with pytest.raises(BadInput, match="importance"):
        merge(tiny("clip"), matcher="prune", importance="none")
    with pytest.raises(BadInput, match="pictures"):
        merge(tiny("clip"), schedule="sensitivity")
    with pytest.raises(BadInput, match="decoder_layer is 9"):
        merge(tiny("llava"), keep=1.0, decoder_keep=0.5, decoder_layer=9)


def test_random_pairs_follow_the_seed():
    model, x = wide(), pictures()
    one, two, other = (features(merge(model, keep=0.5, matcher="random", seed=s), x) for s in (0, 0, 1))
    assert torch.equal(one, two) and not np.allclose(one, other)


@pytest.mark.parametrize("kind", ["siglip", "blip"])
def test_dropped_rows_are_read_by_nobody(kind):
    """Pooling heads and cross-attention get the rows that are left, not zeros in the places of the others."""
    model, x = tiny(kind), inputs(kind, side=None)
    less = merge(model, removed=(4, 0, 0), matcher="prune", importance="attention")
    with torch.no_grad():
        rows = less.network.vision_model(pixel_values=x["pixel_values"]).last_hidden_state
    assert rows.shape[1] == (12 if kind == "siglip" else 13) and not (rows == 0).all(-1).any()


def test_a_cross_token_comes_out_of_the_same_share():
    model, x = wide(), pictures()
    whole = count_macs(lambda: features(model, x)).macs
    plain_, guided = merge(model, keep=0.5), merge(model, keep=0.5, cross=True)
    shares = [count_macs(lambda m=m: features(m, x)).macs / whole for m in (plain_, guided)]
    assert abs(shares[0] - shares[1]) < 0.015


def test_block_0_of_a_language_model_belongs_to_the_towers_rows():
    with pytest.raises(BadInput, match="decoder_layer 1 or more"):
        merge(wide("llava"), keep=0.5, decoder_keep=0.5, decoder_layer=0)
    less = merge(wide("llava"), keep=1.0, decoder_keep=0.5, decoder_layer=0)
    with torch.no_grad():
        less.network(**llava_inputs([9, 5], "right"))
    assert installed(less.network)["text"].flow.traces[0].index == 0
