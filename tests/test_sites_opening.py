"""Blocks run one by one, in halves, on streams of the caller's: what comes out is what the network gives."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from intarsia.errors import BadInput
from intarsia.sites.recomposing import Opened
from tests.sites_help import hooks
from tests.tiny import MOE, tiny


class Kept:
    """A cache that only counts how often it was asked."""

    asked = 0

    def update(self, keys, values, layer_idx=0, *_):
        self.asked += 1
        return keys, values


@pytest.mark.parametrize("family", [*MOE, "llama", "granite", "gemma3"])
def test_halves_in_turn_are_the_network(family):
    network = tiny(family, dtype=torch.float64).network
    if family in MOE:
        network.set_experts_implementation("eager")
    ids = torch.randint(10, 266, (3, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = network(input_ids=ids, output_hidden_states=True, use_cache=False)
    before = hooks(network)  # (transformers leaves some to record hidden states)
    opened, order, cache = Opened(network), torch.tensor([2, 0, 1]), Kept()
    given = opened.given(ids)
    stream = given.stream
    for index in range(opened.blocks):
        middle = opened.first(index, stream, given, cache)
        moved = opened.second(index, middle[order])  # rows change places between attention and MLP
        stream = torch.empty_like(moved).index_copy_(0, order, moved)
        if index + 1 < opened.blocks:
            torch.testing.assert_close(stream, wanted.hidden_states[index + 1], rtol=0, atol=1e-12)
    assert cache.asked == opened.blocks
    assert opened.routed == (list(range(opened.blocks)) if family in MOE else [])
    opened.close()
    with torch.no_grad():
        assert torch.equal(network(input_ids=ids, use_cache=False).logits, wanted.logits)
    assert hooks(network) == before


def test_rows_of_what_is_given_are_what_those_rows_alone_get():
    network = tiny("mixtral").network
    opened = Opened(network)
    cache = DynamicCache()
    cache.update(*(torch.zeros(3, 2, 5, 8, dtype=torch.float32) for _ in range(2)), 0)
    ids, mask = torch.tensor([[11], [12], [13]]), torch.ones(3, 6, dtype=torch.long)
    mask[1, :2], places = 0, torch.tensor([[5], [3], [5]])
    many = opened.given(ids, cache, position_ids=places, attention_mask=mask)
    rows = torch.tensor([1, 2, 1])
    alone = opened.given(ids[rows], cache, position_ids=places[rows], attention_mask=mask[rows])
    assert torch.equal(many.stream[rows], alone.stream)
    for index in range(opened.blocks):
        (_, ours), (_, theirs) = many.call(index, rows), alone.call(index, None)
        torch.testing.assert_close(ours["position_embeddings"], theirs["position_embeddings"], rtol=0, atol=0)
        assert torch.equal(ours["attention_mask"], theirs["attention_mask"])


def test_the_router_answers_as_in_the_block():
    network = tiny("olmoe").network
    ids = torch.tensor([[20, 30, 40, 50]])
    logits = network(input_ids=ids, output_router_logits=True, use_cache=False).router_logits
    opened = Opened(network)
    given = opened.given(ids)
    middle = opened.first(0, given.stream, given, Kept())
    weights, experts = opened.routes(0, opened.normed(0, middle).flatten(0, 1))
    probabilities = logits[0].softmax(-1)
    assert torch.equal(experts, probabilities.topk(2).indices)
    assert weights.shape == (4, 2)


def test_blocks_without_a_middle_are_refused():
    with pytest.raises(BadInput, match=r"layers\.0 cannot be run in halves: it is a parallel block"):
        Opened(tiny("neox").network)
