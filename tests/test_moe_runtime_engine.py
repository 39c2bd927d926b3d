"""The engine in front of the ranks, the check against one process, modelled times and simulations."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from intarsia.errors import BadInput, IntarsiaError, Note
from intarsia.models import wrap
from intarsia.moe.placement.placement import Placement, contiguous
from intarsia.moe.runtime import (
    LINKS,
    Effort,
    Engine,
    Link,
    RankFailure,
    Ranks,
    Sizes,
    calibrate,
    chain,
    choose,
    drawn,
    link,
    modelled,
    replay_trace,
    simulate,
    totals,
    verify,
)
from tests.moe_help import network, placement, plain, requests
from tests.tiny import tiny

pytestmark = pytest.mark.xdist_group("moe_runtime")
DATA = Path(os.environ.get("INTARSIA_DATA", Path(__file__).parents[2] / "shared" / "data")) / "moe"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the two small trained networks are not there")


@pytest.fixture(scope="module")
def engine():
    with Engine.start(wrap(network("olmoe")), placement("olmoe", 2, seed=1), mode="coherent", record=True) as started:
        yield started


def test_prompts_together_and_one_by_one(engine):
    every = requests(4)
    wanted = [plain("olmoe", torch.float64, r.prompt, 6)[0] for r in every]
    together = engine.generate([r.prompt for r in every], 6, stop=())
    assert [list(c.tokens) for c in together] == wanted
    streams = [engine.submit(r.prompt, 6, stop=()) for r in every]  # they join while others run
    chunks = [list(stream) for stream in streams]
    assert [[c.token for c in one] for one in chunks] == wanted
    assert [[c.last for c in one] for one in chunks] == [[False] * 5 + [True]] * 4
    stop = wanted[0][2]
    (stopped,) = engine.generate([every[0].prompt], 6, stop=[stop])
    assert list(stopped.tokens) == wanted[0][: wanted[0].index(stop) + 1]


def test_threads_share_an_engine(engine):
    every, made = requests(6), {}

    def ask(one):
        made[one.id] = list(engine.submit(one.prompt, 5, stop=()).result().tokens)

    threads = [threading.Thread(target=ask, args=(one,)) for one in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == {one.id: plain("olmoe", torch.float64, one.prompt, 5)[0] for one in every}


def test_a_request_can_be_cancelled(engine):
    stream, other = engine.submit((20, 21), 50, stop=()), engine.submit((30,), 5, stop=())
    assert next(iter(stream)).token == plain("olmoe", torch.float64, (20, 21), 1)[0][0]
    stream.cancel()
    with pytest.raises(IntarsiaError, match="was cancelled"):
        stream.result()
    assert list(other.result().tokens) == plain("olmoe", torch.float64, (30,), 5)[0]


def test_what_cannot_be_run_is_refused_and_the_engine_goes_on(engine):
    for prompt, settings, message in (
        ((500,), {}, "outside the vocabulary of 120"),
        ((5,), dict(max_new_tokens=64), "the network has positions for 64"),
        ((), {}, "empty prompt"),
        ("a text", {}, "no tokenizer: give prompts as token ids"),
        ((5,), dict(temperature=-1), "temperature >= 0"),
    ):
        with pytest.raises(BadInput, match=message):
            engine.submit(prompt, **{"max_new_tokens": 4, **settings})
    with pytest.raises(BadInput, match="no mode 'fast'"):
        engine.use("fast")
    assert len(engine.generate([(5,)], 2, stop=())[0].tokens) == 2
    running = engine.submit((20, 21), 60, stop=())
    next(iter(running))
    with pytest.raises(BadInput, match="1 requests are running"):
        engine.use("vanilla")
    running.result()


def test_reports_and_other_modes(engine):
    engine.use("vanilla")
    engine.generate([(5, 6, 7)] * 3, 4, stop=())
    reports = engine.report()
    assert [r["rank"] for r in reports] == [0, 1]
    held = [sum(map(len, r["held_experts"])) for r in reports]
    assert sum(held) == 24 and all(
        r["expert_bytes"] / h == reports[0]["expert_bytes"] / held[0] for r, h in zip(reports, held, strict=True)
    )
    assert all(r["traffic"]["decode"]["kv_bytes"] == 0 for r in reports)
    assert all(r["resident_bytes"] > r["expert_bytes"] + r["replicated_bytes"] > 0 for r in reports)
    engine.use("coherent", True)
    engine.generate([(5, 6, 7)] * 3, 4, stop=())
    assert all(r["traffic"]["decode"]["kv_bytes"] > 0 for r in engine.report())
    assert [kept.traffic.new_tokens for kept in engine.kept()] == [9, 9]


def test_text_comes_in_pieces_that_join():
    model = tiny("mixtral", bos=True)
    with Engine.start(model, ranks=2, mode="home") as engine:
        stream = engine.submit("Où est le café ?", 20, stop=())
        pieces = list(stream)
        ids = model.tokenizer("Où est le café ?", return_tensors="pt")["input_ids"]
        wanted = model.network.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None)[0, ids.shape[1] :]
        assert [p.token for p in pieces] == wanted.tolist()
        assert "".join(p.text for p in pieces) == model.tokenizer.decode(wanted, skip_special_tokens=True)
        assert engine.stop_tokens == (2,)


def test_a_killed_rank_reaches_whoever_waits():
    with Engine.start(wrap(network("mixtral")), ranks=3, mode="vanilla") as engine:
        pids = engine._ranks.pids
        streams = [engine.submit((5, 6), 60, stop=()) for _ in range(3)]
        next(iter(streams[0]))
        start = time.monotonic()
        os.kill(pids[2], signal.SIGKILL)
        for stream in streams:
            with pytest.raises(RankFailure, match=r"^rank 2 of 3 was killed by signal 9 \(SIGKILL\)"):
                while True:
                    stream.result()
                    stream = engine.submit((5, 6), 60, stop=())
        assert time.monotonic() - start < 15
        with pytest.raises(IntarsiaError, match="rank 2 of 3 was killed"):
            engine.submit((5,), 2)
        with pytest.raises(IntarsiaError, match="rank 2 of 3 was killed"):
            engine.report()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_stopped_engine_tells_whoever_waits():
    engine = Engine.start(wrap(network("mixtral")), ranks=2, mode="vanilla")
    stream = engine.submit((5, 6), 60, stop=())
    next(iter(stream))
    pids = engine._ranks.pids
    engine.stop()
    with pytest.raises(IntarsiaError, match="the engine was stopped"):
        stream.result()
    with pytest.raises(IntarsiaError, match="the engine was stopped"):
        engine.generate([(5,)], 2)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    engine.stop()  # once more does no harm


def test_wrong_starts(tmp_path):
    with pytest.raises(BadInput, match="is no folder"):
        Engine.start(tmp_path / "none")
    with pytest.raises(BadInput, match="has no fused experts: a mixture-of-experts network is wanted"):
        Engine.start(tiny("llama"))
    with pytest.raises(BadInput, match="placement is on 2 devices, 3 ranks were asked for"):
        Engine.start(wrap(network("olmoe")), placement("olmoe", 2), ranks=3)
    with pytest.raises(BadInput, match="0 ranks"):
        Engine.start(wrap(network("olmoe")), ranks=0)
    with pytest.raises(BadInput, match="for 2 routed layers of 8 experts"):
        Engine.start(wrap(network("olmoe")), placement("deepseek-v3", 1))
    other = Placement(contiguous(3, 8, 1), 1, router_sha256="0" * 64)
    with pytest.warns(Note, match="made for other router weights"):
        Engine.start(wrap(network("olmoe")), other).stop()


def test_the_routers_hash_is_that_of_the_trace_recorder():
    from intarsia.moe.routing.recording import router_sha256

    model = wrap(network("qwen3"))
    with Engine.start(model, ranks=1, deterministic=True) as engine:
        assert engine.facts["router_sha256"] == router_sha256(model)


# ---- the check against one process


def test_verification_passes_and_sees_what_is_wrong(monkeypatch):
    prompts = [r.prompt for r in requests(3)]
    good = verify(wrap(network("qwen3")), placement("qwen3", 2, seed=3), prompts, new_tokens=5, deterministic=True)
    assert [v.mode for v in good] == ["vanilla", "home", "coherent"]
    for one in good:
        assert one.passed and one.same_bits and one.gap <= 1e-12 and one.tokens == 15 and one.counters_agree
        assert one.experts == 3 * sum(len(p) + 4 for p in prompts) and one.other_experts == one.other_tokens == 0
    # The same ranks against another network: nothing may agree.
    from intarsia.moe.runtime import verifying

    other = tiny("qwen3-moe", seed=5).network
    monkeypatch.setattr(verifying, "_plain", lambda model, dtype: wrap(_like(other)))
    (bad,) = verify(wrap(network("qwen3")), placement("qwen3", 2), prompts, new_tokens=5, modes=["vanilla"])
    assert not bad.passed and bad.gap > 0.01 and bad.other_tokens and bad.other_experts


def _like(_):
    import copy

    made = copy.deepcopy(network("qwen3"))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.mark.real
@needs_data
@pytest.mark.parametrize("name, experts, ranks", [("olmoe-8x32e-top1", 32, 2), ("mixtral-8x16e-top2", 16, 2)])
def test_trained_networks_give_their_own_tokens(name, experts, ranks):
    prompts = ["The old house stood by the river", "Return a list of the", "def main(", "It was a dark and"]
    plan = Placement(contiguous(8, experts, ranks), ranks)
    for one in verify(DATA / name / "late", plan, prompts, new_tokens=64, dtype=torch.float64):
        assert one.passed and one.tokens == 256 and one.gap <= 1e-12, one


# ---- modelled times


def test_modelled_time_is_the_formula():
    effort = Effort(steps=10, tokens=160, collectives=170, critical_bytes=4_000_000, busiest_rows=900)
    got = modelled(effort, 4, Link("x", 5e-6, 1e9), row=2e-6, fixed=1e-3)
    assert got.latency == pytest.approx(17 * 5e-6 * 3)
    assert got.transfer == pytest.approx(400_000 / 1e9)
    assert got.compute == pytest.approx(90 * 2e-6)
    assert got.seconds == pytest.approx(17 * 15e-6 + 4e-4 + 1.8e-4 + 1e-3)


def _sizes(width, context, layers=8, element=2):
    return Sizes(width * element, element, (2 * context * element,) * layers, tuple(range(layers)))


def test_auto_moves_tokens_where_latency_counts_and_states_where_contexts_are_dear():
    slow, plan = Link("slow to begin", 100e-6, 25e9), Placement(contiguous(8, 16, 4), 4)
    one = choose(plan, _sizes(128, 128), slow, k=1)
    assert one.mode == "coherent" and "modelled" in one.reason and "routing at random" in one.reason
    assert one.modelled["coherent"].seconds < 0.7 * one.modelled["vanilla"].seconds
    two = choose(plan, _sizes(128, 64), slow, k=2)
    assert two.mode == "vanilla" and "modelled" in two.reason
    thin = choose(plan, _sizes(4096, 4096), Link("thin", 1e-6, 1e7), k=1)
    assert thin.mode == "vanilla"  # bytes decide there, and the contexts' are many
    latent = choose(plan, _sizes(4096, 40), Link("thin", 1e-6, 1e7), k=1)
    assert latent.mode == "coherent"  # (MLA: a short context goes over quickly)
    assert choose(Placement(contiguous(8, 16, 1), 1), _sizes(128, 128), slow, k=1).mode == "vanilla"


def test_auto_sees_homes_in_routing_that_stays():
    """Requests whose tokens always use one device's experts: with the right home nothing is sent."""
    rng = np.random.default_rng(0)
    request = np.repeat(np.arange(16), 24)
    favourite = rng.permutation(np.arange(16) % 4)[request]
    ids = favourite[:, None, None] * 4 + rng.permuted(np.tile(np.arange(4), (len(request), 8, 1)), axis=2)[:, :, :2]
    plan = Placement(contiguous(8, 16, 4), 4)
    got = choose(plan, _sizes(512, 512), Link("thin", 1e-6, 1e7), k=2, routing=(ids, request))
    assert got.mode == "home" and "live near their experts" in got.reason
    sizes = _sizes(512, 512)
    traffic = replay_trace(ids, request, plan, "home", sizes, prompt=8).traffic
    assert totals(traffic).rows == 0 < totals(replay_trace(ids, request, plan, "vanilla", sizes, prompt=8).traffic).rows


