"""Cost: parameters, bytes and MACs equal numbers worked out by hand; the rest is sane and marked as volatile."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from intarsia.catalog import find
from intarsia.errors import BadInput, MissingExtra
from intarsia.measure import Cost, EngineCost, compare_speed, cost, provenance
from intarsia.measure import size as sizes
from intarsia.measure import speed as speeds
from intarsia.measure.memory import own_peak, peak_memory
from intarsia.report import Finding
from tests.tiny import VOCAB, tiny

QUICK = {"prompt_tokens": 12, "new_tokens": 3, "repeats": 2, "memory": False, "energy": False}
# tests/tiny.py's Llama
WIDTH, MLP, LAYERS, KV = 32, 48, 4, 16


def llama_parameters() -> int:
    attention = 2 * WIDTH * WIDTH + 2 * WIDTH * KV
    return 2 * VOCAB * WIDTH + LAYERS * (attention + 3 * WIDTH * MLP + 2 * WIDTH) + WIDTH


def llama_macs(tokens: int) -> int:
    attention = 2 * WIDTH * WIDTH + 2 * WIDTH * KV + 2 * tokens * WIDTH  # projections; scores and weighted sum
    return VOCAB * WIDTH + LAYERS * (attention + 3 * WIDTH * MLP)


def test_llama_by_hand():
    model = tiny("llama")
    model.network.model.layers[0].mlp.up_proj.weight.data[:5] = 0
    model.network.model.embed_tokens.weight.requires_grad_(False)
    found = cost(model, **QUICK)
    assert found.parameters == llama_parameters()
    assert found.trainable == llama_parameters() - VOCAB * WIDTH
    assert found.nonzero == llama_parameters() - 5 * WIDTH
    assert found.tensor_bytes == 4 * llama_parameters()
    assert found.tensor_bytes < found.bytes_on_disk["torch"] < found.tensor_bytes + 20_000  # plus the file's header
    assert found.macs_per_token == llama_macs(12)
    assert found.engines["torch"].prefill[0] > 0 and found.engines["torch"].decode[0] > 0


def test_macs_grow_with_the_square_in_attention_only():
    network = tiny("llama").network
    extra = sizes.macs_per_token(network, 40) - sizes.macs_per_token(network, 20)
    assert extra == LAYERS * 2 * 20 * WIDTH


def test_macs_do_not_depend_on_the_attention_kernel():
    network = tiny("llama").network
    first = sizes.macs_per_token(network, 16)
    network.set_attn_implementation("eager")
    assert sizes.macs_per_token(network, 16) == first


def test_shared_tensors_count_once():
    model = tiny("gpt2")  # its head is its embedding
    network = model.network
    assert network.lm_head.weight is network.transformer.wte.weight
    total, _, _ = sizes.count_parameters(network)
    assert total == sum(p.numel() for p in network.transformer.parameters())
    assert sizes.tensor_bytes(network) == 4 * total


def test_packed_matrices_count_as_what_they_stand_for():
    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.width = 6, 8
            self.codes = torch.nn.Parameter(torch.ones(6, 4, dtype=torch.uint8), requires_grad=False)

        @property
        def weight(self):
            return torch.eye(6, 8)

    assert sizes.count_parameters(torch.nn.Sequential(Packed(), torch.nn.Linear(2, 3, bias=False)))[:2] == (54, 6)
    assert sizes.count_parameters(Packed())[2] == 6
    assert sizes.tensor_bytes(Packed()) == 24


@pytest.mark.parametrize("family", ["llama", "olmoe", "bert", "bert-encoder", "t5", "llava"])
def test_every_shape_gets_what_makes_sense(family):
    found = cost(tiny(family), **QUICK)
    engine = found.engines["torch"]
    assert found.macs_per_token > 0 and engine.prefill[1] <= engine.prefill[0] <= engine.prefill[2]
    assert (engine.decode is None) == family.startswith("bert")
    headline = found.headline()
    assert headline["bytes"][0] == found.bytes_on_disk["torch"] and headline["bytes"][1].format == "bytes"
    key = "prefill" if family.startswith("bert") else "decode"
    assert headline[key][0] == getattr(engine, key) and headline[key][1].better == "higher"


@pytest.mark.parametrize("family", ["clip", "blip"])
def test_networks_that_want_pictures_say_so(family):
    found = cost(tiny(family), **QUICK)
    assert found.macs_per_token is None and found.engines["torch"].prefill is None
    assert any("more than tokens" in note for note in found.notes)
    assert found.parameters > 0 and list(found.headline()) == ["bytes"]
    assert found.tables()


def test_nothing_is_changed_and_nothing_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny("llama")
    model.network.train()
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    cost(model, **QUICK)
    assert model.network.training
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_everything_but_the_volatile_repeats():
    first, second = (cost(tiny("llama"), **QUICK).model_dump(exclude=set(Cost.volatile)) for _ in range(2))
    assert first == second
    assert "engines" not in first and first["provenance"]["settings"]["prompt_tokens"] == 12


def test_round_trip_and_rendering():
    found = cost(tiny("llama"), **QUICK)
    assert Finding.from_json(found.to_json()) == found
    main = found.table()
    assert main.rows[0][0] == "torch" and len(main.rows[0]) == len(main.columns)
    assert {f.title for f in found.figures()} >= {"Weights on disk", "Reading a prompt", "Writing"}
    assert found.summary.startswith("0.1 M parameters")


def test_too_long_for_the_context_is_refused_before_work():
    with pytest.raises(BadInput, match=r"120 \+ 24 tokens do not fit the model's context of 128"):
        cost(tiny("llama"), prompt_tokens=120)
    with pytest.raises(BadInput, match="repeats"):
        cost(tiny("llama"), repeats=0)


def test_peak_memory_is_that_of_the_new_process(tmp_path):
    ballast = torch.ones(300_000_000)
    assert own_peak() >= 1.2e9  # a peak that a new process must not report as its own
    del ballast
    peak = peak_memory(tiny("llama").save(tmp_path / "m"), "torch", 8, 2, threads=1)
    assert 100e6 < peak < own_peak()


def test_a_failing_measure_is_noted_and_the_rest_stands(tmp_path):
    model = tiny("llama")
    model.exports["onnx-genai"] = tmp_path
    found = cost(model, **QUICK)
    assert any("onnx-genai was not timed" in note for note in found.notes)
    assert found.engines["onnx-genai"] == EngineCost() and found.engines["torch"].decode
    with pytest.raises(Exception, match="peak memory of torch was not measured"):
        peak_memory(tmp_path, "torch", 4, 1)


class Toy:
    """An engine with the calls of `intarsia.models.runtime`."""

    vocabulary = 50

    def generate(self, ids: list[int], max_new_tokens: int) -> list[int]:
        torch.randn(120, 120) @ torch.randn(120, 120 * max_new_tokens)
        return [1] * max_new_tokens


def test_exports_take_turns_with_torch(tmp_path, monkeypatch):
    from intarsia.measure import costing

    (tmp_path / "model.onnx").write_bytes(b"x" * 700)
    (tmp_path / "model.onnx.data").write_bytes(b"x" * 300)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 5000)
    monkeypatch.setattr(costing, "_open", lambda folder: Toy())
    model = tiny("llama")
    model.exports["onnx-genai"] = tmp_path
    found = cost(model, **QUICK)
    assert found.bytes_on_disk["onnx-genai"] == 1000
    assert found.engines["onnx-genai"].prefill[0] > 0
    assert found.headlines()["onnx-genai"]["bytes"][0] == 1000
    assert [row[0] for row in found.table().rows] == ["torch", "onnx-genai"]


def test_turns_alternate():
    seen: list[str] = []

    def runner(name):
        def lap():
            seen.append(name)
            return speeds.Lap(1.0, None)

        return lap

    laps = speeds.take_turns({"a": runner("a"), "b": runner("b")}, repeats=3)
    assert seen == list("abbaabba")
    assert {name: len(own) for name, own in laps.items()} == {"a": 3, "b": 3}


def test_compare_speed_gives_ratios_of_rounds():
    found = compare_speed({"base": tiny("llama"), "other": tiny("qwen3")}, prompt_tokens=8, new_tokens=2, repeats=3)
    assert found.ratios["base"].prefill == (1.0, 1.0, 1.0)
    assert found.ratios["other"].decode[0] > 0
    assert [row[0] for row in found.table().rows] == ["base", "other"]
    with pytest.raises(BadInput, match="no models"):
        compare_speed({})


def test_energy_is_an_estimate_and_silent(tmp_path, monkeypatch, capfd):
    pytest.importorskip("codecarbon")
    from intarsia.measure import energy

    monkeypatch.chdir(tmp_path)
    disabled = logging.getLogger("codecarbon").disabled
    joules = energy.estimate_energy(lambda: (torch.randn(300, 300) @ torch.randn(300, 300)).shape[0], seconds=0.3)
    assert 0 < joules < 10
    assert list(tmp_path.iterdir()) == []
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert logging.getLogger("codecarbon").disabled == disabled


def test_energy_of_several_is_taken_in_turns(monkeypatch):
    from intarsia.measure import energy

    order, laps = [], {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    monkeypatch.setattr(energy, "estimate_energy", lambda work, seconds: work() / len(order))
    found = energy.energy_in_turns(laps, 12, rounds=2)
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": [12 / 1, 12 / 4], "b": [12 / 2, 12 / 3]}


def test_energy_wants_its_extra(monkeypatch):
    from intarsia.measure import energy

    monkeypatch.setattr(energy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="the extra 'energy'"):
        energy.estimate_energy(lambda: 1)


def test_provenance_names_versions_and_nothing_personal():
    facts = provenance(seed=3)
    assert facts["seed"] == 3 and facts["torch"] == torch.__version__ and facts["threads"] == torch.get_num_threads()
    assert facts["cpu"] and facts["cores"] >= 1 and facts["python"].count(".") == 2
    assert os.uname().nodename not in str(facts) and str(Path.cwd()) not in str(facts)


def test_declared_in_the_catalog_without_torch():
    assert find("measure.cost").kind == "look"
    code = "import intarsia.measure, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2
