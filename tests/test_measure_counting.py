"""Counted multiply-accumulates against counts made by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from intarsia.measure import count_macs
from intarsia.measure.size import macs_per_token
from tests.tiny import inputs, tiny


def attention(b: int = 2, h: int = 4, q: int = 10, k: int = 12, d: int = 8, heads: int | None = None):
    heads = heads or h
    return torch.randn(b, h, q, d), torch.randn(b, heads, k, d), torch.randn(b, heads, k, d)


@pytest.mark.parametrize("backend", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
@pytest.mark.parametrize("mask", [None, "rows", "keys", "bool", "causal"])
def test_attention_is_two_full_products_on_every_kernel_and_mask(backend, mask) -> None:
    q, k, v = attention(k=10)
    masks = {
        "rows": torch.zeros(2, 1, 10, 10),
        "keys": torch.randn(2, 1, 1, 10),
        "bool": torch.ones(2, 1, 10, 10, dtype=torch.bool),
    }
    causal = mask == "causal"

    def call():
        with sdpa_kernel(backend):
            F.scaled_dot_product_attention(q, k, v, attn_mask=masks.get(mask), is_causal=causal)

    counted = count_macs(call)
    assert counted.macs == 2 * (2 * 4 * 10 * 10 * 8)
    if backend == SDPBackend.FLASH_ATTENTION:
        assert counted.by_kind == {"attention": counted.macs}  # the CPU's own kernel ran, and was seen


def test_grouped_query_attention_counts_the_query_heads() -> None:
    q, k, v = attention(heads=2)
    counted = count_macs(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    assert counted.macs == 2 * (2 * 4 * 10 * 12 * 8)


def test_products_vectors_convolutions_and_einsum() -> None:
    a, b, x = torch.randn(3, 5), torch.randn(5, 7), torch.randn(2, 3, 8, 8)
    conv = nn.Conv2d(3, 6, kernel_size=4, stride=4)
    assert count_macs(lambda: a @ b).macs == 3 * 5 * 7
    assert count_macs(lambda: F.linear(a, b.T, b[0])).macs == 3 * 5 * 7
    assert count_macs(lambda: a @ b[:, 0]).macs == 15
    assert count_macs(lambda: a[0] @ a[1]).macs == 5
    assert count_macs(lambda: torch.addmv(a[:, 0], a, b[:, 0])).macs == 15
    assert count_macs(lambda: torch.einsum("bij,bkj->bik", a[None], a[None])).macs == 3 * 3 * 5
    assert count_macs(lambda: conv(x)) == (2 * 2 * 2 * 6 * (3 * 16), {"convolutions": 2 * 2 * 2 * 6 * 48})
    assert count_macs(lambda: torch.addbmm(torch.zeros(3, 7), a.expand(4, 3, 5), b.expand(4, 5, 7))).macs == 4 * 105
    assert count_macs(lambda: (a.softmax(-1) + 1).relu().sort()).macs == 0
    whole = torch.ones(32, 32, dtype=torch.int8)
    assert count_macs(lambda: torch._int_mm(whole, whole)).macs == 32**3


@pytest.mark.parametrize("weights", [True, False])
def test_the_fused_multihead_attention_is_seen(weights: bool) -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    hand = 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    assert count_macs(lambda: module(x, x, x, need_weights=weights)).macs == hand
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_vision_tower_by_hand_in_every_mode(mode) -> None:
    model = tiny("clip")
    given = inputs("clip")
    rows, c, wide, layers = 17, 32, 48, 3
    layer = 4 * rows * c * c + 2 * rows * rows * c + 2 * rows * c * wide
    hand = 2 * (16 * c * (3 * 4 * 4) + layers * layer + c * 16)

    def call():
        with mode():
            model.network.get_image_features(pixel_values=given["pixel_values"])

    assert count_macs(call).macs == hand


def test_sdpa_and_eager_networks_count_alike() -> None:
    model, given = tiny("llava"), inputs("llava")
    first = count_macs(lambda: model.network(**given)).macs
    model.network.set_attn_implementation("eager")
    assert count_macs(lambda: model.network(**given)).macs == first > 0


def test_experts_are_counted_whichever_way_they_run() -> None:
    network = tiny("mixtral").network
    first = macs_per_token(network, 12)
    network.set_experts_implementation("eager")
    assert macs_per_token(network, 12) == first
    config = network.config
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 2 * 12 * 32 + 32 * 4 + 2 * 3 * 32 * config.intermediate_size
    assert first == config.num_hidden_layers * layer + 32 * config.vocab_size


def test_gradients_are_counted_when_asked_for() -> None:
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    assert count_macs(lambda: (a @ b).sum().backward(), gradients=True).macs == 3 * (3 * 5 * 7)
    q, k, v = (t.requires_grad_() for t in attention())
    whole = count_macs(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward(), gradients=True).macs
    assert whole == (2 + 5) * (2 * 4 * 10 * 12 * 8)