def test_thin_links_send_counts_first_and_thick_ones_with_the_rows():
    made = []
    for one, delay in ((Link("thin", 1e-6, 1e6), 0.0), (Link("thick", 1e-3, 1e9), 0.002)):
        start = time.monotonic()
        with Engine.start(
            wrap(network("olmoe")), ranks=2, mode="vanilla", link=one, delay=delay, record=True
        ) as engine:
            start = time.monotonic()
            engine.generate([(5, 6), (7, 8, 9)], 6, stop=())
            kept = engine.kept()
            assert time.monotonic() - start > delay * kept[0].traffic.decode.collectives
            made.append(totals([rank.traffic for rank in kept]))
    assert made[0].collectives == 5 * (3 * 3 + 1) and made[1].collectives == 5 * (3 * 2 + 1)
    assert made[0].padding_bytes == 0 < made[1].padding_bytes and made[0].rows == made[1].rows


def test_links():
    assert all(one.placeholder and "placeholder" in str(one) for one in LINKS.values())
    assert link("hdr200").beta == 25e9
    with pytest.raises(BadInput, match=r"no link 'nvlnk' \(did you mean nvlink"):
        link("nvlnk")
    with Ranks(2) as ranks:
        found = calibrate(ranks, repeats=5)
    assert not found.placeholder and "measured" in str(found)
    assert 1e-6 < found.alpha < 1 and 1e6 < found.beta < 1e12
    with Ranks(1) as ranks, pytest.raises(BadInput, match="one rank alone has no link"):
        calibrate(ranks)


