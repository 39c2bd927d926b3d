"""The benchmark harness: order, ratios, flat figures; and that its naive sweep gives what the engine's gives."""

from __future__ import annotations

import argparse
import json
import types

import pytest
import torch

from bench import common, naive
from bench.patchscopes import __main__ as patchscopes
from bench.patchscopes import speed
from bench.peers import twin
from bench.sites import same
from intarsia.sites import sweep
from tests.tiny import tiny


def test_contenders_take_turns_and_each_round_begins_with_the_next():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    common.interleave(contenders, rounds=3, warmup=1)
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"


def test_only_the_contender_is_on_the_clock_and_the_warm_up_is_not_counted():
    now = [0.0]

    def takes(seconds):
        def once():
            now[0] += seconds

        return once

    timings = common.interleave({"a": takes(3.0), "b": takes(2.0)}, rounds=4, warmup=2, clock=lambda: now[0])
    assert timings["a"].seconds == (3.0,) * 4
    assert timings["b"].seconds == (2.0,) * 4
    assert common.ratio(timings["a"], timings["b"]) == 1.5


def test_a_ratio_is_taken_within_rounds_and_against_the_fastest():
    ours = common.Timing((1.0, 20.0, 3.0))  # the machine was slow for all in the second round
    slow, fast = common.Timing((4.0, 40.0, 6.0)), common.Timing((2.0, 16.0, 3.0))
    assert common.ratio(ours, slow) == 0.5
    assert common.ratio(ours, slow, fast) == 1.0


def test_median_and_quartiles():
    timing = common.Timing((1.0, 2.0, 3.0, 4.0, 100.0))
    assert timing.median == 3.0
    assert timing.spread == (2.0, 4.0)
    assert common.Timing((7.0,)).spread == (7.0, 7.0)


def test_figures_are_one_flat_object_of_numbers(tmp_path):
    path = tmp_path / "figures.json"
    common.write({"b": 2, "a": 1.25}, path)
    assert json.loads(path.read_text()) == {"a": 1.25, "b": 2}


@pytest.mark.parametrize("bad", [{"x": 1.0}, [1.0], "1", None, True, float("nan"), float("inf")])
def test_anything_else_is_no_figure(bad, tmp_path):
    with pytest.raises(TypeError, match="'a' must be a finite number"):
        common.write({"a": bad}, tmp_path / "figures.json")
    assert not (tmp_path / "figures.json").exists()


def test_a_peer_is_a_name_and_a_folder(tmp_path, capsys):
    parse = common.parser("").parse_args
    assert parse(["--peer", f"official={tmp_path}"]).peer == [("official", tmp_path)]
    for bad in ("official", f"={tmp_path}", f"official={tmp_path}/none"):
        with pytest.raises(SystemExit):
            parse(["--peer", bad])
        assert "NAME=DIR" in capsys.readouterr().err


def test_a_twin_shares_weights_and_nothing_else():
    network = tiny("llama").network
    other = twin(network)
    assert all(a is b for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert not set(map(id, network.modules())) & set(map(id, other.modules()))
    assert other.config is not network.config


def test_equal_means_equal_to_rounding():
    x = torch.randn(3, 4)
    assert same([x], [x + 1e-6])
    assert not same([x], [x + 0.1])
    assert not same([x], [x[:2]])
    assert not same([x], [x, x])


def test_sampled_cells_differ_and_reach_all_layers():
    for depth in (4, 30):
        cells = naive.sample(depth, depth)
        assert len(set(cells)) == depth
        assert {a for a, _ in cells} == {b for _, b in cells} == set(range(depth))
    assert len(naive.sample(30, 6)) == 6
    assert max(a for a, _ in naive.sample(30, 6)) >= 20


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("target_at", [-1, 3])
def test_the_naive_sweep_equals_the_engines(family, target_at):
    model = tiny(family)
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(10, 266, (1, n), generator=generator) for n in (6, 7))
    blocks = list(model.sites.blocks)
    logits = sweep(model, source, target, target_at=target_at, keep_logits=True).logits
    ids = sweep(model, source, target, target_at=target_at, max_new_tokens=4).ids
    unpatched = model.network(input_ids=target).logits[0, -1].detach()
    pairs = naive.sample(len(blocks), 8)
    low, high = zip(*pairs, strict=True)
    batched = naive.batch(model.network, blocks, source, target, pairs, target_at=target_at)
    assert same([batched], [logits[0, low, high]])
    batched = naive.batch(model.network, blocks, source, target, pairs, target_at=target_at, new_tokens=4)
    assert torch.equal(batched, ids[0, low, high])
    for pair in pairs:
        alone = naive.cell(model.network, blocks, source, target, pair, target_at=target_at)
        if target_at == -1 or pair[1] < len(blocks) - 1:  # else nothing reads what was patched
            assert not same([alone], [unpatched])
        assert same([alone], [logits[0, pair[0], pair[1]]])
        longer = naive.cell(model.network, blocks, source, target, pair, target_at=target_at, new_tokens=4)
        assert torch.equal(longer, ids[0, pair[0], pair[1]][: len(longer)])
    assert not any(m._forward_hooks for m in model.network.modules())


def test_the_parts_of_the_patchscopes_benchmark_run_in_order_into_one_file(tmp_path, monkeypatch, capsys):
    assert patchscopes.parts("multihop, speed") == ["speed", "multihop"]
    for bad in ("", "speed,lens"):
        with pytest.raises(argparse.ArgumentTypeError, match="give some of speed, lenses"):
            patchscopes.parts(bad)
    table = ("A title", ("", "figure"), [["one", "2"]])
    ran = []

    def module(name):
        def part(key, figure):
            return lambda options: (ran.append(key), ({figure: 1.5}, [table]))[1]

        keys = ("contamination", "attributes", "multihop") if name.endswith("tasks") else (name.rsplit(".")[-1],)
        return types.SimpleNamespace(**{f"run_{k}": part(k, "same" if k == "multihop" else k) for k in keys})

    monkeypatch.setattr(patchscopes.importlib, "import_module", module)
    monkeypatch.setattr(patchscopes, "start", lambda options: None)
    path = tmp_path / "figures.json"
    patchscopes.main(["--only", "multihop,lenses", "--json", str(path)])
    assert ran == ["lenses", "multihop"]
    assert json.loads(path.read_text()) == {"lenses": 1.5, "same": 1.5}
    assert "A title" in capsys.readouterr().out


def test_the_ways_of_the_speed_benchmark_say_the_same_on_a_tiny_network():
    model = tiny("llama")
    source, target = torch.tensor([[1, 30, 40]]), torch.tensor([[1, 70, 80, 90]])
    for new_tokens in (0, 3):
        totals, taken = speed.measure(model, None, source, target, new_tokens, cells=4, batch=5, rounds=1)
        assert set(totals) == {"intarsia", "one by one", "naive batch"} and min(totals.values()) > 0
        assert taken == {"intarsia": 16, "one by one": 4, "naive batch": 5}
    broken = lambda *args, **kwargs: types.SimpleNamespace(  # noqa: E731
        ids=torch.zeros(1, 4, 4, 3, dtype=torch.long), logits=torch.zeros(1, 4, 4, 300)
    )
    for new_tokens in (0, 3):
        with pytest.raises(AssertionError, match="than one by one"):
            speed.measure(model, None, source, target, new_tokens, cells=4, batch=5, rounds=1, ours=broken)
