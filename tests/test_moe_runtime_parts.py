"""The parts of expert parallelism: what a rank loads, how ranks end, how bytes are packed, homes and tiles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from intarsia.errors import BadInput, IntarsiaError
from intarsia.moe.placement.placement import Placement, contiguous
from intarsia.moe.runtime import RankFailure, Ranks, Runtime, Shard, launch
from intarsia.moe.runtime.exchange import pack, unpack
from intarsia.moe.runtime.experts import PlacedExperts
from intarsia.moe.runtime.homes import nearest, spread
from intarsia.moe.runtime.request import Request, Running, choose
from intarsia.moe.runtime.shard import _Reader
from intarsia.moe.runtime.tiles import Tiled, TiledLinear
from tests.moe_help import network, placement, plain, requests

pytestmark = pytest.mark.xdist_group("moe_runtime")


# ---- what a rank loads


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each network as transformers saves it (a tensor for each expert), and once with fused tensors."""
    made = {}
    for name in ("mixtral", "olmoe", "qwen3", "qwen2", "deepseek-v3", "gpt-oss"):
        made[name] = tmp_path_factory.mktemp(name)
        network(name).save_pretrained(made[name])
    fused = made["fused"] = tmp_path_factory.mktemp("fused")
    network("mixtral").config.save_pretrained(fused)
    save_file({k: v.contiguous() for k, v in network("mixtral").state_dict().items()}, fused / "model.safetensors")
    return made


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen3", "qwen2", "deepseek-v3", "gpt-oss", "fused"])
def test_a_rank_reads_its_experts_and_no_others(name, folders, monkeypatch):
    source = network("mixtral" if name == "fused" else name)
    plan = placement("mixtral" if name == "fused" else name, 2, seed=4)
    bytes_of, sizes = [], {}
    read: list[int] = []
    experts = _Reader.experts

    def watched(self, key, held, like):
        made = experts(self, key, held, like)
        read.append(made.numel())
        return made

    monkeypatch.setattr(_Reader, "experts", watched)
    for rank in range(2):
        read.clear()
        shard = Shard.load(folders[name], plan, rank, dtype="auto")
        held = [plan.held(layer, rank) for layer in range(len(plan.device_of))]
        modules = [m for _, m in source.named_modules() if any(p.dim() == 3 for p in m.parameters(recurse=False))]
        for layer, (ours, theirs) in enumerate(zip(shard.layers, modules, strict=True)):
            assert ours.held == held[layer]
            for key, whole in theirs.named_parameters(recurse=False):
                assert torch.equal(getattr(ours.inner, key), whole[held[layer]])
        memory = shard.memory()
        assert memory.experts == 8 * sum(read)  # what was read is what is held, and nothing else of the experts
        bytes_of.append(memory.experts)
        sizes[rank] = memory.replicated
        theirs = source.state_dict()
        for key, tensor in shard.network.state_dict().items():
            if ".experts." not in key:
                assert torch.equal(tensor, theirs[key]), key
        assert memory.resident > memory.experts + memory.replicated
    whole = sum(p.numel() * 8 for m in modules for p in m.parameters(recurse=False))
    assert sum(bytes_of) == whole and sizes[0] == sizes[1] > 0


def test_a_loaded_rank_gives_the_networks_tokens(folders):
    plan = Placement(contiguous(3, 8, 1), 1)
    for name in ("mixtral", "olmoe"):
        runtime = Runtime(Shard.load(folders[name], plan, 0, dtype="auto"))
        one = requests(1)[0]
        assert runtime.run([one]) == {0: plain(name, torch.float64, one.prompt, one.max_new_tokens)[0]}


def test_folders_that_cannot_be_split(folders, tmp_path):
    plan = Placement(contiguous(3, 8, 2), 2)
    with pytest.raises(BadInput, match="is no folder: give a model folder"):
        Shard.load(tmp_path / "none", plan, 0)
    with pytest.raises(BadInput, match="for 4 routed layers of 8 experts, MixtralForCausalLM has 3 of 8"):
        Shard.load(folders["mixtral"], Placement(contiguous(4, 8, 2), 2), 0)
    tensors = load_file(folders["olmoe"] / "model.safetensors")
    network("olmoe").config.save_pretrained(tmp_path)
    for missing, message in (
        ("model.layers.1.mlp.experts.5.up_proj.weight", "has no model.layers.1.mlp.experts.5.up_proj.weight"),
        ("model.layers.2.self_attn.q_norm.weight", "q_norm"),
        ("model.layers.2.self_attn.q_proj.weight", "has no weights for model.layers.2.self_attn.q_proj.weight"),
    ):
        save_file({k: v for k, v in tensors.items() if k != missing}, tmp_path / "model.safetensors")
        with pytest.raises(BadInput, match=message):
            Shard.load(tmp_path, plan, 1)