# ---- simulation


def test_drawn_routing_follows_its_shares():
    flow = chain(4, 8, seed=1)
    np.testing.assert_allclose(flow.sum((1, 2)), 1)
    np.testing.assert_allclose(flow.sum(1), 1 / 8, rtol=1e-6)
    ids, request = drawn(flow, None, 1, 40, 500, seed=2)
    assert ids.shape == (20_000, 4, 1) and np.bincount(request).tolist() == [500] * 40
    for layer in range(3):
        seen = np.zeros((8, 8))
        np.add.at(seen, (ids[:, layer, 0], ids[:, layer + 1, 0]), 1 / len(ids))
        assert np.abs(seen - flow[layer]).max() < 0.01
    mates = np.zeros((4, 8, 8))
    mates[:, range(8), [1, 0, 3, 2, 5, 4, 7, 6]] = 1
    pairs, _ = drawn(flow, mates, 2, 4, 100)
    assert (pairs[:, :, 0] // 2 == pairs[:, :, 1] // 2).all() and (pairs[:, :, 0] != pairs[:, :, 1]).all()
    three, _ = drawn(flow, None, 3, 4, 50)
    assert all(len(set(row)) == 3 for row in three.reshape(-1, 3))
    with pytest.raises(BadInput, match="9 experts of 8"):
        drawn(flow, None, 9, 1, 1)


def test_simulated_lines_say_what_they_are_and_what_placement_saves():
    flow, devices = chain(6, 32, seed=0), 8
    routing = drawn(flow, None, 1, 16, 40, seed=1)
    from intarsia.moe.placement import Problem, solve

    placed = Placement(solve(Problem(flow, devices), effort=5).device_of, devices)
    plain_one = Placement(contiguous(6, 32, devices), devices)
    lines = simulate(routing, {"contiguous": plain_one, "placed": placed}, _sizes(256, 256, 6), link("hdr200"))
    assert len(lines) == 6 and {one.what for one in lines} == {"simulation"}
    by = {(one.placement, one.mode): one for one in lines}
    assert by["placed", "coherent"].traffic.rows < 0.85 * by["contiguous", "coherent"].traffic.rows
    assert by["contiguous", "vanilla"].traffic.rows == pytest.approx(2 * 6 * (1 - 1 / devices), rel=0.05)
    assert all(one.modelled_seconds > 0 and "placeholder" in one.link and one.devices == 8 for one in lines)


def test_traces_too_short_for_their_prompt():
    plan = Placement(contiguous(2, 4, 2), 2)
    with pytest.raises(BadInput, match="sequence 3 has 4 tokens, more than the prompt's 4 wanted"):
        replay_trace(np.zeros((4, 2, 1), int), np.full(4, 3), plan, "vanilla", _sizes(8, 8, 2), prompt=4)


@pytest.mark.real
@needs_data
def test_rows_of_trained_networks_are_the_specifications():
    """Decode rows per token and layer of the trained networks, contiguous on four devices (specification 9.3)."""
    for name, mode, experts, expected in (
        ("mixtral-8x16e-top2", "vanilla", 16, 2.67),
        ("olmoe-8x32e-top1", "vanilla", 32, 1.51),
        ("mixtral-8x16e-top2", "coherent", 16, 2.09),
        ("olmoe-8x32e-top1", "coherent", 32, 0.76),
    ):
        rows = []
        for corpus in ("novels", "docs"):
            trace = np.load(DATA / "traces" / f"{name}.late.{corpus}.npz")
            late = trace["seq"] >= 32
            ids, seq = trace["expert_ids"][late].astype(int), trace["seq"][late]
            sizes = _sizes(128, 128)
            plan = Placement(contiguous(8, experts, 4), 4)
            rows.append(totals(replay_trace(ids, seq, plan, mode, sizes, prompt=128, batch=32).traffic).rows / 8)
        assert np.mean(rows) == pytest.approx(expected, rel=0.06), (name, mode, rows)
