"""Keys and values in few bits: rounded once, in as many bytes as promised, and generation lives with them."""

import copy

import pytest
import torch
from transformers.cache_utils import DynamicCache

from intarsia.compression import quantized_cache
from intarsia.compression.quantization.caches import CodedLayer, bytes_of
from tests.failing import fails
from tests.tiny import tiny


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def ids(rows: int = 2, tokens: int = 12):
    return torch.randint(3, 90, (rows, tokens), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [8, 4])
def test_each_token_is_rounded_once(bits):
    """What comes back is within half a step of what went in, however it was cut into pieces."""
    torch.manual_seed(0)
    keys, values = torch.randn(2, 3, 9, 64, dtype=torch.float64), torch.randn(2, 3, 9, 32, dtype=torch.float64)
    whole, pieces = CodedLayer(bits), CodedLayer(bits)
    found = whole.update(keys, values)
    for cut in ((0, 4), (4, 5), (5, 9)):
        last = pieces.update(keys[:, :, slice(*cut)], values[:, :, slice(*cut)])
    for one, other, given in zip(found, last, (keys, values), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        if bits == 8:
            step = given.abs().amax(-1, keepdim=True) / 127
        else:
            wide = given.unflatten(-1, (-1, 32))
            step = ((wide.amax(-1).clamp(min=0) - wide.amin(-1).clamp(max=0)) / 15).repeat_interleave(32, -1)
        assert ((one - given).abs() <= step * 0.51).all()  # scales of groups are halves
    assert whole.get_seq_length() == 9


@pytest.mark.parametrize("bits", [8, 4])
def test_bytes(model, bits):
    cache, plain = quantized_cache(model, bits), DynamicCache(config=model.config)
    with torch.no_grad():
        for kept in (cache, plain):
            model.network(ids(), past_key_values=kept)
    width = plain.layers[0].keys.shape[-1]
    groups = -(-width // 32)
    one = width + 4 if bits == 8 else width // 2 + 2 * groups + (groups + 1) // 2
    vectors = sum(2 * layer.keys.shape[:-1].numel() for layer in plain.layers)
    assert bytes_of(cache) == vectors * one and bytes_of(plain) == vectors * 4 * width


def test_what_follows_hardly_changes(model):
    given = ids(1, 40)
    with torch.no_grad():
        want = model.network(given).logits[:, -1]
        for bits, near in ((8, 0.02), (4, 0.3)):
            cache = quantized_cache(model, bits)
            model.network(given[:, :-1], past_key_values=cache)
            said = model.network(given[:, -1:], past_key_values=cache).logits[:, -1]
            change = float((said - want).norm() / want.norm())
            assert 0 < change < near


def test_generation_and_beams(model):
    given, mask = ids(), torch.ones(2, 12, dtype=torch.long)
    settings = dict(max_new_tokens=6, do_sample=False, attention_mask=mask, pad_token_id=0)
    one = model.network.generate(given, past_key_values=quantized_cache(model), **settings)
    assert one.shape == (2, 18) and torch.equal(one[:, :12], given)
    beams = model.network.generate(given, past_key_values=quantized_cache(model), num_beams=3, **settings)
    assert beams.shape[1] == 18


def test_what_is_done_to_a_cache_is_done_to_all_its_parts():
    torch.manual_seed(1)
    layer = CodedLayer(4)
    keys, _ = layer.update(torch.randn(2, 2, 6, 32), torch.randn(2, 2, 6, 32))
    copied = copy.deepcopy(layer)
    copied.crop(-2)
    torch.testing.assert_close(copied._states("keys"), keys[:, :, :4])
    copied.crop(0)
    copied.batch_repeat_interleave(2)
    torch.testing.assert_close(copied._states("keys"), keys[:, :, :4].repeat_interleave(2, 0))
    copied.batch_select_indices(torch.tensor([3, 0]))
    copied.reorder_cache(torch.tensor([1, 0]))
    torch.testing.assert_close(copied._states("keys"), keys[:, :, :4])
    with pytest.raises(ValueError, match="below zero"):
        copied.crop(1)
    copied.reset()
    assert copied.get_seq_length() == 0 and not copied.is_initialized
    layer.crop(-6)
    again, _ = layer.update(torch.ones(2, 2, 1, 32), torch.ones(2, 2, 1, 32))
    assert again.shape[-2] == 1


def test_who_has_no_such_cache_is_refused():
    fails(lambda: quantized_cache(tiny("bert-encoder")), "causal language model")
    fails(lambda: quantized_cache(tiny("t5")), "causal language model")