# ---- how ranks end


def add(place, number):
    return place.rank + number


def slow(place, seconds):
    import torch.distributed as dist

    for _ in range(int(seconds * 100)):
        dist.all_to_all_single(torch.empty(place.ranks), torch.zeros(place.ranks))
        time.sleep(0.01)


def exchanging(place, rounds):
    from intarsia.moe.runtime import Wire

    wire = Wire(place.rank, place.ranks)
    for _ in range(rounds):
        wire.exchange([torch.zeros(4, dtype=torch.uint8)] * place.ranks, [4] * place.ranks)
        time.sleep(0.01)


def failing(place, who):
    if place.rank == who:
        raise ValueError("the disk\nis full")
    exchanging(place, 3000)


def refusing(place):
    raise BadInput("all ranks think so")


def hanging(place, who):
    if place.rank == who:
        time.sleep(60)
    exchanging(place, 1)


def test_ranks_are_called_again_and_again():
    with Ranks(3) as ranks:
        assert ranks.call(add, 10) == [10, 11, 12]
        with pytest.raises(BadInput, match=r"^all ranks think so$"):
            ranks.call(refusing)
        assert ranks.call(add, 20) == [20, 21, 22]
        pids = ranks.pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(IntarsiaError, match="have been stopped"):
        ranks.call(add, 1)
    assert launch(add, 1, 5) == [5]


def test_a_killed_rank_ends_the_others_with_a_line():
    import threading

    with Ranks(3) as ranks:
        pids = ranks.pids
        threading.Timer(0.5, os.kill, (pids[1], signal.SIGKILL)).start()
        start = time.monotonic()
        with pytest.raises(RankFailure, match=r"^rank 1 of 3 was killed by signal 9 \(SIGKILL\) .*stopped$") as caught:
            ranks.call(exchanging, 3000)
        assert time.monotonic() - start < 15
    assert set(caught.value.others) == {0, 2}
    for rank, line in caught.value.others.items():
        assert line.startswith(f"rank {rank}: another rank is gone or hangs") and "\n" not in line
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_rank_that_fails_ends_the_others():
    start = time.monotonic()
    with pytest.raises(
        RankFailure, match=r"^rank 2 failed: ValueError: the disk \(while running failing\); all ranks"
    ) as caught:
        launch(failing, 3, 2)
    assert set(caught.value.others) == {0, 1}
    assert time.monotonic() - start < 20


def test_a_rank_that_hangs_is_noticed():
    start = time.monotonic()
    with pytest.raises(RankFailure, match="rank 0: another rank is gone or hangs") as caught:
        launch(hanging, 2, 1, timeout=2)
    assert caught.value.others == {1: "was stopped: it did not come back"}
    assert time.monotonic() - start < 20


def test_wrong_ranks():
    with pytest.raises(BadInput, match="0 ranks cannot run anything"):
        Ranks(0)
    with pytest.raises(BadInput, match="no device 'tpu'"):
        Ranks(2, device="tpu")


SCRIPT = """
import os, sys, torch
from intarsia.moe.runtime import Runtime, Shard, Wire, joined
from tests.moe_help import network, placement, requests
with joined(timeout=20) as place:
    runtime = Runtime(Shard.of(network("olmoe"), placement("olmoe", 2), place.rank), Wire(place.rank, place.ranks))
    made = runtime.run(requests(2))
    if sys.argv[1] == "die":
        if place.rank == 1:
            os.kill(os.getpid(), 9)
        try:
            runtime.run(requests(2, first=5))
        except Exception as error:
            print(f"LINE {error}", flush=True)
            raise SystemExit(1)
    elif place.rank == 0:
        print("MADE", made)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["live", "die"])
def test_torchrun(what, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), what]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    if what == "live":
        made = {r.id: plain("olmoe", torch.float64, r.prompt, r.max_new_tokens)[0] for r in requests(2)}
        assert f"MADE {made}" in done.stdout, done.stderr
    else:
        assert done.returncode != 0
        assert "LINE rank 0: another rank is gone or hangs" in done.stdout, done.stderr


ORPHANS = """
import os, signal
from intarsia.moe.runtime import Ranks
if __name__ == "__main__":
    ranks = Ranks(2)
    print(*ranks.pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_ranks_end_with_their_parent(tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2 and done.returncode == -signal.SIGKILL
    until = time.monotonic() + 15
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)


# ---- small parts

_TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int32]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 5), kinds=st.lists(st.tuples(st.sampled_from(_TYPES), st.integers(1, 5)), min_size=1))
def test_packed_rows_come_out_as_they_went_in(rows, kinds):
    columns = [torch.randint(-100, 100, (rows, width)).to(dtype) for dtype, width in kinds]
    packed = pack(*columns)
    assert packed.shape == (rows, sum(width * dtype.itemsize for dtype, width in kinds))
    back = unpack(packed, *kinds)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(columns, back, strict=True))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), ranks=st.integers(1, 4), new=st.integers(1, 5))
