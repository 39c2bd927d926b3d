"""A local model is there soon: layers are packed while it answers, a kind of network is proved once, and a process may
end at any time."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import torch

import intarsia as ia
from intarsia.models import cache
from intarsia.prompting.base import Sampling
from intarsia.prompting.base.local import network, open_local, packing
from intarsia.prompting.base.local.packing import PackedLinear
from intarsia.prompting.base.local.proved import FILE, kind_of
from tests.tiny import tiny


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))


def asked(backend, count=40):
    async def work():
        reply = await backend.generate([20, 21, 22], Sampling(max_tokens=count))
        await backend.close()
        return reply

    return asyncio.run(work())


def packed(backend):
    kinds = [type(m) for m in backend.engine.runner.network.modules()]
    return kinds.count(PackedLinear), kinds.count(torch.nn.Linear)


def test_layers_are_packed_while_answers_are_made(monkeypatch):
    monkeypatch.setattr(packing, "AT_ONCE", 1)
    model = tiny("llama")
    backend, plain = open_local(model, threads=1), open_local(model, threads=1, packed=False)
    none, linears = packed(backend)
    assert none == 0 < linears and backend.engine._thread is None  # nothing runs until somebody asks
    assert asked(backend).tokens == asked(plain).tokens
    assert packed(backend) == (linears, 0) and packed(plain) == (0, linears)
    assert not any(isinstance(m, PackedLinear) for m in model.network.modules())


def test_a_layer_that_packed_gives_other_numbers_stays_plain(monkeypatch):
    def wrong(self, given):
        out = torch.nn.functional.linear(given, self.weight, self.bias)
        return out + (self.out_features == 48)  # (the wide layers of this network)

    monkeypatch.setattr(PackedLinear, "forward", wrong)
    model = tiny("llama")
    widths = {m.out_features for m in model.network.modules() if isinstance(m, torch.nn.Linear)}
    packing.pack(model.network)
    left = {m.out_features for m in model.network.modules() if isinstance(m, torch.nn.Linear)}
    assert 48 in widths and len(widths) > 1 and left == {48}


def saved(folder, family="llama", **change):
    model = tiny(family, **change)
    model.save(folder)
    return ia.load(str(folder))


def test_one_proof_is_enough_for_a_kind_of_network(tmp_path, monkeypatch):
    proofs = []
    prove = network.NetworkRunner._prove
    monkeypatch.setattr(network.NetworkRunner, "_prove", lambda *given: proofs.append(1) or prove(*given))
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two", seed=1)
    assert kind_of(one) == kind_of(two) is not None
    first = asked(open_local(tmp_path / "one", threads=1)).tokens
    assert len(proofs) == 1
    assert asked(open_local(tmp_path / "two", threads=1)).tokens != first and len(proofs) == 1  # weights do not matter
    saved(tmp_path / "gpt", "gpt2")
    open_local(tmp_path / "gpt", threads=1)
    assert len(proofs) == 2
    open_local(one, threads=1)  # nobody knows what was done to it since it was loaded
    open_local(tmp_path / "one", threads=1, packed=True)  # what is packed beforehand is proved with the rest
    assert len(proofs) == 4
    (cache.cache_dir() / FILE).write_text("broken")
    open_local(tmp_path / "one", threads=1)
    assert len(proofs) == 5


def test_what_makes_a_kind(tmp_path):
    model = saved(tmp_path / "one")
    kind = kind_of(model)
    other = saved(tmp_path / "two")
    other.network.config.rms_norm_eps *= 2
    assert kind_of(other) not in (None, kind)
    assert kind_of(ia.load(str(tmp_path / "one"), dtype=torch.bfloat16)) not in (None, kind)
    model.network.lm_head = torch.nn.Linear(32, 299, bias=False)
    assert kind_of(model) not in (None, kind)

    class Own(torch.nn.Linear):
        pass

    model.network.lm_head = Own(4, 4)
    assert kind_of(model) is None


def test_a_process_may_end_in_the_middle_of_a_job():
    code = """
import time, torch
from intarsia.prompting.base.local.engine import Engine
def job(_):
    x = torch.ones(400, 400)
    while True:
        x = torch.tanh(x @ x)
        yield
engine = Engine(None, "busy", threads=1)
engine.runner = type("Rows", (), {"rows": 1})()
engine.do(job)
time.sleep(0.05)
print("over")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
