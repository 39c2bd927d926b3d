"""Expert parallelism gives the network's own tokens and logits, in every mode, on any ranks and placement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.moe.placement.placement import Placement
from intarsia.moe.runtime import Ranks, Request, Runtime, Shard, Wire, replay, totals
from intarsia.moe.runtime.tiles import tile
from tests.moe_help import Outcome, network, placement, plain, requests, run, wanted

pytestmark = pytest.mark.xdist_group("moe_runtime")
F64 = torch.float64
MODES = {
    "vanilla": dict(mode="vanilla"),
    "home": dict(mode="home"),
    "coherent": dict(mode="coherent"),
    "free": dict(mode="coherent", free_first_hop=True),
}


@pytest.fixture(scope="module")
def two():
    with Ranks(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def four():
    with Ranks(4) as ranks:
        yield ranks


def outcome(ranks, name, plan, batches, settings, dtype=F64, fuse=1 << 16):
    if ranks is None:
        from intarsia.moe.runtime import Place

        return Outcome([run(Place(0, 1, "cpu"), name, dtype, plan, batches, settings, fuse)], name)
    return Outcome(ranks.call(run, name, dtype, plan, batches, settings, fuse), name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen3"])
@pytest.mark.parametrize("count", [2, 4])
def test_tokens_logits_experts_and_counters(name, mode, count, two, four):
    """Five requests of different lengths that join and leave, uneven experts, one of four ranks without any."""
    early, late = requests(3), requests(2, first=7)
    plan = placement(name, count, seed=count, empty=1 if count == 4 else None)
    got = outcome({2: two, 4: four}[count], name, plan, [(0, early), (2, late)], MODES[mode], fuse=2000)
    tokens, logits = wanted(name, F64, [*early, *late])
    assert got.made == tokens
    assert got.gap(logits) <= 1e-12
    for one in (*early, *late):
        ids = torch.tensor([[*one.prompt, *tokens[one.id]]])[:, :-1]
        with torch.no_grad():
            routed = network(name)(input_ids=ids, output_router_logits=True, use_cache=False).router_logits
        k = got.experts[one.id].shape[2]
        theirs = torch.stack([r.float().softmax(-1).topk(k).indices for r in routed], 1).numpy()
        np.testing.assert_array_equal(got.experts[one.id], theirs)
    again = replay(got.events, got.experts, plan, MODES[mode]["mode"], got.sizes)
    assert [t.to_dict() for t in again] == [t.to_dict() for t in got.traffic]
    assert sum(t.decode.rows for t in got.traffic) > 0 and sum(t.prefill.rows for t in got.traffic) > 0
    held = [len(layer) for report in got.reports for layer in report["held_experts"]]
    assert sum(held) == plan.device_of.size and (0 in held) == (count == 4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["windowed", "deepseek-v3", "deepseek-v2", "qwen2", "gpt-oss"])
def test_other_attentions_and_shared_experts(name, mode, two):
    """Sliding windows, latent attention, dense first blocks, groups of experts, shared and gated experts, biases."""
    every = requests(3, new=4)
    plan = placement(name, 2, seed=5, copies=1)
    got = outcome(two, name, plan, [(0, every)], MODES[mode])
    tokens, logits = wanted(name, F64, every)
    assert got.made == tokens
    assert got.gap(logits) <= (1e-6 if name.startswith("deepseek") else 1e-12)  # (its routers work in float32)
    again = replay(got.events, got.experts, plan, MODES[mode]["mode"], got.sizes)
    assert [t.to_dict() for t in again] == [t.to_dict() for t in got.traffic]


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen3", "qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_deterministic_runs_have_the_same_bits(name, dtype, two, four):
    every = [(0, requests(3, new=3)), (1, requests(2, new=3, first=7))]
    alone = outcome(None, name, placement(name, 1), every, dict(mode="vanilla", deterministic=True), dtype)
    for seed, (ranks, settings) in enumerate(
        [(two, MODES["vanilla"]), (two, MODES["free"]), (four, MODES["coherent"]), (four, MODES["home"])]
    ):
        plan = placement(name, ranks.ranks, seed=seed, empty=seed % 3, copies=seed % 2)
        got = outcome(ranks, name, plan, every, dict(settings, deterministic=True), dtype, fuse=500 * seed)
        assert got.made == alone.made
        assert all(np.array_equal(got.logits[key], alone.logits[key]) for key in alone.logits)
        again = replay(got.events, got.experts, plan, settings["mode"], got.sizes)
        assert [t.to_dict() for t in again] == [t.to_dict() for t in got.traffic]


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen3"])
def test_deterministic_bits_are_those_of_the_tiled_network_in_transformers(name):
    """Plain `generate` of the network with tiled products gives the runtime's logits to the bit."""
    every = requests(3, new=4)
    settings = dict(mode="vanilla", deterministic=True)
    ours = outcome(None, name, placement(name, 1), [(0, every)], settings, torch.float32)
    shard = Shard.of(network(name, torch.float32), placement(name, 1), 0)
    tile(shard.network, [m for n, m in shard.network.named_modules() if n.endswith("mlp.gate")])
    for one in every:
        theirs = shard.network.generate(
            torch.tensor([one.prompt]), max_new_tokens=one.max_new_tokens, do_sample=False, eos_token_id=None,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        assert theirs.sequences[0, len(one.prompt) :].tolist() == ours.made[one.id]
        for step, row in enumerate(theirs.logits):
            assert np.array_equal(row[0].numpy(), ours.logits[one.id, step])


def test_one_request_has_the_same_bits_whatever_runs_beside_it():
    """That is what makes the modes equal; without tiles the rows of a product change with their number."""
    many, settings = requests(5, new=3), dict(mode="vanilla", deterministic=True)
    together = outcome(None, "mixtral", placement("mixtral", 1), [(0, many)], settings, torch.float32)
    alone = outcome(None, "mixtral", placement("mixtral", 1), [(0, many[2:3])], settings, torch.float32)
    assert all(np.array_equal(alone.logits[key], together.logits[key]) for key in alone.logits)


@pytest.mark.parametrize("mode", MODES)
def test_copies_of_experts_save_rows(mode, four):
    every, name = [(0, requests(5))], "olmoe"
    plan = placement(name, 4, seed=9)
    copied = placement(name, 4, seed=9, copies=3)
    assert np.array_equal(plan.device_of, copied.device_of)
    without, with_copies = (outcome(four, name, p, every, MODES[mode]) for p in (plan, copied))
    assert with_copies.made == without.made
    assert totals(with_copies.traffic).rows < totals(without.traffic).rows


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_placement_copies_requests_and_joining(data, two, four):
    ranks = data.draw(st.sampled_from([two, four]), label="ranks")
    name = data.draw(st.sampled_from(["mixtral", "olmoe", "qwen3"]))
    mode = data.draw(st.sampled_from(sorted(MODES)))
    device = st.integers(0, ranks.ranks - 1)
    table = np.array(data.draw(st.lists(st.lists(device, min_size=8, max_size=8), min_size=3, max_size=3)))
    copies = st.lists(st.integers(0, 7), max_size=3, unique=True).map(tuple)
    row = st.lists(copies, min_size=ranks.ranks, max_size=ranks.ranks).map(tuple)
    replicas = data.draw(st.just(()) | st.lists(row, min_size=3, max_size=3).map(tuple))
    plan = Placement(table, ranks.ranks, replicas=replicas)
    home = st.none() | device
    batches, every = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        new = []
        for _ in range(data.draw(st.integers(0, 3))):
            prompt = tuple(data.draw(st.lists(st.integers(10, 13), min_size=1, max_size=4)))
            new.append(Request(len(every), prompt, data.draw(st.integers(1, 4)), home=data.draw(home)))
            every.append(new[-1])
        batches.append((data.draw(st.integers(0, 3)), new))
    fuse = data.draw(st.sampled_from([0, 600, 1 << 16]))
    got = outcome(ranks, name, plan, batches, MODES[mode], fuse=fuse)
    tokens, logits = wanted(name, F64, every)
    assert got.made == tokens
    assert not every or got.gap(logits) <= 1e-12
    again = replay(got.events, got.experts, plan, MODES[mode]["mode"], got.sizes)
    assert [t.to_dict() for t in again] == [t.to_dict() for t in got.traffic]


def test_collectives_of_a_step(four):
    """Two a layer and one more; one a layer and one more where the token moves and has one expert (spec 9.5)."""
    for name, mode, each in (("olmoe", "vanilla", 7), ("olmoe", "coherent", 4), ("olmoe", "free", 3)):
        got = outcome(four, name, placement(name, 4, seed=1), [(0, requests(4, new=4))], MODES[mode])
        steps = sum(event.phase == "decode" for event in got.events)
        assert got.traffic[0].decode.collectives == each * steps
    plain_counts = outcome(four, "olmoe", placement("olmoe", 4, seed=1), [(0, requests(4, new=4))], MODES["vanilla"])
    exact = outcome(four, "olmoe", placement("olmoe", 4, seed=1), [(0, requests(4, new=4))], MODES["vanilla"], fuse=0)
    assert totals(exact.traffic).padding_bytes == 0 < totals(plain_counts.traffic).padding_bytes
    assert totals(exact.traffic).rows == totals(plain_counts.traffic).rows


def test_draws_depend_on_the_request_and_the_step_alone(two, four):
    """Sampled tokens are the same on other ranks and in other company; another seed gives others."""
    sampled = requests(4, new=6, temperature=1.3, top_k=50, top_p=0.9)
    seen = []
    for ranks, mode in ((None, "vanilla"), (two, "coherent"), (four, "home")):
        plan = placement("mixtral", ranks.ranks if ranks else 1, seed=3)
        seen.append(outcome(ranks, "mixtral", plan, [(0, sampled)], dict(MODES[mode], seed=5)).made)
    assert seen[0] == seen[1] == seen[2]
    company = [(0, sampled[2:3]), (2, sampled[:2])]
    other = outcome(two, "mixtral", placement("mixtral", 2), company, dict(MODES["vanilla"], seed=5)).made
    assert other == {i: seen[0][i] for i in other}
    again = outcome(two, "mixtral", placement("mixtral", 2), company, dict(MODES["vanilla"], seed=6)).made
    assert again != other
    assert seen[0] != wanted("mixtral", F64, sampled)[0]


def test_more_ranks_than_requests_and_stop_tokens(four):
    one = requests(1, new=9)
    tokens, _ = plain("olmoe", F64, one[0].prompt, 9)
    stopped = Request(0, one[0].prompt, 9, stop=(tokens[3],), home=2)
    for mode in MODES.values():
        got = outcome(four, "olmoe", placement("olmoe", 4, seed=2), [(0, [stopped])], mode)
        assert got.made == {0: tokens[: tokens.index(tokens[3]) + 1]}


def test_no_context_is_left_behind(two):
    for mode in MODES.values():
        assert two.call(left, mode) == [0, 0]


def left(place, settings):
    runtime = Runtime(
        Shard.of(network("mixtral"), placement("mixtral", 2), place.rank), Wire(place.rank, place.ranks), **settings
    )
    runtime.run(requests(4, new=3))
    first = runtime.body.store.bytes
    for round_ in range(1, 4):
        runtime.run(requests(4, new=3, first=10 * round_))
    assert runtime.body.store.bytes == first  # slots were used again
    return len(runtime.body.store._slots)


def test_the_network_itself_is_left_as_it_was():
    before = {name: parameter.clone() for name, parameter in network("qwen3").named_parameters()}
    plan = placement("qwen3", 2, seed=1)
    shard = Shard.of(network("qwen3"), plan, 1)
    assert {name: list(p.shape) for name, p in network("qwen3").named_parameters()} == {
        name: list(p.shape) for name, p in before.items()
    }
    assert [layer.held for layer in shard.layers] == [plan.held(layer, 1) for layer in range(3)]
    for layer, experts in enumerate(shard.layers):
        whole = network("qwen3").model.layers[layer].mlp.experts.gate_up_proj
        assert torch.equal(experts.inner.gate_up_proj, whole[experts.held])


def test_wrong_settings():
    plan, whole = placement("mixtral", 2), placement("mixtral", 1)
    shard = Shard.of(network("mixtral"), whole, 0)
    with pytest.raises(BadInput, match="no mode 'eager': give one of vanilla, home, coherent"):
        Runtime(shard, mode="eager")
    with pytest.raises(BadInput, match="the placement is on 2 devices, there are 1 ranks"):
        Runtime(Shard.of(network("mixtral"), plan, 0))
    with pytest.raises(BadInput, match="free first hop belongs to the coherent mode"):
        Runtime(shard, free_first_hop=True)
    with pytest.raises(BadInput, match="for 2 routed layers of 8 experts, MixtralForCausalLM has 3 of 8"):
        Shard.of(network("mixtral"), placement("deepseek-v3", 2), 0)
    torch.set_num_threads(2)
    try:
        with pytest.raises(BadInput, match="deterministic mode wants one torch thread a rank, this one has 2"):
            Runtime(shard, deterministic=True)
    finally:
        torch.set_num_threads(1)
    runtime = Runtime(shard)
    for wrong, message in (
        (Request(0, (500,)), "outside the vocabulary of 120"),
        (Request(0, (5,), 64), "the network has positions for 64"),
        (Request(0, (5,), home=3), "asks for rank 3 of 1"),
    ):
        with pytest.raises(BadInput, match=message):
            runtime.admit([wrong])
    with pytest.raises(BadInput, match="a request 1 already"):
        runtime.admit([Request(1, (5,)), Request(1, (6,))])
    with pytest.raises(BadInput, match="empty prompt"):
        Request(0, ())