def test_homes_take_the_most_rows_within_everyones_share(data, ranks, new):
    import itertools

    rows = {i: data.draw(st.lists(st.integers(0, 9), min_size=ranks, max_size=ranks)) for i in range(new)}
    load = data.draw(st.lists(st.integers(0, 3), min_size=ranks, max_size=ranks))
    asked = {0: ranks - 1} if data.draw(st.booleans()) else {}
    homes = nearest(rows, load, asked)
    assert homes.keys() == rows.keys() and all(homes[i] == r for i, r in asked.items())
    taken = [n + sum(r == rank for r in asked.values()) for rank, n in enumerate(load)]
    free = [i for i in rows if i not in asked]
    most = -(-(sum(taken) + len(free)) // ranks)

    def allowed(choice):
        return all(choice.count(r) <= max(0, most - taken[r]) for r in range(ranks))

    best = [
        sum(rows[i][r] for i, r in zip(free, c, strict=True))
        for c in itertools.product(range(ranks), repeat=len(free))
        if allowed(c)
    ]
    assert allowed([homes[i] for i in free])
    assert sum(rows[i][homes[i]] for i in free) == max(best)


def test_new_requests_go_where_there_are_few():
    assert spread([2, 0, 1], [None, None, None, None]) == [1, 1, 2, 0]
    assert spread([0, 0], [1, None, 0]) == [1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tiles_do_not_care_for_the_other_rows(dtype):
    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 80, bias=True).to(dtype)
    tiled, rows = TiledLinear(linear), torch.randn(37, 96, dtype=dtype)
    whole = tiled(rows)
    torch.testing.assert_close(whole, linear(rows))
    for count in (1, 2, 3, 5, 16, 17, 36):
        assert torch.equal(tiled(rows[-count:]), whole[-count:])
    assert tiled(rows[:0]).shape == (0, 80) and tiled(rows[None]).shape == (1, 37, 80)
    router = network("mixtral").model.layers[0].mlp.gate
    states = torch.randn(19, 32, dtype=torch.float64)
    for ours, theirs in zip(Tiled(router)(states), router(states), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert Tiled(router).top_k == router.top_k


def test_tiled_experts_give_a_row_the_same_bits_in_any_company():
    inner = network("mixtral", torch.float32).model.layers[0].mlp.experts
    experts = PlacedExperts(inner, list(range(8)), 8)
    states, chosen = torch.randn(40, 32), torch.randint(0, 8, (40, 1))
    weights = torch.rand(40, 1)
    untiled = experts(states, chosen, weights)
    experts.tiled = True
    whole = experts(states, chosen, weights)
    torch.testing.assert_close(whole, untiled)
    for count in (1, 3, 7, 39):
        assert torch.equal(experts(states[-count:], chosen[-count:], weights[-count:]), whole[-count:])


def test_draws_follow_the_shares():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])

    def counts(**more):
        seen = np.zeros(4)
        for i in range(800):
            seen[choose(logits, [Running(Request(i, (1,), temperature=1.0, **more), 0)], 0)[0]] += 1
        return seen / 800

    np.testing.assert_allclose(counts(), logits[0].softmax(-1), atol=0.06)
    np.testing.assert_allclose(counts(top_k=2), [0.731, 0.269, 0, 0], atol=0.06)
    np.testing.assert_allclose(counts(top_p=0.7), [0.731, 0.269, 0, 0], atol=0.06)
    assert counts(top_p=0.5)[0] == 1
    assert choose(logits, [Running(Request(0, (1,)), 0)], 0) == [0]
