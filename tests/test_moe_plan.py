"""`moe.plan`, `moe.place`, `moe.affinity`, and what hands a placement on."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from intarsia.data import Text
from intarsia.errors import BadInput
from intarsia.moe import Placement, affinity, contiguous, export, permute, place, plan
from intarsia.moe.affinity_measures import likeness
from intarsia.moe.handover.forms import slots
from intarsia.moe.placement import crossing
from intarsia.moe.routing import Counts, Trace
from intarsia.moe.routing.importing import from_official, from_sglang, from_vllm
from intarsia.moe.routing.recording import record, router_sha256
from intarsia.report import to_text
from intarsia.sites import read, run
from tests.tiny import MOE, inputs, tiny
from tests.tiny_more import more

TEXTS = [Text(" ".join(f"{chr(97 + (i * j) % 26)}{j}" for j in range(30))) for i in range(1, 7)]


@pytest.fixture(scope="module")
def trace():
    return record(tiny("olmoe"), [t.text for t in TEXTS], length=16, corpus="letters")


def test_a_plan_is_judged_on_sequences_it_was_not_planned_from(trace, tmp_path):
    found = plan(tiny("olmoe"), text=TEXTS, devices=2, nodes=2, length=16, to=tmp_path / "p.json")
    assert {j.name for j in found.judged} == {
        "plan", "contiguous", "round-robin", "random", "load packing", "greedy"
    }  # fmt: skip
    assert found.bound <= found.planned and found.solver
    with pytest.raises(BadInput, match="there already"):
        plan(tiny("olmoe"), text=TEXTS, devices=2, to=tmp_path / "p.json")
    made = Placement.open(tmp_path / "p.json")
    assert (made.device_of == np.array(found.device_of_expert)).all()
    assert made.router_sha256 == router_sha256(tiny("olmoe")) and made.nodes == 2 and made.k == 2
    assert "changes node" in to_text(found)


def test_the_optimum_is_said_to_be_one(trace):
    found = place(trace, devices=4, goal="crossing", others=[])
    assert found.optimal and found.bound == found.planned and "proved to be the least" in found.summary
    rows = place(trace, devices=4, goal="rows")
    assert not rows.optimal and "used together" in rows.solver
    assert rows.of("plan").coherent <= found.of("contiguous").coherent
    assert place(trace, devices=1).of("plan").crossing == 0
    assert place(trace, devices=8).optimal  # one expert a device, whatever else is asked for


def test_a_load_can_be_asked_for(trace):
    free = place(trace, devices=4, goal="crossing")
    assert len(free.balanced) > 1 and free.balanced[0].taken
    wanted = (free.balanced[0].load + free.balanced[-1].load) / 2
    tight = place(trace, devices=4, goal="crossing", max_load=wanted)
    (taken,) = (b for b in tight.balanced if b.taken)
    assert taken.load <= wanted and taken.crossing >= free.balanced[0].crossing
    flow = Counts.of(trace.split()[0]).flow()
    assert tight.planned == pytest.approx(crossing(flow, np.array(tight.device_of_expert))) != free.planned
    assert tight.planned == pytest.approx(taken.crossing) and not tight.optimal
    for settings in (dict(nodes=2), dict(devices=8), dict(devices=1)):
        with pytest.raises(BadInput, match="leave it out"):
            place(trace, max_load=1.1, **settings)
    with pytest.raises(BadInput, match="greater max_load"):
        place(trace, devices=4, max_load=1.0001)


def test_copies_and_other_text(trace, tmp_path):
    other = record(tiny("olmoe"), [t.text[::-1] for t in TEXTS], length=16, corpus="backwards")
    found = place(trace, devices=4, goal="crossing", replicas=1, others=[_saved(other, tmp_path)])
    plain = place(trace, devices=4, goal="crossing", others=[str(tmp_path / "other.npz")])
    for text in ("held out", "backwards"):
        assert found.of("plan", text).crossing < plain.of("plan", text).crossing
    with pytest.raises(BadInput, match="planned from"):
        place(other, others=[str(tmp_path / "other.npz")])
    assert all(len(device) <= 1 for layer in found.replicas for device in layer) and any(map(any, found.replicas))
    assert {j.text for j in found.judged} == {"held out", "backwards"}


def test_an_integer_programme_may_prove_more(trace):
    found = place(trace, devices=4, goal="rows", prove=20.0)
    plain = place(trace, devices=4, goal="rows")
    assert plain.bound <= found.bound <= found.planned


def test_what_cannot_be_planned_is_refused(trace, tmp_path):
    with pytest.raises(BadInput, match="dense"):
        plan(tiny("llama"), text=TEXTS)
    with pytest.raises(BadInput, match=r"not found .*Double"):
        plan(tiny("olmoe", dtype=torch.float64), text=TEXTS)
    with pytest.raises(BadInput, match="at most 8 devices"):
        plan(tiny("olmoe"), text=TEXTS, devices=16)
    with pytest.raises(BadInput, match="equal nodes"):
        plan(tiny("olmoe"), text=TEXTS, devices=6, nodes=4)
    with pytest.raises(BadInput, match="either a text"):
        plan(tiny("olmoe"))
    trace.save(tmp_path / "t.npz")
    with pytest.raises(BadInput, match="another model"):
        plan(tiny("olmoe", seed=1), trace=[str(tmp_path / "t.npz")])
    with pytest.raises(BadInput, match="another model"):
        place(trace, others=[_saved(record(tiny("mixtral"), ["a b c", "d e f"]), tmp_path)])
    ours = plan(tiny("olmoe"), trace=[str(tmp_path / "t.npz")], devices=2)
    assert ours.router_sha256 == router_sha256(tiny("olmoe"))


def _saved(trace: Trace, folder: Path) -> str:
    trace.save(folder / "other.npz")
    return str(folder / "other.npz")


def test_independent_routing_has_no_affinity_and_a_copy_has_all():
    rng = np.random.default_rng(0)
    ids = rng.integers(8, size=(6000, 3))
    ids[:, 1] = (ids[:, 0] + 1) % 8
    a, b = np.zeros((2, 3, 3))
    a[0, 0] = b[1, 1] = 1.0
    assert likeness(a, a) == 1 and likeness(a, b) == 0
    found = affinity(Trace.of(ids, 8), devices=4, lags=2)
    first, second = found.traces[0].steps
    assert first.bits == pytest.approx(3, abs=0.01) and first.share == pytest.approx(1, abs=0.01)
    assert first.favourites == 1 and second.bits < 0.005
    assert second.favourites == pytest.approx(second.chance, abs=0.03) and second.chance == pytest.approx(
        0.25, abs=0.02
    )
    assert found.traces[0].by_lag[1] < 0.005


def test_traces_are_compared(tmp_path, trace):
    other = record(tiny("olmoe", seed=3), [t.text for t in TEXTS], length=16)
    found = affinity(trace, against=[_saved(other, tmp_path), _saved_again(trace, tmp_path)], lags=1)
    assert found.traces[2].likeness == pytest.approx(1) and found.traces[1].likeness < 0.9
    assert found.traces[0].likeness is None and len(found.pictures) == 2
    with pytest.raises(BadInput, match="one network"):
        affinity(trace, against=[_saved(record(tiny("mixtral"), ["a b c", "d e f"]), tmp_path / "m")])


def _saved_again(trace: Trace, folder: Path) -> str:
    trace.save(folder / "same.npz")
    return str(folder / "same.npz")


@pytest.mark.parametrize("family", [*MOE, "deepseek_v3", "gpt_oss", "jamba", "granitemoe", "qwen2_moe"])
def test_permuted_experts_are_the_same_function(family, tmp_path):
    model = tiny(family, dtype=torch.float64) if family in MOE else more(family, dtype=torch.float64)
    model.network.set_experts_implementation("eager")  # the grouped product knows no float64
    for module in model.network.modules():
        if hasattr(module, "num_group"):
            module.num_group = model.config.n_group = 1
    names = [n for n in model.sites if n.endswith(".router_experts")]
    experts = model.sites.tap(names[0]).module.weight.shape[0]
    rng = np.random.default_rng(0)
    table = np.stack([rng.permutation(contiguous(1, experts, 2)[0]) for _ in names])
    Placement(table, 2, router_sha256=router_sha256(model)).save(tmp_path / "p.json")
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    out = permute(model, placement=tmp_path / "p.json")
    x = inputs("olmoe")
    assert torch.allclose(run(out, x).logits, run(model, x).logits, atol=1e-5)  # (softmax of routers is in float32)
    a, b = (read(m, x, at=names) for m in (model, out))
    for layer, name in enumerate(names):
        order = np.argsort(table[layer], kind="stable")
        assert (torch.as_tensor(order)[b[name]].sort(-1).values == a[name].sort(-1).values).all()
        # The first half of the new order is what the first device holds.
        assert set(order[: experts // 2].tolist()) == set(np.flatnonzero(table[layer] == 0).tolist())
    assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())


def test_a_permuted_model_is_a_plain_folder(tmp_path):
    import transformers as tf

    model = tiny("mixtral")
    table = np.stack([np.array([1, 0, 1, 0])] * len(model.sites.expand("layers.*.router")))
    Placement(table, 2).save(tmp_path / "p.json")
    out = permute(model, placement=tmp_path / "p.json")
    out.save(tmp_path / "m")
    back = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    x = inputs("mixtral")
    assert torch.allclose(back(**x).logits, model.network(**x).logits, atol=1e-5)


def test_a_placement_of_another_model_is_refused(tmp_path):
    Placement(contiguous(4, 8, 2), 2, router_sha256="0" * 64, model="other").save(tmp_path / "p.json")
    with pytest.raises(BadInput, match="another model"):
        permute(tiny("olmoe"), placement=tmp_path / "p.json")
    Placement(contiguous(4, 6, 2), 2).save(tmp_path / "q.json")
    with pytest.raises(BadInput, match="routed layers of 6 experts"):
        permute(tiny("olmoe"), placement=tmp_path / "q.json")
    Placement(contiguous(4, 8, 3), 3).save(tmp_path / "r.json")
    with pytest.raises(BadInput, match="more experts on some"):
        permute(tiny("olmoe"), placement=tmp_path / "r.json")


def test_groups_of_experts_are_not_mixed(tmp_path):
    model = more("deepseek_v3")
    model.config.n_group = 2
    layers = len(model.sites.expand("layers.*.router_experts"))
    experts = model.sites.tap(model.sites.expand("layers.*.router_experts")[0]).module.weight.shape[0]
    Placement(np.tile(np.arange(experts) % 2, (layers, 1)), 2).save(tmp_path / "p.json")
    with pytest.raises(BadInput, match="groups of experts first"):
        permute(model, placement=tmp_path / "p.json")
    for devices in (2, 4):
        plan(model, text=TEXTS, devices=devices, length=16, to=tmp_path / f"{devices}.json")
        out = permute(model, placement=tmp_path / f"{devices}.json")
        x = inputs("olmoe")
        assert torch.allclose(run(out, x).logits, run(model, x).logits, atol=1e-4)
    with pytest.raises(BadInput, match="leave out nodes"):
        plan(model, text=TEXTS, devices=2, nodes=2, length=16)


def test_every_engine_gets_its_form(tmp_path):
    table = np.array([[1, 0, 0, 1, 1, 0], [0, 0, 1, 1, 0, 1]])
    made = Placement(table, 2, replicas=(((0,), (1,)), ((2,), ())), layers=(1, 3))
    sizes = slots(made)
    assert sizes.tolist() == [[1, 2, 5, 0, 0, 3, 4, 1], [0, 1, 4, 2, 2, 3, 5, 2]]
    for engine in ("sglang", "vllm", "tensorrt-llm"):
        found = export(made, engine=engine, to=tmp_path / engine)
        assert found.slots == 8 and found.notes and engine in found.title
    sglang = json.loads((tmp_path / "sglang").read_text())
    assert list(sglang) == ["physical_to_logical_map"] and len(sglang["physical_to_logical_map"]) == 4
    assert sglang["physical_to_logical_map"][1] == sizes[0].tolist()
    assert sglang["physical_to_logical_map"][0] == [0, 1, 2, 3, 4, 5, 0, 1]
    triple = json.loads((tmp_path / "vllm").read_text())
    for layer in range(2):
        for expert in range(6):
            copies = [s for s in triple["logical_to_physical_map"][layer][expert] if s >= 0]
            assert len(copies) == triple["logical_replica_count"][layer][expert] >= 1
            assert all(triple["physical_to_logical_map"][layer][s] == expert for s in copies)
    import yaml

    told = yaml.safe_load((tmp_path / "tensorrt-llm").read_text())
    assert told["num_slots"] == 8 and told["initial_global_assignments"] == {1: sizes[0].tolist(), 3: sizes[1].tolist()}
    with pytest.raises(BadInput, match="no copies"):
        export(made, engine="csv", to=tmp_path / "c.csv")
    export(Placement(table, 2), engine="csv", to=tmp_path / "c.csv")
    rows = list(csv.reader((tmp_path / "c.csv").open()))
    assert rows[0] == ["Expert", "Node"] and [int(r[1]) for r in rows[1:]] == table.ravel().tolist()
    with pytest.raises(BadInput, match="there already"):
        export(Placement(table, 2), engine="csv", to=tmp_path / "c.csv")
    with pytest.raises(BadInput, match="decoder_layers"):
        export(made, engine="sglang", to=tmp_path / "x", decoder_layers=3)


def test_traces_of_others_are_read(tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.integers(8, size=(20, 3))
    np.save(tmp_path / "official.npy", ids)
    assert (from_official(tmp_path / "official.npy", 8).whole()[:, :, 0] == ids).all()
    routed = rng.integers(8, size=(2, 10, 3, 2))
    for i, one in enumerate(routed):
        np.save(tmp_path / f"r{i}.npy", one)
    both = from_vllm([tmp_path / "r0.npy", tmp_path / "r1.npy"], 8)
    assert (both.whole() == routed.reshape(20, 3, 2)).all() and len(both.sequences) == 2
    # Physical expert p of layer l stands for logical (p + l) % 8; the first layer is dense.
    back = (np.arange(8)[None] + np.arange(4)[:, None]) % 8
    logical = rng.integers(8, size=(4, 5, 2))
    physical = np.full((4, 6, 8), -1)
    physical[1:, :5, :2] = (logical[1:] - np.arange(4)[1:, None, None]) % 8
    record_ = {"topk_ids_of_layer": torch.tensor(physical), "extend_seq_lens": [2, 4]}
    torch.save({"records": [record_], "last_physical_to_logical_map": torch.tensor(back)}, tmp_path / "d.pt")
    read_back = from_sglang([tmp_path / "d.pt"], 8, 2)
    assert read_back.facts.layers == (1, 2, 3)
    assert (read_back.whole() == logical[1:].transpose(1, 0, 2)).all() and len(read_back.sequences) == 2
    (tmp_path / "bad.npy").write_text("x")
    for bad in (lambda: from_official(tmp_path / "bad.npy", 8), lambda: from_sglang([tmp_path / "bad.npy"], 8, 2)):
        with pytest.raises(BadInput):
            bad()
